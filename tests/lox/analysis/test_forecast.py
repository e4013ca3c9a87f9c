"""Growth and its forecast: against histories whose law is known, and against what really came."""

from __future__ import annotations

import os
import random
import time

import numpy as np
import pyarrow as pa
import pytest

from lox.analysis.forecast import DAY, GROWTH_SCHEMA, Retention, daily_growth, forecast, growth
from lox.commands.analyze_forecast import parse_policy
from model.errors import UsageError
from repository.repository import Repository
from repository.retention import Candidate, Policy
from repository.snapshot import Snapshot
from repository.tables.view import View
from tests.lox.running import Shell
from tests.repository.samples import CHUNK, back_up, new_repository

BEGIN = 20_000 * DAY


def history(added: list[int]) -> pa.Table:
    """A source backed up every day, whose further backups add so much."""
    rows = [
        {
            "snapshot": f"{day:032x}",
            "time": BEGIN + day * DAY,
            "host": "box",
            "baseline": day == 0,
            "unique_added": 2 * size,
            "stored_added": size,
            "stored_total": 0,
        }
        for day, size in enumerate([10**9, *added])
    ]
    return pa.Table.from_pylist(rows, schema=GROWTH_SCHEMA)


def weekly(rng: np.random.Generator, days: int) -> np.ndarray:
    """Bytes a day: many on working days, few on weekends, all of them by chance."""
    base = np.where(np.arange(days) % 7 < 5, 100e6, 5e6)
    return np.round(base * rng.lognormal(0, 0.5, days))


def test_nine_of_ten_futures_lie_in_the_interval() -> None:
    rng = np.random.default_rng(3)
    inside = []
    for seed in range(60):
        days = weekly(rng, 90 + 60)
        found = forecast(history(days[:90].tolist()), 10**10, BEGIN, days=60, seed=seed)
        last = found.days.drop_columns(["time"]).to_pylist()[-1]
        inside.append(last["stored_low"] <= 10**10 + days[90:].sum() <= last["stored_high"])
    assert 0.75 <= np.mean(inside) <= 0.99
    assert found.per_day == pytest.approx(days[:90].mean())


def test_a_steady_history_is_continued_exactly_and_the_capacity_met_on_its_day() -> None:
    found = forecast(history([1000] * 30), 50_000, BEGIN, days=40, capacity=70_000)
    rows = found.days.drop_columns(["time"]).to_pylist()
    assert [row["stored_low"] for row in rows] == [row["stored_high"] for row in rows]
    assert rows[9]["stored_median"] == 60_000 and rows[9]["day"] == 10
    assert (found.full_early, found.full_median, found.full_late) == (20, 20, 20)
    assert forecast(history([1000] * 30), 50_000, BEGIN, days=40, capacity=10**6).full_median is None
    assert forecast(history([1000] * 30), 50_000, BEGIN, days=40, capacity=10**4).full_median == 0


def test_a_short_history_says_nothing() -> None:
    with pytest.raises(UsageError, match="too short"):
        daily_growth(history([1000]))


def turning_over(repository: Repository, days: int, seed: int = 1) -> list[Snapshot]:
    """Daily backups of 40 files, of which 4 are replaced each day, in turn."""
    rng = random.Random(seed)
    tree = {b"data/%02d" % number: rng.randbytes(10 * CHUNK) for number in range(40)}
    made = []
    for day in range(days):
        for number in range(4):
            tree[b"data/%02d" % ((4 * day + number) % 40)] = rng.randbytes(10 * CHUNK)
        when = BEGIN + day * DAY
        made.append(
            back_up(repository, {b"data": None, **tree}, time=when, started=when, finished=when, paths=(b"/data",))
        )
    return made


def test_growth_is_what_each_snapshot_was_the_first_to_need() -> None:
    repository = new_repository()
    turning_over(repository, 5)
    view = View(repository, None)
    rows = growth(view).drop_columns(["time"]).to_pylist()
    assert [row["baseline"] for row in rows] == [True, False, False, False, False]
    content = 40 * 10 * CHUNK
    assert content <= rows[0]["unique_added"] < 2 * content  # and the manifest
    for row in rows[1:]:
        assert 4 * 10 * CHUNK <= row["unique_added"] < content
    # Random content is stored as it is; all that is in segments is needed by some snapshot.
    assert rows[-1]["stored_total"] == pytest.approx(int(view.index.segments.stored.sum(dtype=np.int64)), abs=5)


def test_what_some_snapshots_need_is_known_exactly_and_what_a_policy_leaves_is_foretold() -> None:
    repository = new_repository()
    made = turning_over(repository, 30)
    retention = Retention(View(repository, None))
    everything = growth(View(repository, None))["stored_total"][-1].as_py()
    assert retention.held({one.id for one in made}) == pytest.approx(everything, rel=1e-6)
    alone = retention.held({made[-1].id})
    assert retention.held({made[-1].id, made[-3].id}) > alone + 8 * 10 * CHUNK * 0.9
    candidates = [Candidate(one.id, one.time, one.host, one.paths) for one in made]
    now, ahead = made[-1].time + DAY, 20
    kept = retention.after(candidates, Policy(daily=10), now, ahead, DAY)
    assert kept.snapshots == 10
    # Ten days of it hold the 40 files and the 36 that were replaced in between; each of 1,000 bytes, stored as it is.
    future = turning_over(new := new_repository(), 30 + ahead)
    truth = Retention(View(new, None)).held({one.id for one in future[-10:]})
    assert kept.stored_low <= truth * 1.02 and kept.stored_high >= truth * 0.98
    assert kept.stored_median == pytest.approx(truth, rel=0.05)
    fewer = retention.after(candidates, Policy(last=2), now, ahead, DAY)
    assert fewer.stored_median < kept.stored_median


def test_policies_are_parsed() -> None:
    assert parse_policy("daily=7, weekly=4").daily == 7
    for text in ("daily=x", "sometimes=3", "daily", "daily=0"):
        with pytest.raises(UsageError):
            parse_policy(text)


def test_the_command(shell: Shell) -> None:
    from repository.store import LocalStore
    from tests.lox.running import PASSWORD

    repository = Repository.open(LocalStore(str(shell.repository)), PASSWORD)
    start = time.time_ns() - 8 * DAY
    tree: dict[bytes, bytes | None] = {b"data": None}
    for day in range(8):
        tree[b"data/%d" % day] = os.urandom(5000)
        when = start + day * DAY
        back_up(repository, tree, time=when, started=when, finished=when)
    rows = shell.json("analyze", "forecast", "--days", "30", "--capacity", "1GiB", "--policy", "daily=3")
    assert [row["day"] for row in rows if row["type"] == "day"] == list(range(1, 31))
    (capacity,) = (row for row in rows if row["type"] == "capacity")
    assert capacity["days_median"] is None
    (policy,) = (row for row in rows if row["type"] == "policy")
    assert policy["snapshots"] == 3 and policy["stored_low"] <= policy["stored_median"] <= policy["stored_high"]
    text = shell("analyze", "forecast", "--days", "30", "--policy", "daily=3").ok().out
    assert "STORED MEDIAN" in text and "kept by a policy after 30 days" in text
