"""Who works on what: decisions without clock, thread or process. Events in, orders out.

A run is a chain of strands, each with some lanes. Items fed to strand 0 carry tickets 0, 1, 2, ...; what a strand
puts out waits in the queue of the next one; what the last puts out goes to the sink, which acknowledges tickets.

- A lane works through its jobs in order and has at most `window` pushes under way.
- A strand is given work only while there is room behind it, in items and in bytes; so what lies between strands is
  bounded and, as the last strand always has room, nothing can get stuck. What a push will put out is taken to be as
  large as what goes in. Where nothing lies, one item may come, however large.
- A *wave* flushes strand after strand: at the end, on stop, and when too many tickets wait for acknowledgement.
- When a lane dies its tickets that are not acknowledged are fed again, before new ones. If it stood further down
  the chain nobody knows whose data it held: then all tickets under way are fed again. Tickets still open after the
  last wave are fed again too.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from runtime.orders import Flush, Lane, Lost, Open, Order, Push
from runtime.plan import Queue

WINDOW = 2
UNACKED_MAX = 4096
ATTEMPTS = 3
BARREN_DEATHS = 5  # of one lane in a row that never got as far as being open
FRUITLESS_DEATHS = 16  # of any lanes in a row without one acknowledgement between them


class _Load(NamedTuple):
    """A ticket (for strand 0) or the number of an output, and its bytes."""

    number: int
    nbytes: int


_FLUSH = _Load(-1, 0)  # a job that is not an item


@dataclass(slots=True)
class _Slot:
    lane: Lane
    open: bool = False
    dirty: bool = False  # pushed since the last flush was ordered
    barren: int = 0
    pushes: int = 0
    jobs: deque[_Load] = field(default_factory=deque)


class Scheduler:
    """The state of a run. Call one event method, then obey what `take` returns, in that order.

    `lanes` is the number of lanes of each strand, `queues` what may lie before each (before the first lies nothing:
    the feed waits); see the module for the limits.
    """

    def __init__(
        self,
        lanes: Sequence[int],
        window: int = WINDOW,
        unacked_max: int = UNACKED_MAX,
        attempts: int = ATTEMPTS,
        queues: Sequence[Queue] = (),
    ) -> None:
        assert min(*lanes, window, unacked_max, attempts) >= 1
        assert len(queues) in (0, len(lanes))
        self.window = window
        self.unacked_max = unacked_max
        self.attempts = attempts
        self.finished = False
        self.failure = ""  # why the run cannot go on
        self.deaths = 0
        self.replayed = 0
        self._slots = [[_Slot(Lane(strand, number, 1)) for number in range(n)] for strand, n in enumerate(lanes)]
        self._queues: list[deque[_Load]] = [deque() for _ in lanes]
        self._bounds = [*queues[1:], Queue()] if queues else [Queue()] * len(lanes)  # of what lies behind each strand
        self._room = [
            bound.items or window * (a + b) for bound, a, b in zip(self._bounds, lanes, [*lanes[1:], 0], strict=True)
        ]
        self._waiting = [0] * len(lanes)  # bytes before each strand, and given to its lanes
        self._at_work = [0] * len(lanes)
        self._last = len(lanes) - 1
        self._orders: list[Order] = [Open(slot.lane) for row in self._slots for slot in row]
        self._unacked: dict[int, _Slot | None] = {}
        self._nbytes: dict[int, int] = {}  # of tickets that are not acknowledged
        self._tries: dict[int, int] = {}
        self._rounds = 0
        self._fruitless = 0
        self._exhausted = False
        self._stopping = False
        self._wave: int | None = None

    # ---- questions

    @property
    def unacked(self) -> int:
        """Tickets fed and not acknowledged."""
        return len(self._unacked)

    def wants_item(self) -> bool:
        """True if the next item of the feed could be handed to a lane at once."""
        if self._exhausted or self._stopping or self.finished or self._wave is not None or self._queues[0]:
            return False
        return len(self._unacked) < self.unacked_max and self._has_room(0) and self._free(0) is not None

    def held(self, strand: int) -> bool:
        """True if the strand is kept from working by the one after it."""
        queue = self._queues[strand]
        return strand < self._last and not self._has_room(strand, queue[0].nbytes if queue else 0)

    def take(self) -> list[Order]:
        """The orders since the last call."""
        orders, self._orders = self._orders, []
        return orders

    # ---- events

    def opened(self, lane: Lane) -> None:
        """The lane is ready."""
        slot = self._slot(lane)
        if slot is not None:
            slot.open, slot.barren = True, 0
            self._dispatch()

    def fed(self, ticket: int, nbytes: int = 0) -> None:
        """The feed gave an item, after `wants_item`, that brings so many bytes."""
        assert self.wants_item()
        self._unacked[ticket] = None
        self._nbytes[ticket] = nbytes
        self._wait(0, _Load(ticket, nbytes))
        self._dispatch()

    def exhausted(self) -> None:
        """The feed has no more items."""
        self._exhausted = True
        self._dispatch()

    def output(self, lane: Lane, number: int, nbytes: int = 0) -> None:
        """A lane that is not in the last strand put so many bytes out. Outputs of dead lanes count as well."""
        assert lane.strand < self._last
        self._wait(lane.strand + 1, _Load(number, nbytes))
        self._dispatch()

    def acked(self, tickets: Iterable[int]) -> None:
        """The sink is done with these tickets; ones it was done with before do not matter."""
        for ticket in tickets:
            if ticket in self._unacked:
                del self._unacked[ticket], self._nbytes[ticket]
                self._tries.pop(ticket, None)
                self._fruitless = self._rounds = 0

    def pushed(self, lane: Lane) -> None:
        """The lane is done with its oldest job, a push."""
        slot = self._slot(lane)
        if slot is not None:
            job = slot.jobs.popleft()
            assert job != _FLUSH
            slot.pushes -= 1
            self._at_work[lane.strand] -= job.nbytes
            self._dispatch()

    def flushed(self, lane: Lane) -> None:
        """The lane is done with its oldest job, a flush."""
        slot = self._slot(lane)
        if slot is not None:
            job = slot.jobs.popleft()
            assert job == _FLUSH
            self._dispatch()

    def stop(self) -> None:
        """Feed nothing more, flush, finish: what is complete is kept."""
        if not self._stopping:
            self._stopping = True
            self._queues[0].clear()
            self._waiting[0] = 0
            self._wave = 0
            self._dispatch()

    def died(self, lane: Lane) -> None:
        """The lane's worker is gone with everything it held."""
        slot = self._slot(lane)
        if slot is None:
            return
        self.deaths += 1
        self._fruitless += 1
        slot.barren = 0 if slot.open else slot.barren + 1
        self._suspect(slot)
        orphans = self._orphans(slot)
        upstream = [other.lane for row in self._slots[: lane.strand] for other in row if other.open]
        self._orders += [Lost(lane), *map(Lost, upstream)]
        self._at_work[lane.strand] -= sum(job.nbytes for job in slot.jobs)
        slot.open, slot.dirty, slot.pushes = False, False, 0
        slot.jobs.clear()
        slot.lane = lane._replace(generation=lane.generation + 1)
        if slot.barren >= BARREN_DEATHS:
            self._fail(f"its workers died {slot.barren} times while starting")
        elif self._fruitless >= FRUITLESS_DEATHS:
            self._fail(f"workers died {self._fruitless} times without any progress")
        elif not self._stopping:
            self._orders.append(Open(slot.lane))
            self._replay(orphans)
        elif lane.strand > 0:  # what waits for it is still to be flushed
            self._orders.append(Open(slot.lane))
        self._dispatch()

    # ---- decisions

    def _slot(self, lane: Lane) -> _Slot | None:
        """The lane's place, or None if this life of it is over."""
        slot = self._slots[lane.strand][lane.number]
        return slot if slot.lane == lane else None

    def _suspect(self, slot: _Slot) -> None:
        """Whatever a lane was working on when it died may have killed it."""
        if slot.lane.strand > 0 or not slot.jobs or slot.jobs[0] == _FLUSH:
            return
        ticket = slot.jobs[0].number
        self._tries[ticket] = self._tries.get(ticket, 0) + 1
        if self._tries[ticket] >= self.attempts and ticket in self._unacked:
            self._fail(f"item {ticket} ended its worker {self._tries[ticket]} times")

    def _orphans(self, dead: _Slot) -> list[int]:
        if dead.lane.strand > 0:
            return [ticket for ticket, slot in self._unacked.items() if slot is not None]
        return [ticket for ticket, slot in self._unacked.items() if slot is dead]

    def _replay(self, tickets: Sequence[int]) -> None:
        if not tickets:
            return
        self.replayed += len(tickets)
        for ticket in tickets:
            self._unacked[ticket] = None
        again = sorted({*tickets, *(load.number for load in self._queues[0])} & self._nbytes.keys())
        self._queues[0] = deque(_Load(ticket, self._nbytes[ticket]) for ticket in again)
        self._waiting[0] = sum(load.nbytes for load in self._queues[0])
        self._wave = None

    def _fail(self, why: str) -> None:
        if not self.finished:
            self.failure = why
            self.finished = True

    def _wait(self, strand: int, load: _Load) -> None:
        self._queues[strand].append(load)
        self._waiting[strand] += load.nbytes

    def _has_room(self, strand: int, nbytes: int = 0) -> bool:
        """Whether what comes of a push of so many bytes may lie behind the strand."""
        if strand == self._last:
            return True
        under_way = sum(slot.pushes for slot in self._slots[strand])
        if len(self._queues[strand + 1]) + under_way >= self._room[strand]:
            return False
        most = self._bounds[strand].nbytes
        lies = self._at_work[strand] + self._waiting[strand + 1] + self._at_work[strand + 1]
        return most is None or lies == 0 or lies + nbytes <= most

    def _free(self, strand: int) -> _Slot | None:
        """The least busy lane that can take another push."""
        best: _Slot | None = None
        for slot in self._slots[strand]:
            if slot.open and slot.pushes < self.window and (best is None or len(slot.jobs) < len(best.jobs)):
                best = slot
        return best

    def _dispatch(self) -> None:
        if self.finished:
            return
        for strand in range(self._last, -1, -1):
            self._feed_strand(strand)
        nothing_to_feed = self._exhausted or len(self._unacked) >= self.unacked_max
        if self._wave is None and nothing_to_feed and not self._queues[0]:
            self._wave = 0
        if self._wave is not None:
            self._advance_wave()

    def _feed_strand(self, strand: int) -> None:
        queue = self._queues[strand]
        while queue and self._has_room(strand, queue[0].nbytes) and (slot := self._free(strand)) is not None:
            load = queue.popleft()
            self._waiting[strand] -= load.nbytes
            if strand == 0:
                if load.number not in self._unacked:
                    continue
                self._unacked[load.number] = slot
            slot.jobs.append(load)
            slot.pushes += 1
            slot.dirty = True
            self._at_work[strand] += load.nbytes
            self._orders.append(Push(slot.lane, load.number))

    def _advance_wave(self) -> None:
        while self._wave is not None and self._wave <= self._last:
            row = self._slots[self._wave]
            if self._queues[self._wave]:
                return
            for slot in row:
                if slot.dirty:
                    slot.dirty = False
                    slot.jobs.append(_FLUSH)
                    self._orders.append(Flush(slot.lane))
            if any(slot.jobs for slot in row):
                return
            self._wave += 1
        self._wave = None
        self._wave_over()

    def _wave_over(self) -> None:
        if self._stopping or (self._exhausted and not self._unacked):
            self.finished = True
        elif self._exhausted or len(self._unacked) >= self.unacked_max:
            self._next_round()

    def _next_round(self) -> None:
        """Everything is flushed and some tickets are still open: their data went missing on the way."""
        self._rounds += 1
        if self._rounds >= self.attempts:
            self._fail(f"{len(self._unacked)} items were never acknowledged, the first is {min(self._unacked)}")
            return
        self._orders += [Lost(slot.lane) for row in self._slots for slot in row if slot.open]
        self._replay(list(self._unacked))
        self._dispatch()
