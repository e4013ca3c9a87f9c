"""Asking an agent something and passing on what it answers, as a stream."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from uuid import UUID

from aiohttp import web

from control.api.bodies import write
from control.api.call import Call
from control.api.problems import CONTENT_TYPE, Conflict, Problem
from control.db.base import new_id
from control.fleet.commands import SOON, Wakes, enqueue
from control.fleet.exchanges import ExchangeFailed, Reply, waiting
from control.fleet.heartbeats import Heartbeats, status_of
from control.fleet.tables import AgentRow
from model.wire.commands import BrowseCommand, DownloadCommand, EstimateCommand

PROBLEM_MAX = 64 << 10
RELAYED = frozenset({404, 409, 410, 422})  # what an agent may say of a question; the rest is its own trouble
Question = BrowseCommand | DownloadCommand | EstimateCommand


@asynccontextmanager
async def answer_of(call: Call, agent: UUID, question: Callable[[UUID], Question]) -> AsyncIterator[Reply]:
    """The beginning of the answer of `agent`. `question` makes the command for an exchange.

    Raises Conflict if the agent is offline, and Problem 502 or 504 if it fails or does not answer.
    """
    services, exchange = call.services, new_id()
    async with services.sessions() as session:
        row = await session.get(AgentRow, agent)
    if row is None or status_of(row, services.part(Heartbeats).newest(agent)) != "online":
        raise Conflict("the agent that can tell is not online", kind="agent-offline")
    folder = services.settings.data_dir / "exchanges"
    folder.mkdir(mode=0o700, exist_ok=True)
    async with waiting(folder, exchange, agent) as wait:
        async with services.sessions.begin() as session:
            await enqueue(session, agent, question(exchange), SOON)
        services.part(Wakes).wake(agent)
        try:
            reply = await wait.reply()
            if reply.head.content_type == CONTENT_TYPE:
                raise _problem(await reply.everything(PROBLEM_MAX))
        except ExchangeFailed as error:
            raise Problem(error.why, status=504, kind="agent-silent") from None
        yield reply


def _problem(data: bytes) -> Problem:
    try:
        said = json.loads(data)
        status, detail, hint = int(said["status"]), str(said["detail"]), str(said.get("hint", ""))
    except (ValueError, KeyError, TypeError):
        return Problem("the agent could not do this, and did not say why", status=502, kind="agent-failed")
    if status in RELAYED:
        return Problem(detail, status=status, kind="agent-says", hint=hint)
    return Problem(detail, status=502, kind="agent-failed", hint=hint)


async def relay(call: Call, reply: Reply, headers: dict[str, str]) -> web.StreamResponse:
    """Pass on a stream. One that breaks off breaks off for the caller as well: it never looks as if it were whole."""
    response = web.StreamResponse(headers={"Content-Type": reply.head.content_type, **headers})
    await response.prepare(call.request)
    try:
        async for piece in reply.pieces():
            await write(response, piece)
    except ExchangeFailed as error:
        call.services.log.warning("stream from an agent broke off", why=error.why)
        if call.request.transport is not None:
            call.request.transport.abort()
        return response
    await response.write_eof()
    return response
