"""Commands of the server: fetched by long polls, taken over on disk, then obeyed. Each takes effect once."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from agent import answers
from agent.logs import log
from agent.runner import Asked
from agent.server import Backoff, ServerAway, ServerRefused, ServerRejected, Unreadable
from agent.state import UNWRITABLE_SECONDS, StateUnwritable
from model.errors import LoxError
from model.wire.commands import (
    BrowseCommand,
    CancelRun,
    Command,
    DownloadCommand,
    EstimateCommand,
    RefreshPolicy,
    RotateCredential,
    RunJob,
    SetLimits,
)

if TYPE_CHECKING:
    from agent.daemon import Daemon

WAIT_SECONDS = 50
REFUSED_SECONDS = 60.0
ANSWERS_MAX = 8  # questions that are answered at a time

Question = BrowseCommand | DownloadCommand | EstimateCommand


class Channel:
    """The agent's end of the command channel. `serve` is its task."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._answering: set[asyncio.Task[None]] = set()
        self._room = asyncio.Semaphore(ANSWERS_MAX)

    async def serve(self) -> None:
        """Until cancelled."""
        backoff, state = Backoff(), self._daemon.host.state
        try:
            while True:
                try:
                    found = await self._daemon.server.commands(int(state.note("command") or 0), WAIT_SECONDS)
                    backoff.succeeded()
                    for command in found:
                        await self._obey(command)
                except ServerAway as error:
                    log().debug("no commands", why=str(error))
                    await asyncio.sleep(backoff.seconds(error.retry_after))
                except StateUnwritable as error:  # a command that cannot be taken over is asked for again
                    log().debug("no commands", why=str(error))
                    await asyncio.sleep(UNWRITABLE_SECONDS)
                except (ServerRefused, ServerRejected) as error:
                    log().debug("no commands", why=str(error))
                    await asyncio.sleep(REFUSED_SECONDS)
        finally:
            for task in self._answering:
                task.cancel()
            await asyncio.gather(*self._answering, return_exceptions=True)

    async def _obey(self, command: Command | Unreadable) -> None:
        if isinstance(command, Unreadable):
            if self._daemon.host.state.take_command(command.id, command.sequence):
                log().error("a command is of no use to this version of the agent", why=command.why)
            return
        body, runner = command.body, self._daemon.runner
        asked = isinstance(body, Asked)
        expired = command.expires_at < datetime.now(UTC)
        row = runner.row_of(body) if isinstance(body, Asked) and not expired else None
        if not self._daemon.host.state.take_command(command.id, command.sequence, row):
            return
        log().info("command", command=body.kind, id=str(command.id), expired=expired)
        if expired:
            return
        if row is not None:
            if isinstance(body, RunJob) and not runner.knows(body.job_uuid):
                await self._refresh()
            runner.begin(row)
        elif not asked:
            await self._at_once(body)

    async def _at_once(self, body: object) -> None:
        match body:
            case CancelRun():
                self._daemon.runner.cancel(body.run_uuid)
            case SetLimits():
                self._daemon.runner.set_limit(body.job_uuid, body.bandwidth_limit_mbps)
            case RefreshPolicy():
                await self._refresh()
            case RotateCredential():
                self._daemon.expect_credential()
            case BrowseCommand() | DownloadCommand() | EstimateCommand():
                task = asyncio.create_task(self._answer(body))
                self._answering.add(task)
                task.add_done_callback(self._answering.discard)

    async def _refresh(self) -> None:
        try:
            await self._daemon.fetch_policy()
        except (ServerAway, ServerRefused, ServerRejected, StateUnwritable) as error:
            log().warning("cannot fetch the policy", why=str(error))

    async def _answer(self, body: Question) -> None:
        async with self._room:
            try:
                await answers.send(self._daemon.host, self._daemon.server, body)
            except LoxError as error:
                log().warning("a question could not be answered", kind=body.kind, why=str(error))
