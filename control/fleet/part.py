"""The fleet as parts of the server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from control.alerts import routes as alert_routes
from control.alerts import sending, target_routes
from control.auth.secrets import CREDENTIAL
from control.fleet import host_routes, routes
from control.fleet.commands import Wakes
from control.fleet.heartbeats import Heartbeats
from control.fleet.known import KnownAgents
from control.fleet.watching import watch
from control.installer import routes as installer_routes
from control.installer.command import Installer
from control.jobs import routes as job_routes
from control.repositories import maintenance, removing
from control.repositories import routes as repository_routes
from control.restores import routes as restore_routes
from control.runs import history
from control.runs import routes as run_routes
from control.runs.live import Live
from control.services import Part, Services


@asynccontextmanager
async def _beside(*work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Do `work` until the context is left."""
    tasks = [asyncio.create_task(one) for one in work]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


@asynccontextmanager
async def start(services: Services) -> AsyncIterator[None]:
    """In every process: heartbeats, who waits for commands, who watches runs."""
    known = KnownAgents()
    beats, wakes = Heartbeats(services.sessions, services.log), Wakes(known)
    for part in (known, beats, wakes, Live(), Installer(services.settings)):
        services.keep(part)
    services.authenticators[CREDENTIAL] = host_routes.of_credential
    work = [beats.run(), _let_go(services, wakes)]
    if services.settings.processes > 1:
        work.append(wakes.look(services.sessions, services.log))
    async with _beside(*work):
        yield
    await beats.flush()


async def _let_go(services: Services, wakes: Wakes) -> None:
    await services.stopping.wait()
    wakes.wake_all()


@asynccontextmanager
async def lead(services: Services) -> AsyncIterator[None]:
    """In one process: what goes by itself."""
    async with _beside(watch(services)):
        yield


def parts() -> Sequence[Part]:
    """All that has to do with agents."""
    return [
        Part("agents", routes.routes, start, lead),
        Part("agent", host_routes.routes),
        Part("repositories", repository_routes.routes),
        Part("removed repositories", removing.routes, None, removing.lead),
        Part("maintenance", maintenance.routes),
        Part("jobs", job_routes.routes),
        Part("runs", run_routes.routes, None, history.lead),
        Part("restores", restore_routes.routes),
        Part("alerts", alert_routes.routes),
        Part("alert-targets", target_routes.routes, lead=sending.lead),
        Part("installer", installer_routes.routes),
    ]
