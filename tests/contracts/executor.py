"""What every executor has to do. Subclass `ExecutorContract` and give it an `executor` fixture.

Stages and services stand here, at module level, because executors import them in other processes.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pytest

from model.errors import Interrupted, PlanError, RunFailed, StoreFull
from runtime.drive import Control
from runtime.executors import Executor
from runtime.plan import Flow, Plan
from runtime.private import Secret
from runtime.stage import Context, Stage
from runtime.timeline import COUNTS, TIMES, Timeline
from runtime.trace import Trace

Bytes = npt.NDArray[np.uint8]


@dataclass
class Job:
    """A fed item: a ticket and a body of `size` bytes, all `seq`."""

    seq: int
    size: int = 16


@dataclass
class Part:
    """What flows on: the tickets it stands for and a body."""

    seqs: list[int]
    body: memoryview | Bytes
    lane: str = ""

    @property
    def nbytes(self) -> int:
        return self.body.nbytes

    def detach(self) -> Part:
        return Part(self.seqs, memoryview(bytes(self.body)), self.lane)


class Reader(Stage[Job, Part]):
    """Fills one buffer again and again: whoever keeps an output without detaching it sees it change."""

    def open(self, context: Context) -> None:
        self._buffer = bytearray(1 << 20)
        self._lane = context.lane_name

    def push(self, item: Job) -> Iterator[Part]:
        self._buffer[: item.size] = bytes([item.seq % 251]) * item.size
        yield Part([item.seq], memoryview(self._buffer)[: item.size], self._lane)


class Doubler(Stage[Part, Part]):
    """Adds one to every byte, twice the work for twice the fun."""

    def push(self, item: Part) -> Iterator[Part]:
        yield Part(item.seqs, np.frombuffer(item.body, dtype=np.uint8) + np.uint8(1), item.lane)


class Gatherer(Stage[Part, Part]):
    """Gives every `count` parts as one, the rest when flushed."""

    def __init__(self, count: int) -> None:
        self.count = count

    def open(self, context: Context) -> None:
        self._held: list[tuple[list[int], bytes]] = []

    def push(self, item: Part) -> Iterable[Part]:
        self._held.append((item.seqs, bytes(item.body)))
        return self.flush() if len(self._held) == self.count else ()

    def flush(self) -> list[Part]:
        held, self._held = self._held, []
        if not held:
            return []
        return [Part([seq for seqs, _ in held for seq in seqs], memoryview(b"".join(body for _, body in held)))]


class Slow(Stage[Part, Part]):
    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def push(self, item: Part) -> Iterator[Part]:
        time.sleep(self.seconds)
        yield item


class Breaking(Stage[Part, Part]):
    """Raises on one ticket; `when` is also "open" or "close"."""

    def __init__(self, when: int | str, error: Exception) -> None:
        self.when = when
        self.error = error

    def open(self, context: Context) -> None:
        if self.when == "open":
            raise self.error

    def push(self, item: Part) -> Iterator[Part]:
        yield item
        if self.when in item.seqs:
            raise self.error

    def close(self) -> None:
        if self.when == "close":
            raise self.error


class Journal:
    """A service that remembers what it is told."""

    def __init__(self, *first: str) -> None:
        self._lock = threading.Lock()
        self._lines = list(first)

    def note(self, line: str) -> int:
        with self._lock:
            self._lines.append(line)
            return len(self._lines)

    def lines(self) -> list[str]:
        with self._lock:
            return list(self._lines)

    def twice(self, values: Bytes) -> Bytes:
        return np.concatenate([values, values])

    def complain(self) -> None:
        raise StoreFull("no room", subject="journal")


class Witness(Stage[Part, Part]):
    """Tells the journal about its life and asks it something for each part."""

    def open(self, context: Context) -> None:
        self._journal: Journal = context.services["journal"]
        self._lane = context.lane_name
        self._journal.note(f"open {self._lane}")

    def push(self, item: Part) -> Iterator[Part]:
        doubled = self._journal.twice(np.frombuffer(item.body, dtype=np.uint8))
        self._journal.note(f"push {item.seqs[0]}")
        yield Part(item.seqs, doubled, self._lane)

    def close(self) -> None:
        self._journal.note(f"close {self._lane}")


class Asking(Stage[Part, Part]):
    """Asks a service for what it refuses."""

    def open(self, context: Context) -> None:
        self._journal: Journal = context.services["journal"]

    def push(self, item: Part) -> Iterator[Part]:
        self._journal.complain()
        yield item


class Mortal(Stage[Part, Part]):
    """Tells the journal its process id; dies like from SIGKILL on opening, or on a ticket, if told to."""

    def __init__(self, name: str, fatal: int | str = "") -> None:
        self.title = name
        self.fatal = fatal

    def open(self, context: Context) -> None:
        if self.fatal == "open":
            os.kill(os.getpid(), signal.SIGKILL)
        context.services["journal"].note(f"{self.title} {os.getpid()}")

    def push(self, item: Part) -> Iterator[Part]:
        if self.fatal in item.seqs:
            os.kill(os.getpid(), signal.SIGKILL)
        yield item


class Revealing(Stage[Part, Part]):
    """Gives a secret away, and whether its process may be trusted with it."""

    def __init__(self, secret: Secret) -> None:
        self.secret = secret

    def push(self, item: Part) -> Iterator[Part]:
        mask = os.umask(0o077)
        yield Part(item.seqs, memoryview(b"%o %s" % (mask, self.secret.value)))


@dataclass
class Ledger:
    """A sink that checks bodies, acknowledges and remembers. `deaf`: tickets it ignores the first time."""

    seen: dict[int, int] = field(default_factory=dict)
    parts: list[Part] = field(default_factory=list)
    losses: list[str] = field(default_factory=list)
    deaf: set[int] = field(default_factory=set)
    threads: set[int] = field(default_factory=set)

    def push(self, item: Part) -> Iterator[int]:
        self.threads.add(threading.get_ident())
        self.parts.append(item)
        for seq in item.seqs:
            self.seen[seq] = self.seen.get(seq, 0) + 1
            if seq in self.deaf:
                self.deaf.remove(seq)
            else:
                yield seq

    def lost(self, lane_name: str) -> None:
        self.losses.append(lane_name)


def jobs(count: int, size: int = 16) -> Iterator[Job]:
    return (Job(seq, size) for seq in range(count))


def chain(lanes: int = 2, count: int = 4) -> Plan:
    return (
        Flow[Job]("list")
        .then("read", Reader(), lanes=lanes)
        .then("double", Doubler(), lanes=lanes)
        .then("gather", Gatherer(count), lanes=lanes)
        .plan("chain", sink="keep")
    )


class ExecutorContract:
    """Tests of the promises in `runtime.executors.Executor` and `runtime.stage`."""

    @pytest.fixture
    def executor(self) -> Executor:
        raise NotImplementedError

    @pytest.mark.parametrize("cuts", [(), ("double",), ("double", "gather")])
    def test_everything_arrives_once_and_unharmed(self, executor: Executor, cuts: tuple[str, ...]) -> None:
        sink = Ledger()
        trace = executor.run(chain().cut(*cuts), jobs(50, size=3000), sink)
        assert sink.seen == dict.fromkeys(range(50), 1)
        for part in sink.parts:
            assert bytes(part.body) == b"".join(bytes([seq % 251 + 1]) * 3000 for seq in part.seqs)
        assert sink.losses == []
        assert (trace.fed, trace.acked, trace.deaths, trace.replayed) == (50, 50, 0, 0)
        assert sink.threads == {threading.get_ident()}

    def test_large_bodies_cross_between_strands(self, executor: Executor) -> None:
        sink = Ledger()
        executor.run(chain(lanes=1).cut("double"), jobs(6, size=1 << 20), sink)
        assert b"".join(bytes(part.body)[:: 1 << 20] for part in sink.parts) == bytes([1, 2, 3, 4, 5, 6])

    def test_one_lane_keeps_the_order(self, executor: Executor) -> None:
        sink = Ledger()
        executor.run(chain(lanes=1).cut("gather"), jobs(30), sink)
        assert [seq for part in sink.parts for seq in part.seqs] == list(range(30))

    def test_an_empty_feed_is_a_run(self, executor: Executor) -> None:
        sink = Ledger()
        assert executor.run(chain(), jobs(0), sink).fed == 0
        assert sink.parts == []

    def test_a_plan_runs_again(self, executor: Executor) -> None:
        plan = chain()
        before = [dict(vars(node.stage)) for node in plan.nodes]
        for _ in range(2):
            sink = Ledger()
            executor.run(plan, jobs(5), sink)
            assert len(sink.seen) == 5
        assert [vars(node.stage) for node in plan.nodes] == before

    def test_a_failure_keeps_its_type_and_names_its_place(self, executor: Executor) -> None:
        full = StoreFull("the store is full", subject="/srv", why="no space left", hint="make room")
        plan = Flow[Job]().then("read", Reader(), lanes=2).then("break", Breaking(7, full), lanes=2).plan("p")
        with pytest.raises(RunFailed) as caught:
            executor.run(plan, jobs(100_000), Ledger())
        cause = caught.value.__cause__
        assert type(cause) is StoreFull
        assert (cause.subject, cause.why, cause.hint) == ("/srv", "no space left", "make room")
        assert "stage break, lane p-" in caught.value.subject
        assert "in stage break, lane p-" in "".join(caught.value.__notes__)

    @pytest.mark.parametrize("when", ["open", "close"])
    def test_failing_to_open_or_close_fails_the_run(self, executor: Executor, when: str) -> None:
        plan = Flow[Job]().then("read", Reader()).then("break", Breaking(when, ValueError("no"))).plan("p")
        with pytest.raises(RunFailed, match="no") as caught:
            executor.run(plan, jobs(3), Ledger())
        assert type(caught.value.__cause__) is ValueError

    def test_errors_of_feed_and_sink_come_out_as_they_are(self, executor: Executor) -> None:
        def broken_feed() -> Iterator[Job]:
            yield from jobs(5)
            raise OSError(5, "feed")

        class BrokenSink(Ledger):
            def push(self, item: Part) -> Iterator[int]:
                raise KeyError("sink")

        with pytest.raises(OSError, match="feed"):
            executor.run(chain(), broken_feed(), Ledger())
        with pytest.raises(KeyError, match="sink"):
            executor.run(chain(), jobs(50), BrokenSink())

    def test_a_feed_out_of_order_is_refused(self, executor: Executor) -> None:
        with pytest.raises(PlanError, match="out of order"):
            executor.run(chain(), iter([Job(0), Job(2)]), Ledger())

    def test_a_stop_keeps_what_was_fed(self, executor: Executor) -> None:
        stop, fed, sink = threading.Event(), [], Ledger()

        def feed() -> Iterator[Job]:
            for job in jobs(100_000):
                fed.append(job.seq)
                if job.seq == 20:
                    stop.set()
                yield job

        with pytest.raises(Interrupted):
            executor.run(chain(count=1000), feed(), sink, Control(stop=stop))
        assert fed[-1] < 40
        assert sorted(sink.seen) == fed

    def test_the_feed_waits_for_room(self, executor: Executor) -> None:
        pulled = 0
        ahead: list[int] = []

        def feed() -> Iterator[Job]:
            nonlocal pulled
            for job in jobs(24):
                pulled += 1
                ahead.append(pulled - len(sink.parts))
                yield job

        sink = Ledger()
        plan = Flow[Job]().then("read", Reader(), lanes=2).then("slow", Slow(0.005), lanes=2).plan("p")
        executor.run(plan, feed(), sink, Control(window=2))
        assert max(ahead) <= 2 * 2 + 1

    def test_services_are_shared_and_answer_everybody(self, executor: Executor) -> None:
        journal = Journal("first")
        executor.host({"journal": journal})
        assert journal.note("before") == 2
        sink = Ledger()
        plan = Flow[Job]().then("read", Reader(), lanes=2).then("tell", Witness(), lanes=2).plan("told")
        executor.run(plan, jobs(10, size=4), sink)
        lines = journal.lines()
        assert lines[:2] == ["first", "before"]
        assert sorted(line for line in lines if line.startswith("push")) == sorted(f"push {n}" for n in range(10))
        opened = {line.removeprefix("open ") for line in lines if line.startswith("open")}
        closed = {line.removeprefix("close ") for line in lines if line.startswith("close")}
        assert {part.lane for part in sink.parts} <= closed <= opened <= {"told-0#1", "told-1#1"}
        assert all(bytes(part.body) == bytes([part.seqs[0]]) * 8 for part in sink.parts)

    def test_errors_of_services_end_the_run_as_they_are(self, executor: Executor) -> None:
        executor.host({"journal": Journal()})
        with pytest.raises(RunFailed) as caught:
            executor.run(Flow[Job]().then("read", Reader()).then("ask", Asking()).plan("p"), jobs(3), Ledger())
        assert isinstance(caught.value.__cause__, StoreFull)
        assert caught.value.__cause__.subject == "journal"

    def test_unacknowledged_items_are_fed_again(self, executor: Executor) -> None:
        sink = Ledger(deaf={3, 4})
        trace = executor.run(chain(), jobs(9), sink)
        assert sink.seen == {**dict.fromkeys(range(9), 1), 3: 2, 4: 2}
        assert sink.losses
        assert set(sink.losses) <= {"chain-0#1", "chain-1#1"}  # whatever was open by then
        assert trace.replayed == 2

    def test_few_unacknowledged_items_are_enough(self, executor: Executor) -> None:
        sink = Ledger()
        executor.run(chain(count=1000), jobs(40), sink, Control(unacked_max=8))
        assert sorted(sink.seen) == list(range(40))
        assert max(len(part.seqs) for part in sink.parts) <= 8

    def test_times_add_up(self, executor: Executor) -> None:
        ticks: list[Trace] = []
        plan = (
            Flow[Job]("list")
            .then("read", Reader(), lanes=2)
            .then("slow", Slow(0.02), lanes=2)
            .then("gather", Gatherer(2), lanes=1)
            .plan("p", sink="keep")
        )
        control = Control(on_tick=ticks.append)
        trace = executor.run(plan, jobs(30, size=100), Ledger(), control)
        assert [line.name for line in trace.stages] == ["list", "read", "slow", "gather", "keep"]
        for line in trace.stages:
            assert line.busy + line.starved + line.blocked == pytest.approx(trace.wall * line.lanes)
            assert min(line.busy, line.starved, line.blocked) >= 0
        slow = trace.stage("slow")
        assert (slow.items_in, slow.items_out, slow.bytes_in, slow.bytes_out) == (30, 30, 3000, 3000)
        assert 0.6 <= slow.busy < 2 * trace.wall
        assert trace.stage("gather").items_out == 15
        assert trace.limiting().name == "slow"
        assert trace.bottleneck().busiest == "slow"
        timeline = Timeline(seconds=0.1)
        for tick in ticks:
            timeline.tick(tick)
        timeline.tick(trace, last=True)
        self._adds_up(timeline, trace)
        assert len(ticks) >= 2 and ticks[-1].acked == 30
        assert all(tick.fed <= 30 for tick in ticks)

    @staticmethod
    def _adds_up(timeline: Timeline, trace: Trace) -> None:
        """Each interval adds up to its seconds × lanes, and all intervals to the trace. Why a lane waited in another
        process may become known too late to be set right.
        """
        lanes = np.array([line.lanes for line in trace.stages])
        total = np.zeros((len(lanes), len(COUNTS) + len(TIMES)))
        for interval in timeline.intervals():
            assert interval.values.min() >= 0
            assert interval.values[:, len(COUNTS) :].sum(axis=1) == pytest.approx(interval.seconds * lanes)
            total += interval.values
        wanted = [[getattr(line, name) for name in (*COUNTS, *TIMES)] for line in trace.stages]
        assert (total[:, : len(COUNTS)] == np.array(wanted)[:, : len(COUNTS)]).all()
        busy = len(COUNTS) + TIMES.index("busy")
        assert total[:, busy] == pytest.approx(np.array(wanted)[:, busy], abs=0.2)
        assert total[:, len(COUNTS) :].sum(axis=1) == pytest.approx(trace.wall * lanes)
