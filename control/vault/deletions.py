"""What was deleted in the vault, for the audit log: a row when it begins, and one that sums up, not one an object.

The first row is written before anything goes, so that a server that is killed leaves a trace of it. The second says how
many objects went, how many bytes, the first names, and a digest over all of them in order.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from control.audit import record
from control.auth.roles import Principal
from control.db.engine import Sessions

BEGUN, SUMMED = "vault.delete.begin", "vault.delete"
QUIET_SECONDS, LONGEST_SECONDS = 30.0, 600.0  # after which a batch is summed up
LOOK_SECONDS = 5.0
NAMES_SHOWN = 50


@dataclass(slots=True, eq=False)
class Batch:
    """What one principal deleted in one repository, lately. Bytes in `size`; `busy` requests are under way."""

    tenant: UUID
    who: Principal
    repository: UUID
    remote: str
    begun: float = field(default_factory=time.monotonic)
    last: float = field(default_factory=time.monotonic)
    busy: int = 0
    count: int = 0
    size: int = 0
    names: list[str] = field(default_factory=list)
    digest: Any = field(default_factory=hashlib.sha256)
    beginning: asyncio.Future[None] | None = None  # that the audit log has it

    @property
    def is_over(self) -> bool:
        """Whether it is time to sum it up."""
        moment = time.monotonic()
        return moment > self.begun + LONGEST_SECONDS or (not self.busy and moment > self.last + QUIET_SECONDS)

    @property
    def is_under_way(self) -> bool:
        """Whether more may come of it, or its beginning is just being written."""
        return self.busy > 0 or (self.beginning is not None and not self.beginning.done())

    @property
    def is_noted(self) -> bool:
        """Whether the audit log has its beginning."""
        begun = self.beginning
        return begun is not None and begun.done() and not begun.cancelled() and begun.exception() is None

    def add(self, name: str, size: int) -> None:
        """An object went."""
        self.count, self.size = self.count + 1, self.size + size
        self.digest.update(name.encode() + b"\n")
        if len(self.names) < NAMES_SHOWN:
            self.names.append(name)

    @property
    def told(self) -> dict[str, object]:
        """For the audit log."""
        shown = {"objects": self.count, "bytes": self.size, "names": self.names}
        return {**shown, "sha256_of_names": self.digest.hexdigest()}


class Deletions:
    """The batches of this process."""

    def __init__(self, sessions: Sessions, log: Any) -> None:
        self._sessions, self._log = sessions, log
        self._batches: dict[tuple[UUID, UUID], Batch] = {}
        self._over: list[Batch] = []  # nothing more is added to them but by requests that are under way

    @asynccontextmanager
    async def batch(self, tenant: UUID, who: Principal, repository: UUID, remote: str) -> AsyncIterator[Batch]:
        """The batch to add to, begun in the audit log if it is new; it is not summed up meanwhile."""
        made = Batch(tenant, who, repository, remote)
        found = self._batches.setdefault((repository, who.uuid), made)
        found.busy += 1
        try:
            if found.beginning is None or (found.beginning.done() and not found.is_noted):
                found.beginning = asyncio.ensure_future(self._record(found, BEGUN, {}))
            await asyncio.shield(found.beginning)  # all who wait for it fail together: none waits for the next attempt
            yield found
        finally:
            found.busy, found.last = found.busy - 1, time.monotonic()

    async def run(self, stopping: asyncio.Event) -> None:
        """Sum up what has come to rest, until the server stops; `finish` does the rest."""
        while not stopping.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), LOOK_SECONDS)
            await self.sum_up()

    async def finish(self) -> None:
        """Sum up everything, after the last request."""
        await self.sum_up(everything=True)

    async def sum_up(self, everything: bool = False) -> None:
        """Write what has come to rest. What cannot be written now, or is not at its end, comes later: nobody waits."""
        for key, one in list(self._batches.items()):
            if everything or one.is_over:
                self._over.append(self._batches.pop(key))
        for one in [one for one in self._over if not one.is_under_way]:
            try:
                if one.is_noted:
                    await self._record(one, SUMMED, one.told)
            except Exception:  # the database cannot be written to now
                self._log.exception("deletions could not be written to the audit log")
                return
            self._over.remove(one)

    async def _record(self, one: Batch, action: str, details: dict[str, object]) -> None:
        async with self._sessions.begin() as session:
            await record(session, one.tenant, one.who, action, one.repository, one.remote, details)
