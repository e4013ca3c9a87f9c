"""What limits a run, and what it is worth to make it faster: the sentence, and laws of the model behind it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.bottleneck import CALLER, bottleneck_of, predicted_wall, workers
from runtime.trace import StageTrace, Trace


def line(name: str, strand: str, *lanes: float, wall: float = 10.0) -> StageTrace:
    busy = sum(lanes)
    return StageTrace(name, strand, len(lanes), busy=busy, starved=wall * len(lanes) - busy, lane_busy=lanes)


def trace(*lines: StageTrace, feeding: float = 1.0, sinking: float = 1.0, idle: float | None = None) -> Trace:
    ends = line("scan", CALLER, feeding), line("commit", CALLER, sinking)
    return Trace("threads", 10.0, (ends[0], *lines, ends[1]), cores=2, idle_cores=idle)


def test_a_strand_of_its_own() -> None:
    run = trace(line("read", "read", 5.9, 5.9), line("compress", "compress", 9.4, 9.4), idle=0.1)
    assert bottleneck_of(run).text == (
        "compress limits: 2 of 2 lanes busy 94 %; doubling it is worth up to 1.5 times; then read limits; "
        "no idle cores for more lanes"
    )


def test_stages_that_share_lanes_share_the_gain() -> None:
    run = trace(line("hash", "work", 3.0, 3.0), line("compress", "work", 6.0, 6.0), line("upload", "net", 6.5, 6.5))
    assert bottleneck_of(run).text == (
        "compress limits: 2 of 2 lanes busy 90 %, 60 % with it; doubling it is worth up to 1.3 times; "
        "then upload limits"
    )


def test_the_caller_can_be_what_limits() -> None:
    run = trace(line("hash", "work", 3.0, 3.0), feeding=8.0, sinking=1.5, idle=1.5)
    assert bottleneck_of(run).text == (
        "scan limits: busy 95 % of the time, 80 % with it; doubling it is worth up to 1.7 times; it still limits then"
    )


def test_lanes_without_work_are_not_counted() -> None:
    run = trace(line("hash", "work", 9.5, 0.2, 0.0), idle=1.25)
    assert bottleneck_of(run).text == (
        "hash limits: 1 of 3 lanes busy 95 %; doubling it is worth up to 1.9 times; it still limits then; "
        "1.2 of 2 cores idle, more lanes may help"
    )


def test_two_that_limit_alike() -> None:
    run = trace(line("read", "read", 9.0), line("upload", "upload", 9.0))
    assert bottleneck_of(run).text == (
        "read limits: busy 90 % of the time; doubling it is worth nothing: upload limits as well"
    )


def test_sometimes_nothing_limits() -> None:
    some = trace(line("hash", "work", 2.0, 2.0), line("read", "work", 1.0, 1.0))
    assert bottleneck_of(some).text == "nothing limits: no stage was busy for long, the longest hash, 20 %"
    none = trace(line("hash", "work", 0.0, 0.0), feeding=0.0, sinking=0.0)
    assert bottleneck_of(none).text == "nothing limits: the source was idle"


def test_inline_does_everything_in_one_thread() -> None:
    run = replace(trace(line("hash", "work", 2.0, 2.0), line("read", "read", 3.0)), executor="inline")
    limit = bottleneck_of(run)
    assert (limit.stage, limit.then) == ("hash", "read")
    assert limit.gain == pytest.approx(10 / 8)


SECONDS = st.floats(0.0, 9.0)


@st.composite
def traces(draw: st.DrawFn) -> Trace:
    lines = []
    for strand in range(draw(st.integers(1, 3))):
        lanes = draw(st.integers(1, 3))
        for number in range(draw(st.integers(1, 3))):
            share = 10.0 / 3 if strand else 3.0
            busy = [draw(st.floats(0.0, share)) for _ in range(lanes)]
            lines.append(line(f"s{strand}{number}", f"strand{strand}", *busy))
    run = trace(*lines, feeding=draw(st.floats(0.0, 5.0)), sinking=draw(st.floats(0.0, 5.0)))
    return replace(run, executor=draw(st.sampled_from(["threads", "ray"])))


@given(traces())
def test_no_other_stage_is_worth_more(run: Trace) -> None:
    limit = bottleneck_of(run)
    assert 1.0 <= limit.gain <= 2.0 + 1e-9
    if limit.stage:
        best = predicted_wall(run, {limit.stage: 2.0})
        assert limit.gain == pytest.approx(run.wall / best)
        assert all(predicted_wall(run, {other.name: 2.0}) >= best - 1e-9 for other in run.stages)
        assert limit.then in ("", *(other.name for other in run.stages))


@given(traces(), st.floats(1.0, 100.0))
def test_a_prediction_is_between_what_is_left_of_the_others_and_now(run: Trace, speedup: float) -> None:
    for stage in run.stages:
        wall = predicted_wall(run, {stage.name: speedup})
        without = max(sum(work.values()) - work.get(stage.name, 0.0) for work in workers(run))
        assert without - 1e-9 <= wall <= run.wall + 1e-9
        assert predicted_wall(run, {stage.name: 1.0}) == pytest.approx(run.wall)
        assert predicted_wall(run, {stage.name: 1 / speedup}) >= run.wall - 1e-9


@given(traces(), st.floats(0.1, 1000.0))
def test_seconds_or_minutes_are_the_same(run: Trace, factor: float) -> None:
    def scaled(each: StageTrace) -> StageTrace:
        lanes = tuple(seconds * factor for seconds in each.lane_busy)
        return replace(each, busy=each.busy * factor, lane_busy=lanes)

    other = replace(run, wall=run.wall * factor, stages=tuple(map(scaled, run.stages)))
    for stage in run.stages:
        before = predicted_wall(run, {stage.name: 2.0})
        assert predicted_wall(other, {stage.name: 2.0}) == pytest.approx(before * factor)
