"""Times of a run: what is charged to whom, and what is made of it."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from runtime.executors import LocalExecutor
from runtime.plan import Flow
from runtime.stage import Stage
from runtime.trace import CALLER, Pressure, StageTrace, Trace
from tests.contracts.executor import Job, Ledger, Part, Reader, jobs


class Sleeper(Stage[Part, Part]):
    """Sleeps before its first output, between the two, and after the second."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def push(self, item: Part) -> Iterator[Part]:
        for _ in range(2):
            time.sleep(self.seconds)
            yield item
        time.sleep(self.seconds)


def test_a_generator_is_charged_for_its_own_time_only() -> None:
    plan = Flow[Job]().then("read", Reader()).then("a", Sleeper(0.002)).then("b", Sleeper(0.004)).plan("p")
    trace = LocalExecutor("threads").run(plan, jobs(10), Ledger())
    a, b = trace.stage("a"), trace.stage("b")
    assert 10 * 3 * 0.002 <= a.busy < b.busy, "with the time of b inside its loop it would be the greater one"
    assert b.busy >= 20 * 3 * 0.004
    assert a.blocked >= b.busy, "while b works, a cannot go on"
    assert b.starved >= a.busy, "while a works, b has nothing to do"
    assert (b.items_in, b.items_out) == (20, 40)


def line(name: str, strand: str, busy: float, lanes: int = 2, wall: float = 10.0) -> StageTrace:
    return StageTrace(name, strand, lanes, busy=busy, starved=wall * lanes - busy)


def trace(*lines: StageTrace, feeding: float = 1.0, sinking: float = 1.0) -> Trace:
    ends = line("scan", CALLER, feeding, lanes=1), line("commit", CALLER, sinking, lanes=1)
    return Trace("threads", 10.0, (ends[0], *lines, ends[1]))


def test_the_busiest_stage_of_the_busiest_lanes_limits() -> None:
    run = trace(line("hash", "work", 6.0), line("compress", "work", 12.0), line("upload", "net", 13.0))
    assert run.limiting().name == "compress"
    assert run.bottleneck() == (
        "compress limits this run: busy 60% of the time of its 2 lanes; twice as fast it would save about 25%"
    )


def test_the_caller_can_be_what_limits() -> None:
    run = trace(line("hash", "work", 6.0), feeding=8.0, sinking=1.5)
    assert run.bottleneck() == "scan limits this run: busy 80% of the time; twice as fast it would save about 40%"


def test_sometimes_nothing_is_saturated() -> None:
    assert "nothing is saturated" in trace(line("hash", "work", 4.0)).bottleneck()


def test_a_run_without_work_has_no_bottleneck() -> None:
    assert "no work" in trace(line("hash", "work", 0.0), feeding=0.0, sinking=0.0).bottleneck()


def test_a_table_has_a_line_a_stage() -> None:
    lines = trace(line("hash", "work", 6.0)).table().splitlines()
    assert [text.split()[0] for text in lines] == ["stage", "scan", "hash", "commit", "threads,"]


def test_an_unknown_stage_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        trace().stage("nothing")


def test_pressure_counts_the_time_it_is_on() -> None:
    pressure = Pressure()
    pressure.set(True, now=10.0)
    pressure.set(True, now=11.0)
    pressure.set(False, now=12.0)
    pressure.set(False, now=13.0)
    assert pressure.seconds() == 2.0
    pressure.set(True, now=20.0)
    pressure.set(False, now=21.5)
    assert pressure.seconds() == 3.5
