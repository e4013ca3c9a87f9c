"""The scheduler against a simulated world that does everything in a random order and kills lanes at random."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.orders import Flush, Lane, Lost, Open, Push
from runtime.plan import Queue
from runtime.schedule import BARREN_DEATHS, FRUITLESS_DEATHS, Scheduler

Atom = tuple[int, int]  # ticket, half: every fed item has two halves, and both must arrive
Load = frozenset[Atom]


@dataclass
class Worker:
    """A simulated lane: "pass" gives what it gets, "split" gives it in single atoms, "hold" gathers six atoms."""

    kind: str
    ready: bool = False
    held: set[Atom] = field(default_factory=set)
    jobs: deque[Load | None] = field(default_factory=deque)

    def work(self, load: Load | None) -> list[Load]:
        if load is None:
            held, self.held = frozenset(self.held), set()
            return [held] if held else []
        if self.kind == "split":
            return [frozenset([atom]) for atom in load]
        if self.kind == "pass":
            return [load]
        self.held |= load
        return self.work(None) if len(self.held) >= 6 else []


class World:
    """Obeys the scheduler and lets random things happen."""

    def __init__(
        self,
        lanes: list[int],
        kinds: list[str],
        items: int,
        rng: random.Random,
        queues: Sequence[Queue] = (),
        **limits: int,
    ) -> None:
        self.lanes, self.kinds, self.items, self.rng = lanes, kinds, items, rng
        self.scheduler = Scheduler(lanes, queues=queues, **limits)
        weigh = random.Random(items)  # not the one that says what happens
        self.weights = [weigh.randint(0, 12) for _ in range(items)]
        self.waits_for: dict[int, int] = {}  # output → the strand it is for
        self.workers: dict[Lane, Worker] = {}
        self.outputs: dict[int, Load] = {}
        self.fed = 0
        self.numbers = 0
        self.arrived: dict[Atom, int] = {}
        self.acked: set[int] = set()
        self.lost: list[Lane] = []
        self.log: list[object] = []
        self.deaf = 0  # acknowledgements still to be withheld
        self.obey()

    def obey(self) -> None:
        orders = self.scheduler.take()
        self.log += orders
        for order in orders:
            if isinstance(order, Open):
                assert order.lane not in self.workers
                self.workers[order.lane] = Worker(self.kinds[order.lane.strand])
            elif isinstance(order, Lost):
                self.lost.append(order.lane)
            else:
                worker = self.workers[order.lane]  # never a dead one
                assert worker.ready
                worker.jobs.append(None if isinstance(order, Flush) else self.load_of(order))
                assert sum(job is not None for job in worker.jobs) <= self.scheduler.window

    def load_of(self, push: Push) -> Load:
        if push.lane.strand > 0:
            del self.waits_for[push.item]
            return self.outputs.pop(push.item)
        return frozenset([(push.item, 0), (push.item, 1)])

    def step(self) -> None:
        """One random thing that can happen now."""
        can = [("open", lane) for lane, worker in self.workers.items() if not worker.ready]
        can += [("work", lane) for lane, worker in self.workers.items() if worker.jobs]
        if self.scheduler.wants_item():
            can.append(("feed", Lane(0, 0, 0)))
        assert can, "stuck"
        what, lane = self.rng.choice(can)
        if what == "open":
            self.workers[lane].ready = True
            self.scheduler.opened(lane)
        elif what == "feed":
            self.feed()
        else:
            self.work(lane)
        self.obey()

    def feed(self) -> None:
        if self.fed == self.items:
            self.scheduler.exhausted()
        else:
            self.fed += 1
            self.scheduler.fed(self.fed - 1, 2 * self.weights[self.fed - 1])
            assert self.scheduler.unacked <= self.scheduler.unacked_max

    def work(self, lane: Lane) -> None:
        worker = self.workers[lane]
        job = worker.jobs.popleft()
        for load in worker.work(job):
            if lane.strand + 1 < len(self.lanes):
                self.numbers += 1
                self.outputs[self.numbers] = load
                self.waits_for[self.numbers] = lane.strand + 1
                self.scheduler.output(lane, self.numbers, self.weight(load))
            else:
                self.deliver(load)
            self.obey()
        (self.scheduler.flushed if job is None else self.scheduler.pushed)(lane)

    def weight(self, load: Load) -> int:
        return sum(self.weights[ticket] for ticket, _ in load)

    def lies_before(self, strand: int) -> int:
        """Bytes that wait for a strand, are worked on by it, or are about to come out of the one before it."""
        waiting = sum(self.weight(self.outputs[number]) for number, where in self.waits_for.items() if where == strand)
        jobs = [
            job for lane, worker in self.workers.items() for job in worker.jobs if lane.strand in (strand - 1, strand)
        ]
        return waiting + sum(self.weight(job) for job in jobs if job is not None)

    def deliver(self, load: Load) -> None:
        for atom in load:
            self.arrived[atom] = self.arrived.get(atom, 0) + 1
        done = {ticket for ticket, _ in load if (ticket, 0) in self.arrived and (ticket, 1) in self.arrived}
        if done and self.deaf:
            self.deaf -= 1
            return
        self.acked |= done
        self.scheduler.acked(sorted(done))

    def kill(self, lane: Lane) -> None:
        del self.workers[lane]
        before = len(self.lost)
        self.scheduler.died(lane)
        self.obey()
        assert self.lost[before] == lane

    def run(self, deaths: int = 0, stop_after: int = -1) -> None:
        for number in range(20_000):
            if self.scheduler.finished:
                return
            if number == stop_after:
                self.scheduler.stop()
                self.obey()
            elif deaths and self.rng.random() < 0.05:
                deaths -= 1
                self.kill(self.rng.choice(list(self.workers)))
            else:
                self.step()
        raise AssertionError("never finished")


graphs = st.lists(st.tuples(st.integers(1, 4), st.sampled_from(["pass", "split", "hold"])), min_size=1, max_size=4)


def world(graph: list[tuple[int, str]], items: int, seed: int, **limits: int) -> World:
    return World([n for n, _ in graph], [kind for _, kind in graph], items, random.Random(seed), (), **limits)


def everything(items: int) -> set[Atom]:
    return {(ticket, half) for ticket in range(items) for half in (0, 1)}


@settings(max_examples=300, deadline=None)
@given(graphs, st.integers(0, 60), st.integers(), st.integers(1, 4))
def test_every_item_arrives_exactly_once(graph: list[tuple[int, str]], items: int, seed: int, window: int) -> None:
    run = world(graph, items, seed, window=window)
    run.run()
    assert not run.scheduler.failure
    assert run.arrived == dict.fromkeys(everything(items), 1)
    assert run.acked == set(range(items))
    assert not run.lost


@settings(max_examples=300, deadline=None)
@given(graphs, st.integers(0, 40), st.integers(), st.integers(1, 3), st.integers(1, 8))
def test_deaths_lose_nothing(graph: list[tuple[int, str]], items: int, seed: int, window: int, deaths: int) -> None:
    run = world(graph, items, seed, window=window, attempts=10)
    run.run(deaths=deaths)
    if "while starting" not in run.scheduler.failure:
        assert not run.scheduler.failure
        assert set(run.arrived) == everything(items)
        assert run.acked == set(range(items))


@settings(max_examples=200, deadline=None)
@given(graphs, st.integers(0, 60), st.integers(), st.integers(1, 12), st.integers(0, 4))
def test_few_unacknowledged_items_are_enough(
    graph: list[tuple[int, str]], items: int, seed: int, unacked_max: int, deaths: int
) -> None:
    run = world(graph, items, seed, unacked_max=unacked_max, attempts=10)
    run.run(deaths=deaths)
    if "while starting" not in run.scheduler.failure:
        assert not run.scheduler.failure
        assert run.acked == set(range(items))


@settings(max_examples=200, deadline=None)
@given(graphs, st.integers(0, 60), st.integers(), st.integers(0, 200), st.integers(0, 3))
def test_a_stop_flushes_what_was_fed(
    graph: list[tuple[int, str]], items: int, seed: int, stop_after: int, deaths: int
) -> None:
    run = world(graph, items, seed, attempts=10)
    run.run(deaths=deaths, stop_after=stop_after)
    assert run.scheduler.finished
    assert not any(worker.jobs for worker in run.workers.values())
    if deaths == 0:
        assert set(run.arrived) == everything(run.fed)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=2, max_size=4), st.integers(), st.integers(1, 4))
def test_queues_between_strands_are_bounded(lanes: list[int], seed: int, window: int) -> None:
    run = World(lanes, ["pass"] * len(lanes), 80, random.Random(seed), window=window)
    longest = 0
    while not run.scheduler.finished:
        run.step()
        longest = max(longest, len(run.outputs))
    assert longest <= sum(window * (a + b) for a, b in pairwise(lanes))


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 4), st.integers(1, 60), st.integers(1, 9)), min_size=2, max_size=4),
    st.integers(),
    st.integers(0, 3),
)
def test_bytes_and_items_between_strands_are_bounded_as_asked(
    strands: list[tuple[int, int, int]], seed: int, deaths: int
) -> None:
    queues = [Queue(items, nbytes) for _, nbytes, items in strands]
    lanes = [count for count, _, _ in strands]
    run = World(lanes, ["pass"] * len(lanes), 60, random.Random(seed), queues, attempts=10)
    heaviest = 2 * max(run.weights)
    while not run.scheduler.finished:
        if deaths and run.rng.random() < 0.02:
            deaths -= 1
            run.kill(run.rng.choice(list(run.workers)))
        run.step()
        for strand in range(1, len(lanes)):
            assert run.lies_before(strand) <= max(queues[strand].nbytes or 0, heaviest)
            assert sum(where == strand for where in run.waits_for.values()) <= (queues[strand].items or 0)
    assert not run.scheduler.failure and run.acked == set(range(60))


@settings(max_examples=200, deadline=None)
@given(graphs, st.integers(0, 60), st.integers(), st.integers(1, 30), st.integers(0, 4))
def test_narrow_queues_lose_nothing_and_never_get_stuck(
    graph: list[tuple[int, str]], items: int, seed: int, nbytes: int, deaths: int
) -> None:
    lanes, queues = [n for n, _ in graph], [Queue(1, nbytes)] * len(graph)
    run = World(lanes, [kind for _, kind in graph], items, random.Random(seed), queues, attempts=10)
    run.run(deaths=deaths)
    if "while starting" not in run.scheduler.failure:
        assert not run.scheduler.failure and run.acked == set(range(items))


@settings(max_examples=100, deadline=None)
@given(graphs, st.integers(1, 30), st.integers())
def test_unacknowledged_items_are_replayed_at_the_end(graph: list[tuple[int, str]], items: int, seed: int) -> None:
    run = world(graph, items, seed)
    run.deaf = 1
    run.run()
    assert not run.scheduler.failure
    assert run.acked == set(range(items))
    assert bool(run.lost) == (run.scheduler.replayed > 0)


def test_a_sink_that_acknowledges_nothing_ends_the_run() -> None:
    run = World([2], ["pass"], 5, random.Random(1))
    run.deaf = 1000
    run.run()
    assert "never acknowledged" in run.scheduler.failure
    assert run.scheduler.replayed == 10


def test_a_sink_that_acknowledges_nothing_is_noticed_early() -> None:
    run = World([2], ["pass"], 50, random.Random(1), unacked_max=8)
    run.deaf = 1000
    run.run()
    assert "8 items were never acknowledged" in run.scheduler.failure
    assert run.fed == 8


def test_an_item_that_kills_its_worker_ends_the_run() -> None:
    run = World([2], ["pass"], 10, random.Random(3))
    while not run.scheduler.finished:
        poisoned = [lane for lane, worker in run.workers.items() if worker.jobs and (4, 0) in (worker.jobs[0] or ())]
        if poisoned:
            run.kill(poisoned[0])
        else:
            run.step()
    assert run.scheduler.failure == "item 4 ended its worker 3 times"


def test_a_lane_that_never_opens_ends_the_run() -> None:
    scheduler = Scheduler([1])
    for generation in range(1, BARREN_DEATHS + 1):
        assert scheduler.take()[-1] == Open(Lane(0, 0, generation))
        scheduler.died(Lane(0, 0, generation))
    assert "while starting" in scheduler.failure


def test_deaths_without_progress_end_the_run() -> None:
    run = World([1, 1], ["pass", "hold"], 3, random.Random(5))
    run.deaf = 1000
    while not run.scheduler.finished:
        doomed = [lane for lane, worker in run.workers.items() if lane.strand == 1 and worker.jobs]
        if doomed:
            run.kill(doomed[0])
        else:
            run.step()
    assert "without any progress" in run.scheduler.failure
    assert run.scheduler.deaths == FRUITLESS_DEATHS


def test_a_death_reports_the_loss_before_the_replay() -> None:
    run = World([1], ["hold"], 2, random.Random(7))
    while run.fed < 2 or any(worker.jobs for worker in run.workers.values()):
        run.step()
    run.log.clear()
    run.kill(Lane(0, 0, 1))
    assert run.log == [Lost(Lane(0, 0, 1)), Open(Lane(0, 0, 2))]
    run.run()
    assert Push(Lane(0, 0, 2), 0) in run.log
    assert run.acked == {0, 1}


def test_a_death_further_down_also_loses_what_the_lanes_before_it_gave() -> None:
    run = World([1, 1], ["pass", "hold"], 2, random.Random(7))
    while run.fed < 2 or any(worker.jobs for worker in run.workers.values()):
        run.step()
    run.kill(Lane(1, 0, 1))
    assert run.lost == [Lane(1, 0, 1), Lane(0, 0, 1)]
    run.run()
    assert run.acked == {0, 1}


def test_what_a_dead_lane_still_says_is_ignored() -> None:
    scheduler = Scheduler([1])
    scheduler.opened(Lane(0, 0, 1))
    scheduler.fed(0)
    scheduler.died(Lane(0, 0, 1))
    scheduler.take()
    scheduler.pushed(Lane(0, 0, 1))
    scheduler.opened(Lane(0, 0, 1))
    scheduler.died(Lane(0, 0, 1))
    assert scheduler.take() == []
    assert scheduler.deaths == 1
