"""Which job begins when. Pure: times and events in, decisions out; no clock, no tasks, no files.

The caller keeps `marks` and what waits where a SIGKILL does not reach them, in the same transaction in which it notes
what begins: then nothing that was due is lost, and nothing begins twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from uuid import UUID, uuid4

from agent.timetable import Timetable

GRACE = 120.0  # seconds after its moment at which a time counts as missed
BACKWARD = 60.0  # seconds by which a clock may go back without anybody noticing


@dataclass(frozen=True, slots=True)
class Mark:
    """Up to which time it is decided what becomes of a job's times; under which cron expression and zone."""

    until: float
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """A run that is to begin; `due` if the timetable wants it, `late` if that was missed."""

    job: UUID
    run: UUID
    due: float | None = None
    late: bool = False


@dataclass(frozen=True, slots=True)
class Skipped:
    """A time at which nothing begins: it was "missed", or the job was "running" still."""

    job: UUID
    due: float
    why: str


@dataclass(slots=True)
class Orders:
    """What is to be done now. `queued` is new, and to be remembered: it begins later."""

    begin: list[Wanted] = field(default_factory=list)
    queued: list[Wanted] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)


class Schedule:
    """All jobs of an agent, of which at most `slots` run at a time and each at most once."""

    def __init__(
        self, slots: int, marks: Mapping[UUID, Mark] | None = None, new_run: Callable[[], UUID] = uuid4
    ) -> None:
        self.slots = slots
        self.paused = False
        self._new_run = new_run
        self.marks = dict(marks or {})
        self.running: set[UUID] = set()
        self.waiting: list[Wanted] = []
        self._tables: dict[UUID, Timetable] = {}

    def set_tables(self, tables: Iterable[Timetable], now: float) -> None:
        """These are the timetables from now on. A job that is new, or due at other times, missed nothing so far."""
        self._tables = {table.job: table for table in tables}
        self.marks = {job: mark for job, mark in self.marks.items() if job in self._tables}
        for job, table in self._tables.items():
            mark = self.marks.get(job)
            if mark is None or mark.fingerprint != table.fingerprint or mark.until > now + BACKWARD:
                self.marks[job] = Mark(now, table.fingerprint)

    def ask(self, wanted: Wanted) -> None:
        """Somebody wants this run, or it waited already before the agent was started."""
        if wanted not in self.waiting:
            self.waiting.append(wanted)

    def forget(self, run: UUID) -> bool:
        """A run that waits is not wanted any more; whether there was one."""
        before = len(self.waiting)
        self.waiting = [one for one in self.waiting if one.run != run]
        return len(self.waiting) < before

    def ended(self, job: UUID) -> None:
        """A run of the job is over."""
        self.running.discard(job)

    def kept(self) -> tuple[dict[UUID, Mark], list[Wanted], set[UUID]]:
        """What `tick` changes, for `undo` if its orders could not be written down."""
        return dict(self.marks), list(self.waiting), set(self.running)

    def undo(self, kept: tuple[dict[UUID, Mark], list[Wanted], set[UUID]]) -> None:
        """As it was: what is due then is due still."""
        self.marks, self.waiting, self.running = kept

    def tick(self, now: float) -> Orders:
        """What is to begin now."""
        orders = Orders()
        for job, table in self._tables.items() if not self.paused else ():
            self._look(job, table, now, orders)
        for wanted in list(self.waiting):
            if len(self.running) >= self.slots:
                break
            if wanted.job not in self.running:
                self.waiting.remove(wanted)
                self.running.add(wanted.job)
                orders.begin.append(wanted)
        orders.queued = [one for one in orders.queued if one in self.waiting]
        return orders

    def _look(self, job: UUID, table: Timetable, now: float, orders: Orders) -> None:
        mark = self.marks[job]
        if mark.until > now + BACKWARD:  # the clock was wrong when that was written
            self.marks[job] = mark = Mark(now, table.fingerprint)
        due = table.newest(mark.until, now)
        if due is None:
            return
        self.marks[job] = Mark(due, table.fingerprint)
        late = now - due - table.delay(due) > GRACE
        if late and table.missed == "skip":
            orders.skipped.append(Skipped(job, due, "missed"))
            return
        waits = any(one.job == job and one.due is not None for one in self.waiting)
        if waits or (job in self.running and table.overlap == "skip"):
            orders.skipped.append(Skipped(job, due, "running" if not waits else "waiting"))
            return
        wanted = Wanted(job, self._new_run(), due, late)
        self.waiting.append(wanted)
        orders.queued.append(wanted)

    def next_times(self, now: float) -> dict[UUID, float]:
        """When each job is due next, delay included."""
        moments = {job: table.next(self.marks[job].until, now) for job, table in self._tables.items()}
        return {job: moment for job, moment in moments.items() if moment is not None}
