"""Runs as they go: who watches one is woken when it changes."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from uuid import UUID

LOOK_SECONDS = 1.0  # what another process took in is seen so late


class Live:
    """Who watches runs in this process."""

    def __init__(self) -> None:
        self._watching: dict[UUID, set[asyncio.Event]] = {}

    def changed(self, run: UUID) -> None:
        """Something was taken in, and committed."""
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
