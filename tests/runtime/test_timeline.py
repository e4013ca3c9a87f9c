"""A run over time: nothing is lost, nothing is negative, and memory stays bounded. (Executors: see the contract.)"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.bottleneck import CALLER
from runtime.timeline import COUNTS, TIMES, Timeline
from runtime.trace import StageTrace, Trace

LANES = 2


def trace(wall: float, busy: float, blocked: float = 0.0, items: int = 0) -> Trace:
    work = StageTrace(
        "work", "work", LANES, items_in=items, items_out=items, busy=busy, blocked=blocked,
        starved=wall * LANES - busy - blocked,
    )  # fmt: skip
    return Trace("threads", wall, (StageTrace("feed", CALLER, 1, starved=wall), work))


def totals(timeline: Timeline) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return np.array(sum(interval.values for interval in timeline.intervals()))


def test_an_interval_is_what_was_gained_in_about_a_second() -> None:
    timeline = Timeline()
    news = [timeline.tick(trace(wall, wall * 1.5, items=int(10 * wall))) for wall in (0.2, 0.6, 1.1, 1.9, 2.2)]
    assert news == [False, False, True, False, True]
    assert not timeline.tick(trace(2.4, 3.6, items=24)) and timeline.tick(trace(2.4, 3.6, items=24), last=True)
    intervals = list(timeline.intervals())
    assert [interval.seconds for interval in intervals] == pytest.approx([1.1, 1.1, 0.2])
    assert [interval.begin for interval in intervals] == pytest.approx([0.0, 1.1, 2.2])
    assert [interval.values[1, 0] for interval in intervals] == [11, 11, 2]
    assert timeline.latest() is not None and len(timeline) == 3


@given(st.lists(st.tuples(st.floats(0.0, 1.0), st.floats(0.0, 1.0)), min_size=1, max_size=40))
def test_what_turns_out_otherwise_is_made_good(shares: list[tuple[float, float]]) -> None:
    """Work that becomes known late was taken for waiting: the times go back and forth, sums hold all the same."""
    timeline, last = Timeline(), trace(0.0, 0.0)
    for number, (share, rest) in enumerate(shares):
        wall = number + 1.0
        busy = wall * LANES * share
        last = trace(wall, busy, (wall * LANES - busy) * rest)
        timeline.tick(last)
    for interval in timeline.intervals():
        assert interval.values.min() >= 0
        assert interval.values[:, len(COUNTS) :].sum(axis=1) == pytest.approx(
            [interval.seconds, LANES * interval.seconds]
        )
    assert totals(timeline)[:, len(COUNTS) :].sum(axis=1) == pytest.approx([last.wall, LANES * last.wall])


def test_a_call_of_ten_seconds_that_is_known_late_ends_up_as_work() -> None:
    timeline = Timeline()
    for wall in range(1, 11):
        timeline.tick(trace(float(wall), 0.0))
    for wall in range(11, 31):
        timeline.tick(trace(float(wall), 10.0 + (wall - 10)))
    busy = totals(timeline)[1, len(COUNTS) + TIMES.index("busy")]
    assert busy == pytest.approx(30.0, rel=0.01)


def test_a_long_run_keeps_few_intervals_and_loses_nothing() -> None:
    timeline, day = Timeline(intervals=64), 20_000
    for wall in range(1, day + 1):
        timeline.tick(trace(float(wall), wall * 1.25, items=wall))
    timeline.tick(trace(float(day), day * 1.25, items=day), last=True)
    assert 16 <= len(timeline) <= 64
    assert totals(timeline)[1, 0] == day
    assert totals(timeline)[1, len(COUNTS)] == pytest.approx(day * 1.25)
    seconds = [interval.seconds for interval in timeline.intervals()]
    assert sum(seconds) == pytest.approx(day) and max(seconds[:-1]) <= 2 * min(seconds[:-1])
