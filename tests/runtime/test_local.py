"""The contract, for the executors that work in this process; and what only they promise."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator

import pytest

from model.errors import Interrupted, RunFailed
from runtime.drive import Control
from runtime.executors import Executor, LocalExecutor, open_executor, run
from runtime.plan import Flow
from runtime.stage import Context, Stage
from tests.contracts.executor import ExecutorContract, Job, Ledger, Part, Reader, Slow, chain, jobs


class TestInline(ExecutorContract):
    @pytest.fixture
    def executor(self) -> Executor:
        return LocalExecutor("inline")

    def test_two_runs_do_the_same_in_the_same_order(self, executor: Executor) -> None:
        first, second = Ledger(), Ledger()
        executor.run(chain().cut("gather"), jobs(40), first)
        executor.run(chain().cut("gather"), jobs(40), second)
        assert [part.seqs for part in first.parts] == [part.seqs for part in second.parts]

    def test_no_thread_is_started(self, executor: Executor) -> None:
        class Threads(Ledger):
            def push(self, item: Part) -> Iterator[int]:
                assert threading.active_count() == before
                return super().push(item)

        before = threading.active_count()
        executor.run(chain(), jobs(10), Threads())


class Rendezvous(Stage[Part, Part]):
    """Goes on only when all lanes are here at once."""

    barrier = threading.Barrier(3, timeout=10)

    def push(self, item: Part) -> Iterator[Part]:
        self.barrier.wait()
        yield item


class Patient(Stage[Part, Part]):
    """Waits until it is told to stop."""

    def open(self, context: Context) -> None:
        self._stop = context.stop

    def push(self, item: Part) -> Iterator[Part]:
        if item.seqs == [1]:
            raise RuntimeError("enough")
        while not self._stop.is_set():
            time.sleep(0.001)
        yield item


class TestThreads(ExecutorContract):
    @pytest.fixture
    def executor(self) -> Iterator[Executor]:
        before = set(threading.enumerate())
        yield LocalExecutor("threads")
        assert set(threading.enumerate()) <= before, "every lane has ended"

    def test_lanes_work_at_once(self, executor: Executor) -> None:
        plan = Flow[Job]().then("read", Reader(), lanes=3).then("meet", Rendezvous(), lanes=3).plan("p")
        sink = Ledger()
        executor.run(plan, jobs(12), sink)
        assert len(sink.seen) == 12

    def test_a_failure_reaches_lanes_that_wait(self, executor: Executor) -> None:
        plan = Flow[Job]().then("read", Reader(), lanes=2).then("wait", Patient(), lanes=2).plan("p")
        with pytest.raises(RunFailed, match="enough"):
            executor.run(plan, jobs(2), Ledger())

    def test_a_slow_sink_holds_the_lanes_up(self, executor: Executor) -> None:
        class SlowSink(Ledger):
            def push(self, item: Part) -> Iterator[int]:
                time.sleep(0.01)
                return super().push(item)

        trace = executor.run(Flow[Job]().then("read", Reader()).plan("p", sink="keep"), jobs(30), SlowSink())
        read = trace.stage("read")
        assert read.blocked > 0.6 * trace.wall
        assert trace.limiting().name == "keep"

    def test_a_slow_feed_starves_the_lanes(self, executor: Executor) -> None:
        def feed() -> Iterator[Job]:
            for job in jobs(30):
                time.sleep(0.01)
                yield job

        trace = executor.run(Flow[Job]("list").then("read", Reader()).plan("p"), feed(), Ledger())
        assert trace.stage("read").starved > 0.8 * trace.wall
        assert trace.limiting().name == "list"

    def test_a_signal_handler_that_sets_the_flag_stops_the_run(self, executor: Executor) -> None:
        stop = threading.Event()
        before = signal.signal(signal.SIGTERM, lambda *_: stop.set())
        try:
            timer = threading.Timer(0.1, signal.raise_signal, [signal.SIGTERM])
            timer.start()
            plan = Flow[Job]().then("read", Reader()).then("slow", Slow(0.01)).plan("p")
            begin, sink = time.monotonic(), Ledger()
            with pytest.raises(Interrupted):
                executor.run(plan, jobs(10_000), sink, Control(stop=stop))
            assert time.monotonic() - begin < 2
            assert sink.seen
            timer.join()
        finally:
            signal.signal(signal.SIGTERM, before)

    def test_the_caller_can_be_interrupted_by_an_exception(self, executor: Executor) -> None:
        class Impatient(Ledger):
            def push(self, item: Part) -> Iterator[int]:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            executor.run(chain(count=1), jobs(1000), Impatient())


def test_run_does_it_all_in_one_call() -> None:
    sink = Ledger()
    assert run(chain(), jobs(12), sink, executor="auto").executor == "threads"
    assert len(sink.seen) == 12


def test_local_executors_need_no_private_directory() -> None:
    with open_executor("inline") as executor:
        assert executor.keep is None
