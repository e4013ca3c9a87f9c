"""Telling a monitor of a job's runs, as healthchecks.io wants it: at the start, and with the exit code at the end.

``URL/start``, then ``URL`` after a success, ``URL/CODE`` after a failure; ``?rid=`` is the run. The URL comes from the
server, so it must not make this host ask itself (`model.addresses.is_own`), unless its configuration allows that.
"""

from __future__ import annotations

import asyncio
import socket
import urllib.request
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from uuid import UUID

from agent.logs import log
from model.addresses import address, is_own

if TYPE_CHECKING:
    from aiohttp.abc import AbstractResolver

SECONDS = 10.0  # of one attempt
ATTEMPTS, PAUSE = 3, 5.0
CODE_MAX = 255
_NEWEST: dict[UUID, asyncio.Task[None]] = {}


class NotAllowed(Exception):
    """The URL leads to this host itself."""


def ping(url: str | None, what: str, run: UUID, *, this_host: bool = False) -> None:
    """Tell the monitor at `url` in the background; trouble with it is logged and does not concern the run.

    Those of one run go one after the other: a start that came after the end would look like a run that hangs.
    `this_host`: it may be on this host.
    """
    if url is None:
        return
    base, _, query = url.partition("?")
    where = base.rstrip("/") + (f"/{what}" if what else "") + f"?rid={run}" + (f"&{query}" if query else "")
    task = asyncio.create_task(_after(_NEWEST.get(run), where, this_host))
    _NEWEST[run] = task
    task.add_done_callback(lambda done: _NEWEST.pop(run) if _NEWEST.get(run) is done else None)


def ending(good: bool, code: int) -> str:
    """What a monitor is told of a run's end. A run that made a backup is good, also if some files were left out."""
    if good:
        return ""
    return str(min(code, CODE_MAX)) if code > 0 else "fail"


async def finish(seconds: float = SECONDS) -> None:
    """Wait for those under way."""
    if _NEWEST:
        await asyncio.wait(_NEWEST.values(), timeout=seconds)


async def _after(before: asyncio.Task[None] | None, where: str, this_host: bool) -> None:
    if before is not None:
        await asyncio.wait([before])
    host = urlsplit(where).hostname or ""  # what follows it is a secret
    for attempt in range(1, ATTEMPTS + 1):
        try:
            status = await _send(where, this_host)
        except NotAllowed as error:
            log().error("a monitor is not told", why=str(error), monitor=host)
            return
        except Exception as error:  # whatever the monitor does, the run goes on
            why, again = str(error) or type(error).__name__, True
        else:
            why, again = f"it answered {status}", status >= 500 or status == 429
            if status < 300:
                return
        if not again or attempt == ATTEMPTS:
            log().warning("a monitor did not take a ping", why=why, monitor=host)
            return
        await asyncio.sleep(PAUSE * attempt)


async def _send(where: str, this_host: bool) -> int:
    """The status of the answer. Raises NotAllowed, aiohttp.ClientError, TimeoutError, OSError, ValueError."""
    import aiohttp

    parts, resolver = urlsplit(where), None
    if not _by_proxy(parts.scheme, parts.hostname or ""):
        resolver = await _found(parts.hostname or "", parts.port or 443, this_host)
    async with (
        aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(resolver=resolver, force_close=True),
            timeout=aiohttp.ClientTimeout(total=SECONDS),
            trust_env=resolver is None,
        ) as session,
        session.post(where, allow_redirects=False) as response,
    ):
        return response.status


def _by_proxy(scheme: str, host: str) -> bool:
    """Whether the environment of this host names a proxy for it, which then looks after where it may connect to."""
    return scheme in urllib.request.getproxies() and not urllib.request.proxy_bypass(host)


async def _found(host: str, port: int, this_host: bool) -> AbstractResolver:
    """The addresses of `host`, looked up once. Raises NotAllowed if all of them lead to this host, OSError."""
    async with asyncio.timeout(SECONDS):
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = list(dict.fromkeys(address(str(one[4][0])) for one in found))
    good = [one for one in addresses if this_host or not is_own(one)]
    if not good:
        raise NotAllowed(f"{addresses[0]} is this host itself, or its link: see allow_ping_this_host")
    from model.connecting import Only

    return Only(good)
