"""Steps of a check or a prune as a trace: every second belongs to one of them, and the timeline adds up to all."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.step_trace import StepTrace
from runtime.timeline import COUNTS, TIMES, Timeline
from runtime.trace import Trace


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_each_second_is_one_steps_and_later_steps_join_the_timeline() -> None:
    clock, timeline, traces = Clock(), Timeline(intervals=4), list[Trace]()

    def tick(trace: Trace) -> None:
        traces.append(trace)
        timeline.tick(trace)

    steps = StepTrace(tick, clock)
    for what, done, in_bytes, seconds in (
        ("opening packs", 0, False, 1.5), ("opening packs", 7, False, 1.0), ("reading packs", 0, True, 4.0),
        ("reading packs", 1 << 20, True, 2.0), ("opening packs", 0, False, 1.0), ("opening packs", 2, False, 0.5),
    ):  # fmt: skip
        steps.step(what, done, in_bytes)
        clock.now += seconds
    steps.end()
    timeline.tick(traces[-1], last=True)
    trace = traces[-1]
    assert trace.wall == pytest.approx(10.0)
    opening, reading = trace.stages
    assert (opening.name, opening.items_in) == ("opening packs", 9) and opening.busy == pytest.approx(4.0)
    assert (reading.name, reading.bytes_in) == ("reading packs", 1 << 20) and reading.busy == pytest.approx(6.0)
    assert trace.bottleneck().stage == "reading packs" and trace.bottleneck().gain == pytest.approx(10 / 7)
    total = np.zeros((2, len(COUNTS) + len(TIMES)))
    for each in timeline.intervals():  # some of them were joined meanwhile
        assert each.values[:, len(COUNTS) :].sum(axis=1) == pytest.approx([each.seconds] * 2)
        total += each.values
    assert total[:, 0].tolist() == [9, 0] and total[:, len(COUNTS)] == pytest.approx([4.0, 6.0])


def test_what_takes_no_step_has_no_trace() -> None:
    traces: list[Trace] = []
    StepTrace(traces.append).end()
    assert traces == []
