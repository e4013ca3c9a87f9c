"""Telling the server what happened in runs: in order, again until it has it, and what it cannot take not at all."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from uuid import UUID

from pydantic import TypeAdapter, ValidationError

from agent.host import Host
from agent.logs import log
from agent.server import Backoff, Server, ServerAway, ServerRefused, ServerRejected
from agent.state import UNWRITABLE_SECONDS, StateUnwritable
from model.wire.runs import EventsIn, RunEvent

TOGETHER = 500  # events of one request
LAST_SECONDS = 3.0
FAILED, ASIDE_SECONDS = 500, 60.0
_EVENT: TypeAdapter[Any] = TypeAdapter(RunEvent)


class Sender:
    """Sends what `State` holds. `cancel` is called for runs that the server does not want any more."""

    def __init__(self, host: Host, server: Server, cancel: Callable[[UUID], object]) -> None:
        self._host, self._server, self._cancel = host, server, cancel
        self.warning = ""
        self._aside: dict[UUID, float] = {}  # at these the server failed: others first, until then

    async def serve(self) -> None:
        """Until cancelled."""
        backoff = Backoff()
        while True:
            self._host.sending.clear()
            try:
                while await self._send():
                    backoff.succeeded()
                with suppress(TimeoutError):
                    async with asyncio.timeout(ASIDE_SECONDS if self._aside else None):
                        await self._host.sending.wait()
            except ServerAway as error:
                await asyncio.sleep(backoff.seconds(error.retry_after))
            except StateUnwritable:  # what was sent will be sent again; the server knows it by its number
                await asyncio.sleep(UNWRITABLE_SECONDS)
            except ServerRefused:
                await asyncio.sleep(60.0)

    async def last_words(self) -> None:
        """Send what there is, if that can be done soon: the agent is stopping."""
        try:
            async with asyncio.timeout(LAST_SECONDS):
                while await self._send():
                    pass
        except (TimeoutError, ServerAway, ServerRefused, StateUnwritable):
            pass

    async def _send(self) -> bool:
        """Some events of one run; False if there are none."""
        now = time.monotonic()
        self._aside = {run: until for run, until in self._aside.items() if until > now}
        found = self._host.state.untold(TOGETHER, self._aside)
        if found is None:
            return False
        run, rows = found
        events = [event for event in (_wire(run, *row) for row in rows) if event is not None]
        last = rows[-1][0]
        if events:
            try:
                answer = await self._server.events(run, EventsIn(events=events))
            except ServerRejected as error:
                self.warning = f"the server did not take what it was told of run {run}: {error.why}"
                log().error("the server does not take events of a run", run=str(run), why=error.why, lost=len(events))
            except ServerAway as error:
                if error.status != FAILED:
                    raise
                self.warning = f"the server fails at what it is told of run {run}: {error.why}"
                log().error("the server fails at events of a run", run=str(run), why=error.why)
                self._aside[run] = now + ASIDE_SECONDS
                return True
            else:
                if answer.cancel:
                    self._cancel(run)
        self._host.state.told(run, last)
        return True


def _wire(run: UUID, sequence: int, kind: str, body: dict[str, Any]) -> Any:
    try:
        return _EVENT.validate_python({"event": kind, "sequence": sequence, **body})
    except ValidationError as error:
        log().error("an event cannot be told", run=str(run), kind=kind, why=str(error.errors(include_input=False)[:1]))
        return None
