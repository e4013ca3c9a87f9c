"""Telling a monitor of a job's runs, as healthchecks.io wants it: at the start, at success, at failure."""

from __future__ import annotations

import asyncio
from uuid import UUID

from agent.host import Host
from agent.logs import log
from agent.redact import redact

SECONDS = 10.0
_TASKS: set[asyncio.Task[None]] = set()


def ping(host: Host, url: str | None, what: str, run: UUID) -> None:
    """Tell the monitor at `url` in the background; trouble with it is logged and does not concern the run."""
    if url is None:
        return
    base, _, query = url.partition("?")
    address = base.rstrip("/") + (f"/{what}" if what else "") + f"?rid={run}" + (f"&{query}" if query else "")
    task = asyncio.create_task(_send(address))
    _TASKS.add(task)
    task.add_done_callback(_TASKS.discard)


async def finish(seconds: float = SECONDS) -> None:
    """Wait for those under way."""
    if _TASKS:
        await asyncio.wait(_TASKS, timeout=seconds)


async def _send(address: str) -> None:
    import aiohttp

    limits = aiohttp.ClientTimeout(total=SECONDS)
    try:
        async with (
            aiohttp.ClientSession(timeout=limits, trust_env=True) as session,
            session.post(address, allow_redirects=False) as response,
        ):
            if response.status >= 400:
                log().warning("a monitor did not take a ping", status=response.status, url=redact(address))
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        log().warning("a monitor cannot be reached", why=str(error), url=redact(address))
