"""Turns: of what is costly only so much is done at a time, and no request waits for its turn without an end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from control.api.problems import Problem

SECONDS = 10.0


class Turns:
    """`at_once` requests of this process have a turn; others wait for one no longer than `seconds`."""

    def __init__(self, at_once: int, seconds: float = SECONDS) -> None:
        self._free = asyncio.Semaphore(at_once)
        self._seconds = seconds

    @asynccontextmanager
    async def take(self) -> AsyncIterator[None]:
        """A turn, as long as the context is open. Raises Problem (503, with Retry-After) if none comes in time."""
        try:
            async with asyncio.timeout(self._seconds):
                await self._free.acquire()
        except TimeoutError:
            headers = {"Retry-After": str(max(1, round(self._seconds)))}
            detail = "the server does as much of this as it can at a time"
            raise Problem(detail, status=503, kind="unavailable", headers=headers) from None
        try:
            yield
        finally:
            self._free.release()
