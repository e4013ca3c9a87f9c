"""Exchanges: what a caller asks of an agent comes back as a stream, through whichever server process the agent reached.

The process that holds the caller's request listens on a socket named after the exchange, and the request that brings
the agent's stream connects to it. Nothing is stored, and each side waits for the other: a slow caller slows the agent.
Frames carry a length, so that a stream that broke off is never taken for one that ended.
"""

from __future__ import annotations

import asyncio
import json
import os
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from aiohttp import StreamReader

FIRST_SECONDS = 60.0  # until an agent begins to answer
IDLE_SECONDS = 120.0  # between two pieces
ALL_SECONDS = 600.0  # of an answer that is looked at only as a whole
PIECE = 256 << 10  # bytes of one frame, and of what waits in a buffer
HEAD_MAX = 4096
_LENGTH = struct.Struct(">I")
_PATH_MAX = 100  # bytes of the address of a socket: 107 on Linux


class ExchangeFailed(Exception):
    """There is no stream, or it broke off. `why` is for the caller."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class ExchangeGone(Exception):
    """Nobody waits for this stream: the caller left, or it was never asked for."""


@dataclass(frozen=True, slots=True)
class Head:
    """Whose stream it is, and of what type."""

    agent_uuid: UUID
    content_type: str


class Reply:
    """A stream as it comes in. Iterate over `pieces` to its end."""

    def __init__(self, head: Head, reader: asyncio.StreamReader) -> None:
        self.head = head
        self._reader = reader

    async def pieces(self) -> AsyncIterator[bytes]:
        """Bytes, in the order in which they were sent. Raises ExchangeFailed if the stream breaks off."""
        while piece := await _frame(self._reader):
            yield piece

    async def everything(self, most: int) -> bytes:
        """All bytes. Raises ExchangeFailed if the stream breaks off, is longer than `most`, or does not end."""
        data = bytearray()
        try:
            async with asyncio.timeout(ALL_SECONDS):
                async for piece in self.pieces():
                    data += piece
                    if len(data) > most:
                        raise ExchangeFailed("the agent's answer is too long")
        except TimeoutError as error:
            raise ExchangeFailed(f"the agent's answer did not end within {ALL_SECONDS:.0f} s") from error
        return bytes(data)


async def _frame(reader: asyncio.StreamReader) -> bytes:
    try:
        async with asyncio.timeout(IDLE_SECONDS):
            (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
            if length > PIECE:
                raise ExchangeFailed("the stream from the agent is damaged")
            return await reader.readexactly(length)
    except TimeoutError as error:
        raise ExchangeFailed(f"nothing came from the agent for {IDLE_SECONDS:.0f} s") from error
    except (asyncio.IncompleteReadError, OSError) as error:
        raise ExchangeFailed("the stream from the agent broke off") from error


class Waiting:
    """The caller's side before there is an answer."""

    def __init__(self, uuid: UUID, agent_uuid: UUID) -> None:
        self.uuid = uuid
        self._agent = agent_uuid
        self._reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self.writers: list[asyncio.StreamWriter] = []

    async def reply(self, seconds: float = FIRST_SECONDS) -> Reply:
        """The answer, as soon as it begins. Raises ExchangeFailed if none comes within `seconds`."""
        try:
            return await asyncio.wait_for(asyncio.shield(self._reply), seconds)
        except TimeoutError as error:
            raise ExchangeFailed(f"the agent did not answer within {seconds:.0f} s") from error

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Somebody brings a stream; it is taken if it is the first one of the right agent."""
        self.writers.append(writer)
        with suppress(OSError, ValueError, KeyError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            said = json.loads(await reader.readuntil(b"\n"))
            head = Head(UUID(said["agent_uuid"]), str(said["content_type"]))
            if head.agent_uuid == self._agent and not self._reply.done():  # the first answer counts
                writer.write(b"+")
                await writer.drain()
                self._reply.set_result(Reply(head, reader))
                return
        writer.close()


@asynccontextmanager
async def waiting(folder: Path, uuid: UUID, agent_uuid: UUID) -> AsyncIterator[Waiting]:
    """Be there for the answer of an agent to exchange `uuid`. Leaving tells the agent that nobody listens any more."""
    wait = Waiting(uuid, agent_uuid)
    path = folder / f"{uuid}.sock"
    with _address(path) as address:
        server = await asyncio.start_unix_server(wait.connected, address, limit=PIECE)
    path.chmod(0o600)
    try:
        yield wait
    finally:
        path.unlink(missing_ok=True)
        server.close()
        for writer in wait.writers:
            writer.transport.abort()


class Sending:
    """The agent's side: `send` pieces, then `end`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def send(self, data: bytes) -> None:
        """Pass on `data`, as fast as the caller takes it. Raises ExchangeGone if it left."""
        for begin in range(0, len(data), PIECE):
            piece = data[begin : begin + PIECE]
            await self._write(_LENGTH.pack(len(piece)) + piece)

    async def end(self) -> None:
        """Say that this was all. Raises ExchangeGone if it left before."""
        await self._write(_LENGTH.pack(0))

    async def _write(self, data: bytes) -> None:
        try:
            self._writer.write(data)
            async with asyncio.timeout(IDLE_SECONDS):
                await self._writer.drain()
        except (OSError, TimeoutError) as error:
            raise ExchangeGone from error


@asynccontextmanager
async def sending(folder: Path, uuid: UUID, head: Head) -> AsyncIterator[Sending]:
    """Bring a stream to who waits for exchange `uuid`. Raises ExchangeGone if nobody does, or not for this agent."""
    try:
        with _address(folder / f"{uuid}.sock") as address:
            reader, writer = await asyncio.open_unix_connection(address, limit=PIECE)
    except OSError as error:
        raise ExchangeGone from error
    try:
        said = {"agent_uuid": str(head.agent_uuid), "content_type": head.content_type}
        writer.write(json.dumps(said).encode("ascii")[:HEAD_MAX] + b"\n")
        with suppress(OSError):
            await writer.drain()
        async with asyncio.timeout(FIRST_SECONDS):
            if await reader.read(1) != b"+":
                raise ExchangeGone
        yield Sending(reader, writer)
    except (OSError, TimeoutError) as error:
        raise ExchangeGone from error
    finally:
        writer.close()


async def pieces_of(content: StreamReader) -> AsyncIterator[bytes]:
    """What an agent sends. Raises TimeoutError if it says nothing for so long that who waited has left."""
    while True:
        async with asyncio.timeout(IDLE_SECONDS):
            piece = await content.readany()
        if not piece:
            return
        yield piece


class _address:
    """The address of a socket, through a descriptor of its folder where the path is too long for one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1

    def __enter__(self) -> str:
        if len(os.fsencode(self._path)) <= _PATH_MAX:
            return str(self._path)
        self._fd = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        return f"/proc/self/fd/{self._fd}/{self._path.name}"

    def __exit__(self, *_: object) -> None:
        if self._fd >= 0:
            os.close(self._fd)
