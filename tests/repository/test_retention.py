"""Retention against a model that looks at every snapshot by itself, over clocks and calendars nobody likes."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta, tzinfo
from functools import cache
from zoneinfo import ZoneInfo

import hypothesis.strategies as st
import pytest
from hypothesis import given

from model.errors import UsageError
from repository.retention import (
    LAST_OF_SOURCE,
    UNDATED,
    Candidate,
    Policy,
    Span,
    decide,
    effective_time,
    simulate,
)

SECOND = 10**9
DAY = 86_400 * SECOND
BERLIN = ZoneInfo("Europe/Berlin")
START = int(datetime(2025, 3, 1, 2, tzinfo=UTC).timestamp()) * SECOND
FORMATS = {"hourly": "%Y %m %d %H %z", "daily": "%Y %m %d", "weekly": "%G %V", "monthly": "%Y %m", "yearly": "%Y"}


def at(text: str, zone: tzinfo = UTC) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=zone).timestamp()) * SECOND


def kept(candidates: Sequence[Candidate], policy: Policy, zone: tzinfo = UTC) -> dict[str, tuple[str, ...]]:
    """Id → reasons, of what is kept."""
    groups = decide(candidates, policy, zone=zone)
    return {one.candidate.id: one.reasons for group in groups for one in group.decisions if one.keep}


def of_times(*times: str, zone: tzinfo = UTC) -> list[Candidate]:
    return [Candidate(time, at(time, zone)) for time in times]


def expected(candidates: Sequence[Candidate], policy: Policy, zone: tzinfo) -> set[str]:
    """The model: for each snapshot alone, whether some rule wants it. One source only."""
    found = {one.id for one in candidates if one.protected}
    ordered = sorted(candidates, key=lambda one: (one.time, one.id))
    if ordered:
        found.add(ordered[-1].id)
    for one in ordered:
        later = [other for other in ordered if (other.time, other.id) > (one.time, one.id)]
        if len(later) < policy.last:
            found.add(one.id)
        for rule, form in FORMATS.items():
            mine, theirs = label(one, form, zone), {label(other, form, zone) for other in later}
            if mine not in theirs and len(theirs) < getattr(policy, rule):
                found.add(one.id)
        if policy.within == Span(days=10):
            newest = datetime.fromtimestamp(ordered[-1].time // SECOND, zone).replace(tzinfo=None)
            border = (newest - timedelta(days=10)).replace(tzinfo=zone).timestamp()
            if one.time // SECOND >= border:
                found.add(one.id)
        if any(wanted <= one.tags for wanted in policy.tags):
            found.add(one.id)
    return found


def label(one: Candidate, form: str, zone: tzinfo) -> str:
    return _label(one.time // SECOND, form, zone)


@cache
def _label(seconds: int, form: str, zone: tzinfo) -> str:
    return datetime.fromtimestamp(seconds, zone).strftime(form)


COUNT = st.integers(0, 4)
POLICIES = st.builds(
    Policy,
    last=COUNT,
    hourly=COUNT,
    daily=COUNT,
    weekly=COUNT,
    monthly=COUNT,
    yearly=COUNT,
    within=st.sampled_from([None, Span(days=10)]),
    tags=st.sampled_from([(), (frozenset("a"),), (frozenset("ab"), frozenset("c"))]),
)
TIMES = st.one_of(
    st.integers(START, START + 20 * DAY),
    st.integers(START - 900 * DAY, START + 900 * DAY),
    st.integers(at("2025-10-26T00:00:00"), at("2025-10-26T03:00:00")),  # clocks go back in Berlin
    st.integers(at("2024-12-28T00:00:00"), at("2025-01-06T00:00:00")),  # a year's end inside a week
)
HISTORIES = st.lists(
    st.builds(
        lambda time, tags, protected: Candidate("", time, tags=tags, protected=protected),
        TIMES,
        st.frozensets(st.sampled_from("abc")),
        st.sampled_from([(), (), (), ("pinned",)]),
    ),
    max_size=40,
).map(lambda found: [replace(one, id=f"{number:03d}") for number, one in enumerate(found)])


@given(HISTORIES, POLICIES, st.sampled_from([UTC, BERLIN]))
def test_it_keeps_what_the_model_keeps(history: list[Candidate], policy: Policy, zone: tzinfo) -> None:
    assert set(kept(history, policy, zone)) == expected(history, policy, zone)


@given(HISTORIES, POLICIES, st.randoms(use_true_random=False))
def test_applying_it_again_or_in_another_order_changes_nothing(
    history: list[Candidate], policy: Policy, rng: random.Random
) -> None:
    once = set(kept(history, policy))
    shuffled = rng.sample(history, len(history))
    assert set(kept(shuffled, policy)) == once
    assert set(kept([one for one in history if one.id in once], policy)) == once


def test_the_latest_of_each_hour_day_week_month_and_year() -> None:
    days = of_times(*[f"2025-01-{day:02d}T{hour}:00:00" for day in (1, 2, 4) for hour in ("03", "21")])
    assert set(kept(days, Policy(daily=2))) == {"2025-01-04T21:00:00", "2025-01-02T21:00:00"}, (
        "days without one do not count"
    )
    year = of_times("2024-12-29T12:00:00", "2024-12-30T12:00:00", "2025-01-05T12:00:00", "2025-01-06T12:00:00")
    assert set(kept(year, Policy(weekly=2))) == {"2025-01-05T12:00:00", "2025-01-06T12:00:00"}
    assert set(kept(year, Policy(yearly=9))) == {"2024-12-30T12:00:00", "2025-01-06T12:00:00"}
    assert kept(year, Policy(monthly=1, last=1))["2025-01-06T12:00:00"] == ("last", "monthly", LAST_OF_SOURCE)


def test_the_hour_that_comes_twice_is_two_hours() -> None:
    first, second = at("2025-10-26T00:30:00"), at("2025-10-26T01:30:00")
    both = [Candidate("first", first), Candidate("second", second)]
    assert {datetime.fromtimestamp(one.time // SECOND, BERLIN).hour for one in both} == {2}
    assert set(kept(both, Policy(hourly=2), BERLIN)) == {"first", "second"}


def test_days_begin_where_the_operator_lives() -> None:
    late = of_times("2025-06-01T21:00:00", "2025-06-01T23:00:00", "2025-06-02T20:00:00")
    assert len(kept(late, Policy(daily=9), UTC)) == 2
    assert set(kept(late, Policy(daily=9), BERLIN)) == {"2025-06-01T21:00:00", "2025-06-02T20:00:00"}


@pytest.mark.parametrize(
    ("span", "border"),
    [
        ("30d", "2025-03-01T12:00:00"),
        ("4w2d", "2025-03-01T12:00:00"),
        ("1m", "2025-02-28T12:00:00"),
        ("13m", "2024-02-29T12:00:00"),
        ("1y1m", "2024-02-29T12:00:00"),
        ("36h", "2025-03-30T00:00:00"),
        ("2y5m7d3h", "2022-10-24T09:00:00"),
    ],
)
def test_within_counts_back_from_the_newest_on_the_calendar(span: str, border: str) -> None:
    edge = at(border)
    history = [Candidate("new", at("2025-03-31T12:00:00")), Candidate("in", edge), Candidate("out", edge - SECOND)]
    assert set(kept(history, Policy(within=Span.parse(span)))) == {"new", "in"}


@pytest.mark.parametrize("text", ["", "0d", "7", "d", "-1d", "3h2d", "1d 2h", "99999999d", "1.5d"])
def test_what_is_no_span_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        Span.parse(text)


@pytest.mark.parametrize("zone", [UTC, BERLIN, None])
def test_no_span_and_no_time_is_too_large_for_the_calendar(zone: tzinfo | None) -> None:
    history = [Candidate("a", -(1 << 70)), Candidate("b", 0), Candidate("c", 1 << 70)]
    policy = Policy(daily=1, weekly=1, within=Span.parse("999999y999999m999999d999999h"))
    (group,) = decide(history, policy, zone=zone)
    assert [one.candidate.id for one in group.decisions if one.keep] == ["c", "b", "a"]


def test_sources_are_decided_apart_and_the_last_of_each_stays() -> None:
    history = [Candidate(f"{host}{day}", START + day * DAY, host, (b"/a", b"/b")) for host in "xy" for day in range(3)]
    history.append(Candidate("turned", START + 9 * DAY, "x", (b"/b", b"/a")))
    history.append(Candidate("other", START, "x", (b"/a",)))
    found = kept(history, Policy(tags=(frozenset("t"),)))
    assert found == {"turned": (LAST_OF_SOURCE,), "y2": (LAST_OF_SOURCE,), "other": (LAST_OF_SOURCE,)}
    (everything,) = decide(history, Policy(last=1), group_by=(), zone=UTC)
    assert {one.candidate.id for one in everything.decisions if one.keep} == {"turned", "y2", "other"}


def test_what_is_not_chosen_is_not_touched_but_counts_as_the_last_of_its_source() -> None:
    history = [Candidate("old", START, tags=frozenset("d")), Candidate("new", START + DAY)]
    (group,) = decide(history, Policy(last=0, tags=(frozenset("w"),)), zone=UTC, chosen=lambda one: "d" in one.tags)
    assert [(one.candidate.id, one.keep) for one in group.decisions] == [("old", False)]


def test_grouping_by_tags() -> None:
    history = [Candidate(f"{tag}{day}", START + day * DAY, tags=frozenset(tag)) for tag in "ab" for day in range(3)]
    groups = decide(history, Policy(last=1), group_by=("host", "tags"), zone=UTC)
    assert [(group.tags, group.paths) for group in groups] == [(("a",), None), (("b",), None)]
    assert [one.candidate.id for group in groups for one in group.decisions if one.keep] == ["a2", "b2"]


@pytest.mark.parametrize(
    "policy",
    [
        Policy(),
        Policy(last=-1),
        Policy(daily=3, weekly=-1),
        Policy(tags=(frozenset("?"),)),
        Policy(tags=(frozenset(),)),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(policy: Policy) -> None:
    with pytest.raises(UsageError):
        policy.check(["a"])


def test_the_store_says_when_a_snapshot_was_made_if_it_tells() -> None:
    now, year = START, 365 * DAY
    assert effective_time(now - year, now, now) == now - year
    assert effective_time(now + 4 * 60 * SECOND, now, now) == now + 4 * 60 * SECOND
    assert effective_time(now + year, now - DAY, now) == now - DAY
    assert effective_time(now, now, now - 40 * year) == now, "a wrong clock of the operator changes nothing"
    assert effective_time(now, 0, now) == now, "files that were copied without their times say nothing"
    assert effective_time(now + year, None, now) is None


def test_snapshots_from_the_future_are_kept_and_count_for_nothing() -> None:
    history = [Candidate("old", START), Candidate("new", START + DAY)]
    history += [Candidate(f"future{year}", START + 365 * year * DAY, dated=False) for year in (1, 2)]
    found = kept(history, Policy(last=1, within=Span(days=2)))
    assert found["future1"] == found["future2"] == (UNDATED,)
    assert found["new"] == ("last", "within", LAST_OF_SOURCE) and found["old"] == ("within",)


def jumpy_history(seed: int) -> list[Candidate]:
    """Two years of daily backups with gaps; now and then the clock is set wrong, and right again days later."""
    rng, found, shift = random.Random(seed), list[Candidate](), 0
    for day in range(731):
        if rng.random() < 0.02:
            shift = rng.choice([0, 0, -400 * DAY, -3 * DAY, 2 * DAY, 90 * DAY])
        if rng.random() < 0.1:
            continue
        for _ in range(rng.choice([1, 1, 1, 3])):
            time = START + day * DAY + shift + rng.randrange(20 * 3600) * SECOND
            tags = frozenset("k" if rng.random() < 0.02 else "")
            found.append(Candidate(f"{len(found):05d}", time, "box", (b"/",), tags))
    return found


TWO_YEARS = Policy(
    last=3, hourly=5, daily=7, weekly=5, monthly=12, yearly=2, within=Span(days=3), tags=(frozenset("k"),)
)


@pytest.mark.parametrize("seed", range(3))
def test_two_years_of_daily_backups_and_policies(seed: int) -> None:
    """Applied after every backup it keeps what it would keep applied once at the end, but for what was the last."""
    history = jumpy_history(seed)
    left: list[Candidate] = []
    seen: dict[str, set[str]] = {rule: set() for rule in FORMATS}
    for one in history:
        left.append(one)
        newest = max(left, key=lambda each: each.age).id
        reasons = kept(left, TWO_YEARS, BERLIN)
        left = [each for each in left if each.id in reasons]
        assert newest in reasons and len(left) <= 3 + 5 + 7 + 5 + 12 + 2 + 12 + sum("k" in each.tags for each in left)
        for rule, form in FORMATS.items():  # never fewer than asked, as far as there ever were as many
            seen[rule].add(label(one, form, BERLIN))
            now = {label(each, form, BERLIN) for each in left}
            assert len(now) >= min(getattr(TWO_YEARS, rule), len(seen[rule]))
    assert {each.id for each in left} == set(kept(history, TWO_YEARS, BERLIN)) == expected_once(history)


def expected_once(history: list[Candidate]) -> set[str]:
    plain = replace(TWO_YEARS, within=None)
    newest = datetime.fromtimestamp(max(one.time for one in history) // SECOND, BERLIN).replace(tzinfo=None)
    border = (newest - timedelta(days=3)).replace(tzinfo=BERLIN).timestamp()
    return expected(history, plain, BERLIN) | {one.id for one in history if one.time // SECOND >= border}


def test_the_simulator_goes_on_with_each_source() -> None:
    history = [Candidate(host, START, host, (b"/",), frozenset("t"), ("pinned",)) for host in "ab"]
    times = [START + day * DAY for day in range(1, 731)]
    found = simulate(history, Policy(daily=7, monthly=6), times, UTC)
    assert [(one.made, one.group.host) for one in found] == [(730, "a"), (730, "b")]
    for one in found:
        ids = [decision.candidate.id for decision in one.group.decisions]
        assert ids[:7] == [f"simulated {number:08d}" for number in range(730, 723, -1)]
        assert len(ids) == 7 + 4 + 1 and ids[-1] in "ab", "the days are of two months; four more, and the pinned one"
        assert one.most <= 14
