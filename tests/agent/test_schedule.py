"""The schedule: nothing due is lost, nothing begins twice, whatever the clock, the agent and the runs do."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.schedule import Mark, Schedule, Wanted
from agent.timetable import Timetable
from model.errors import UsageError

JOB = UUID(int=1)


def at(text: str, zone: str = "UTC") -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


def shown(moment: float | None) -> str:
    assert moment is not None
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M")


def test_times_are_those_of_the_zone() -> None:
    table = Timetable(JOB, "0 2 * * *", "Europe/Berlin")
    assert shown(table.next(at("2026-01-10T12:00"), at("2026-01-10T12:00"))) == "2026-01-11T01:00"
    assert shown(table.next(at("2026-07-10T12:00"), at("2026-07-10T12:00"))) == "2026-07-11T00:00"


def test_a_day_without_that_hour_and_one_that_has_it_twice() -> None:
    """Berlin, 2026: 02:00 to 03:00 does not exist on March 29, and comes twice on October 25. One run each."""
    table = Timetable(JOB, "30 2 * * *", "Europe/Berlin")
    for day, spring in (("2026-03-29", True), ("2026-10-25", False)):
        begin, found = at(f"{day}T00:00", "Europe/Berlin"), []
        until = begin
        for minute in range(60 * 24):
            now = begin + 60 * minute
            if (due := table.newest(until, now)) is not None:
                found.append(due)
                until = due
        assert len(found) == 1, (spring, [shown(one) for one in found])


def test_jitter_is_the_same_each_time_and_differs_between_hosts() -> None:
    tables = [Timetable(UUID(int=number), "0 * * * *", jitter=600) for number in range(50)]
    delays = [table.delay(3600.0) for table in tables]
    assert delays == [table.delay(3600.0) for table in tables]
    assert all(0 <= delay < 600 for delay in delays) and len(set(delays)) == 50
    now, hour = at("2026-01-10T12:30"), at("2026-01-10T13:00")
    assert all(hour <= (table.next(now, now) or 0) < hour + 600 for table in tables)


@pytest.mark.parametrize(("cron", "zone"), [("61 * * * *", "UTC"), ("* * *", "UTC"), ("0 2 * * *", "Europe/Nowhere")])
def test_nonsense_is_refused(cron: str, zone: str) -> None:
    with pytest.raises(UsageError):
        Timetable(JOB, cron, zone)


def test_missed_times() -> None:
    """After three days without the agent: one run that makes up for all, or none; and the next in its time."""
    last, now = at("2026-01-10T02:00"), at("2026-01-13T12:00")
    for policy, begun in (("run_once", 1), ("skip", 0)):
        table = Timetable(JOB, "0 2 * * *", missed=policy)
        schedule = Schedule(2, {JOB: Mark(last, table.fingerprint)})
        schedule.set_tables([table], now)
        orders = schedule.tick(now)
        assert (len(orders.begin), len(orders.skipped)) == (begun, 1 - begun)
        assert all(wanted.late for wanted in orders.begin)
        schedule.ended(JOB)
        assert not schedule.tick(now + 60).begin
        (wanted,) = schedule.tick(at("2026-01-14T02:00")).begin
        assert not wanted.late


def test_a_new_or_changed_job_has_missed_nothing() -> None:
    now = at("2026-01-13T12:00")
    schedule = Schedule(2, {JOB: Mark(at("2026-01-01T00:00"), "0 5 * * * UTC")})
    schedule.set_tables([Timetable(JOB, "0 2 * * *")], now)
    assert not schedule.tick(now).begin


def test_overlap() -> None:
    for policy, expected in (("skip", 1), ("queue", 2)):
        schedule, begun = Schedule(4), 0
        schedule.set_tables([Timetable(JOB, "* * * * *", overlap=policy)], 0.0)
        for minute in range(1, 6):  # it runs for five minutes
            begun += len(schedule.tick(60.0 * minute).begin)
        schedule.ended(JOB)
        begun += len(schedule.tick(301.0).begin)
        assert begun == expected


def test_a_clock_that_was_far_ahead_keeps_nothing_back() -> None:
    schedule = Schedule(1)
    table = Timetable(JOB, "* * * * *")
    schedule.set_tables([table], at("2036-01-01T00:00"))
    now = at("2026-01-01T00:00")
    schedule.tick(now)
    assert len(schedule.tick(now + 60).begin) == 1


def test_paused_is_only_for_the_timetable() -> None:
    schedule = Schedule(1)
    schedule.set_tables([Timetable(JOB, "* * * * *")], 0.0)
    schedule.paused = True
    assert not schedule.tick(120.0).begin
    wanted = Wanted(JOB, uuid4())
    schedule.ask(wanted)
    assert schedule.tick(130.0).begin == [wanted]


steps = st.lists(
    st.one_of(
        st.tuples(st.just("wait"), st.integers(1, 7200)),
        st.tuples(st.just("end"), st.integers(0, 3)),
        st.tuples(st.just("ask"), st.integers(0, 3)),
        st.tuples(st.just("restart"), st.integers(0, 86_400)),
    ),
    max_size=40,
)


@settings(max_examples=40)
@given(steps=steps, slots=st.integers(1, 3), overlap=st.sampled_from(["skip", "queue"]),
       missed=st.sampled_from(["run_once", "skip"]), jitter=st.sampled_from([0, 300, 5000]))  # fmt: skip
def test_whatever_happens(steps: list[tuple[str, int]], slots: int, overlap: str, missed: str, jitter: int) -> None:
    jobs = [UUID(int=number) for number in range(4)]
    crons = ["*/5 * * * *", "0 * * * *", "30 1-5 * * *", "7 */2 * * *"]
    tables = [
        Timetable(job, cron, "America/New_York", jitter, missed, overlap) for job, cron in zip(jobs, crons, strict=True)
    ]
    now = at("2026-03-07T20:00")  # the night before the clocks change there
    schedule = Schedule(slots)
    schedule.set_tables(tables, now)
    decided: dict[UUID, set[float]] = {job: set() for job in jobs}
    asked: set[UUID] = set()
    begun: set[UUID] = set()
    for what, value in steps:
        match what:
            case "wait":
                now += value
            case "end":
                schedule.ended(jobs[value])
            case "ask":
                wanted = Wanted(jobs[value], uuid4())
                asked.add(wanted.run)
                schedule.ask(wanted)
            case "restart":  # killed: what waited and the marks are kept, what ran has ended
                waiting, marks = schedule.waiting, dict(schedule.marks)
                now += value
                schedule = Schedule(slots, marks)
                for one in waiting:
                    schedule.ask(one)
                schedule.set_tables(tables, now)
        orders = schedule.tick(now)
        assert len(schedule.running) <= slots
        for one in orders.begin:
            assert one.run not in begun, "a run began twice"
            begun.add(one.run)
            assert one.due is None or (one.due + jitter + 1e-6 >= 0 and one.due <= now)
        for skipped in orders.skipped:
            assert skipped.due not in decided[skipped.job]
            decided[skipped.job].add(skipped.due)
        for table in tables:
            mark = schedule.marks[table.job]
            assert table.newest(mark.until, now) is None, "nothing that is due is left undecided"
    for _ in range(100):  # let everything end
        for job in jobs:
            schedule.ended(job)
        begun |= {one.run for one in schedule.tick(now).begin}
    assert asked <= begun and not schedule.waiting
