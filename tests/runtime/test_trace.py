"""Times of a run: what is charged to whom, and what is made of it."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from model.errors import RunFailed
from runtime.bottleneck import CALLER
from runtime.drive import Control
from runtime.executors import LocalExecutor
from runtime.plan import Flow
from runtime.stage import Stage
from runtime.trace import Pressure, StageTrace, Trace
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


class Sudden(Stage[Part, Part]):
    """Raises in the middle of its work."""

    def push(self, item: Part) -> list[Part]:
        time.sleep(0.02)
        raise RuntimeError("sudden")


def test_a_call_under_way_is_work_already() -> None:
    ticks: list[Trace] = []
    plan = Flow[Job]().then("read", Reader()).then("long", Sleeper(0.3)).plan("p")
    LocalExecutor("threads").run(plan, jobs(1), Ledger(), Control(on_tick=ticks.append))
    begun = [tick for tick in ticks if tick.wall > 0.15]
    assert len(begun) > 2 and all(tick.stage("long").busy > tick.wall / 2 for tick in begun)


def test_the_last_tick_is_of_the_end_also_of_a_run_that_fails() -> None:
    ticks: list[Trace] = []
    control = Control(on_tick=ticks.append)
    trace = LocalExecutor("threads").run(Flow[Job]().then("read", Reader()).plan("p"), jobs(3), Ledger(), control)
    assert (ticks[-1].wall, ticks[-1].stages) == (trace.wall, trace.stages)
    assert ticks[-1].acked == 3
    with pytest.raises(RunFailed):
        plan = Flow[Job]().then("read", Reader()).then("sudden", Sudden()).plan("p")
        LocalExecutor("threads").run(plan, jobs(3), Ledger(), control)
    assert ticks[-1].began > trace.began
    assert 0 < ticks[-1].stage("sudden").busy < 0.1, "what raised does not go on"


def test_the_work_of_every_lane_is_known() -> None:
    plan = Flow[Job]().then("read", Reader(), lanes=2).then("a", Sleeper(0.002), lanes=2).plan("p")
    line = LocalExecutor("threads").run(plan, jobs(20), Ledger()).stage("a")
    assert len(line.lane_busy) == 2 and min(line.lane_busy) > 0
    assert sum(line.lane_busy) == pytest.approx(line.busy)


def line(name: str, strand: str, busy: float, lanes: int = 2, wall: float = 10.0) -> StageTrace:
    return StageTrace(name, strand, lanes, busy=busy, starved=wall * lanes - busy)


def trace(*lines: StageTrace, feeding: float = 1.0, sinking: float = 1.0) -> Trace:
    ends = line("scan", CALLER, feeding, lanes=1), line("commit", CALLER, sinking, lanes=1)
    return Trace("threads", 10.0, (ends[0], *lines, ends[1]))


def test_the_table_tells_what_limits() -> None:
    run = trace(line("hash", "work", 6.0), line("compress", "work", 12.0), line("upload", "net", 13.0))
    assert run.limiting().name == "compress"
    assert run.table().endswith(run.bottleneck().text)


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
