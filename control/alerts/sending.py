"""Sends messages to targets, beside everything else that the server does; by one process of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any
from uuid import UUID

from control.alerts import chat, claims, mail, outbox, webhook
from control.alerts.claims import Work
from control.alerts.guard import Guard, NotSent
from control.alerts.tables import AlertTargetRow
from control.alerts.targets import secrets_of
from control.api.turns import Turns
from control.db.base import now
from control.services import Services
from model.errors import ConfigError

LOOK_SECONDS = 1.0
AT_ONCE = 8
LIMIT = claims.CLAIM.total_seconds() - 10.0  # seconds of one attempt
FORGET_SECONDS = 3600.0
_TRIES, _CHAT_TRIES = Turns(4), Turns(1)  # of requests, beside what is sent


async def deliver(services: Services, target: AlertTargetRow, uuid: UUID, content: dict[str, Any]) -> str:
    """Sends one message. Returns what the other side said. Raises NotSent, in any case before a claim is over."""
    try:
        async with asyncio.timeout(LIMIT):
            return await _deliver(services, target, uuid, content)
    except TimeoutError:
        raise NotSent(f"it was not sent in {LIMIT:.0f} s") from None


async def _deliver(services: Services, target: AlertTargetRow, uuid: UUID, content: dict[str, Any]) -> str:
    guard = Guard.of(services.settings)
    try:
        kept = secrets_of(services, target)
    except ConfigError as error:
        raise NotSent(f"{error.what}: {error.why}") from None
    if target.kind == "webhook":
        return await webhook.send(guard, kept, uuid, {"id": str(uuid), **content})
    if target.kind == "mail":
        return await mail.send(guard, target.fields["mail"], kept, uuid, content)
    return await chat.send(guard, kept, content)


async def try_out(services: Services, target: AlertTargetRow, uuid: UUID, content: dict[str, Any]) -> str:
    """As `deliver`, for a request that waits for it. Raises Problem if too many others do."""
    async with (_CHAT_TRIES if target.kind == claims.CHAT else _TRIES).take():
        return await deliver(services, target, uuid, content)


class Sender:
    """`step` looks for work once; what it begins goes on beside it."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._tasks: dict[asyncio.Task[None], Work] = {}
        self._forgot = 0.0

    async def run(self) -> None:
        """For ever."""
        while True:
            try:
                await self.step()
            except Exception:  # the database may be away; what is to be sent is in it
                self._services.log.exception("looking for alerts to send failed")
            await asyncio.sleep(LOOK_SECONDS)

    async def step(self) -> None:
        """Events become notices, notices messages, and messages that are due are begun to be sent."""
        at, sessions = now(), self._services.sessions
        async with sessions() as db:
            idle, due = await outbox.is_idle(db, at), await claims.is_due(db, at)
        if not idle:
            async with sessions.begin() as db:
                while await outbox.note_events(db, at) == outbox.EVENTS:
                    pass
                made = await outbox.remind(db, self._services.settings.url, at)
                made += await outbox.gather(db, self._services.settings.url, at)
            due = due or made > 0
        room = AT_ONCE - len(self._tasks)
        if due and room > 0:
            async with sessions.begin() as db:
                works = await claims.claim(db, at, room, self._tasks.values())
            for work in works:
                task = asyncio.create_task(self._send(work))
                self._tasks[task] = work
                task.add_done_callback(self._tasks.pop)
        if time.monotonic() - self._forgot > FORGET_SECONDS:
            async with sessions.begin() as db:
                await outbox.forget(db, at)
            self._forgot = time.monotonic()

    async def finish(self) -> None:
        """Ends what is under way. It is sent again when its claim is over."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _send(self, work: Work) -> None:
        sessions, log = self._services.sessions, self._services.log
        async with sessions() as db:
            target = await db.get(AlertTargetRow, work.target)
        if target is None:  # removed, and its messages with it
            return
        try:
            detail = await deliver(self._services, target, work.uuid, work.content)
        except Exception as error:
            expected = isinstance(error, NotSent)
            if not expected:
                log.exception("sending alerts failed", target=str(work.target))
            why = str(error) if expected else "the server failed at it; its log has more"
            log.warning("alerts were not sent", target=str(work.target), attempt=work.attempt, why=why)
            async with sessions.begin() as db:
                await claims.note_failed(db, work, why, now())
            return
        async with sessions.begin() as db:
            await claims.note_sent(db, work, detail, now())


@asynccontextmanager
async def lead(services: Services) -> AsyncIterator[None]:
    """In one process of the server."""
    sender = Sender(services)
    task = asyncio.create_task(sender.run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await sender.finish()
