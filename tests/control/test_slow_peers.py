"""Who is slow, or says nothing, holds no request for ever: agents, and the disk of the vault."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from threading import Event
from uuid import uuid4

import pytest
from aiohttp import web

from control.api import bodies
from control.api.problems import Problem
from control.fleet import exchanges
from control.fleet.exchanges import ExchangeFailed, ExchangeGone, Head, sending, waiting
from control.vault import streams

PATIENCE = 60.0


@asynccontextmanager
async def served(handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> AsyncIterator[int]:
    """A web server whose every POST goes to `handler`; gives its port."""
    app = web.Application()
    app.router.add_post("/", handler)
    app.on_response_prepare.append(bodies.end_untaken)
    runner = web.AppRunner(app, lingering_time=0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


def test_an_agent_that_stops_sending_holds_no_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uuid, agent = uuid4(), uuid4()

    async def silent() -> None:
        ended: asyncio.Future[type] = asyncio.get_running_loop().create_future()

        async def pass_on(request: web.Request) -> web.Response:
            try:
                async with sending(tmp_path, uuid, Head(agent, "application/x-tar")) as sender:
                    async for piece in exchanges.pieces_of(request.content):
                        await sender.send(piece)
                    await sender.end()
            except ExchangeGone as error:
                ended.set_result(type(error))
            return web.Response()

        async with asyncio.timeout(PATIENCE), waiting(tmp_path, uuid, agent) as caller, served(pass_on) as port:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nbegun")
            pieces = (await caller.reply()).pieces()
            assert await anext(pieces) == b"begun"
            monkeypatch.setattr(exchanges, "IDLE_SECONDS", 0.5)  # from the next piece on
            writer.write(b"more")
            assert await ended is ExchangeGone
            writer.transport.abort()

    asyncio.run(silent())


def test_an_answer_that_never_ends_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchanges, "ALL_SECONDS", 1.0)
    uuid, agent = uuid4(), uuid4()

    async def drip() -> None:
        async with sending(tmp_path, uuid, Head(agent, "application/json")) as sender:
            while True:
                await sender.send(b" ")
                await asyncio.sleep(0.1)

    async def asked() -> None:
        async with asyncio.timeout(PATIENCE):
            async with waiting(tmp_path, uuid, agent) as caller:
                agent_side = asyncio.create_task(drip())
                with pytest.raises(ExchangeFailed, match="did not end"):
                    await (await caller.reply()).everything(1 << 20)
            with pytest.raises(ExchangeGone):
                await agent_side

    asyncio.run(asked())


def test_who_does_not_read_an_answer_holds_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "TAKE_SECONDS", 1.0)
    size = 64 << 20  # more than the system takes in

    async def unread() -> None:
        ended: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()

        async def answer(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse(headers={"Content-Length": str(size)})
            try:
                await response.prepare(request)
                await bodies.write(response, bytes(size))
            except ConnectionError as error:
                ended.set_result(error)
                raise
            return response

        async with asyncio.timeout(PATIENCE), served(answer) as port:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
            assert isinstance(await ended, ConnectionError)
            writer.transport.abort()

    asyncio.run(unread())


def test_a_disk_that_does_not_answer_lets_nobody_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "ROOM_SECONDS", 0.5)
    answers = Event()

    async def stuck() -> None:
        async with asyncio.timeout(PATIENCE):
            held = [asyncio.ensure_future(streams.threaded(answers.wait)) for _ in range(streams.THREADS)]
            await asyncio.sleep(0)  # each has a thread now
            try:
                for _ in range(2):
                    with pytest.raises(Problem) as refused:
                        await streams.soon(len, "four")
                    assert (refused.value.status, refused.value.headers["Retry-After"]) == (503, "10")
            finally:
                answers.set()
            await asyncio.gather(*held)
            monkeypatch.setattr(streams, "ROOM_SECONDS", PATIENCE)
            assert await streams.soon(len, "four") == 4

    asyncio.run(stuck())
