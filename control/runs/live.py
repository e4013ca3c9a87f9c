"""Runs as they go: the newest progress, and who watches.

Progress replaces progress, so what comes every second is kept in memory and written every few seconds only. Events
that say more than that are always written before they are answered.
"""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import suppress
from dataclasses import dataclass
from uuid import UUID

from model.wire.runs import EventsIn, EventsOut, Progress

LOOK_SECONDS = 1.0  # what another process took in is seen so late
WRITE_SECONDS = 4.0, 6.0  # between two writes of progress alone; at random, so that runs that began together spread
RUNS_MAX = 10_000


@dataclass(slots=True)
class _Known:
    agent: UUID
    due: float  # when progress is to be written again
    answer: EventsOut
    progress: Progress | None = None


class Live:
    """What this process knows of runs under way."""

    def __init__(self) -> None:
        self._watching: dict[UUID, set[asyncio.Event]] = {}
        self._known: dict[UUID, _Known] = {}

    def only_progress(self, run: UUID, agent: UUID, body: EventsIn) -> EventsOut | None:
        """The answer to events that are progress alone and need not be written now; None if they are to be written."""
        known = self._known.get(run)
        if known is None or known.agent != agent or time.monotonic() > known.due:
            return None
        newest = body.events[-1]
        if not isinstance(newest, Progress) or not all(isinstance(event, Progress) for event in body.events):
            return None
        if newest.sequence > known.answer.taken:
            known.progress = newest
            known.answer = known.answer.model_copy(update={"taken": newest.sequence})
        return known.answer

    def taken(self, run: UUID, agent: UUID, answer: EventsOut) -> None:
        """Events were written, and are answered so."""
        if len(self._known) >= RUNS_MAX:
            self._known.clear()
        self._known[run] = _Known(agent, time.monotonic() + random.uniform(*WRITE_SECONDS), answer)

    def forget(self, run: UUID) -> None:
        """It changed by what no event said: the next one is to look."""
        self._known.pop(run, None)

    def progress(self, run: UUID, sequence: int) -> Progress | None:
        """Progress newer than event `sequence`, the last that was written."""
        known = self._known.get(run)
        newer = known is not None and known.progress is not None and known.progress.sequence > sequence
        return known.progress if known is not None and newer else None

    def changed(self, run: UUID) -> None:
        """Something was taken in, and committed if it had to be."""
        for event in self._watching.get(run, ()):
            event.set()

    def watch(self, run: UUID) -> asyncio.Event:
        """An event that is set by `changed` from now on; give it back by `leave`."""
        event = asyncio.Event()
        self._watching.setdefault(run, set()).add(event)
        return event

    def leave(self, run: UUID, event: asyncio.Event) -> None:
        """Nobody watches by `event` any more."""
        watching = self._watching.get(run, set())
        watching.discard(event)
        if not watching:
            self._watching.pop(run, None)

    async def next(self, event: asyncio.Event) -> None:
        """Wait until something changed, or for as long as it may go unnoticed."""
        with suppress(TimeoutError):
            await asyncio.wait_for(event.wait(), LOOK_SECONDS)
        event.clear()
