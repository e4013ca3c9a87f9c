"""Objects over HTTP, in pieces: whatever their size, a request holds a few MiB.

Files are read, written and hashed in threads, while the event loop goes on with others.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from email.utils import formatdate
from typing import TypeVar

from aiohttp import web

from control.api.bodies import write
from control.api.problems import Problem
from control.vault.shelf import Shelf
from control.vault.uploads import Upload, Wanted
from model.errors import StoreError

T = TypeVar("T")
BLOCK = 1 << 20  # bytes read, written and hashed at once
OBJECT_MAX = 4 << 30  # bytes
SILENCE = 60.0  # seconds without a byte from a client that is sending; less than clients wait for us
THREADS = 16
ROOM_SECONDS = 30.0  # that a request waits for a disk before it is let in
_DIGEST = re.compile(r"blake3=:([A-Za-z0-9+/]{43}=):")
_CONTENT_RANGE = re.compile(r"bytes (\d{1,16})-(\d{1,16})/(\d{1,16})")
_RANGE = re.compile(r"bytes=(\d{1,16})-(\d{0,16})")

_pool = ThreadPoolExecutor(THREADS, "vault")


async def threaded(work: Callable[..., T], *arguments: object) -> T:
    """The result of `work`, which blocks."""
    return await asyncio.get_running_loop().run_in_executor(_pool, lambda: work(*arguments))


async def soon(work: Callable[..., T], *arguments: object) -> T:
    """As `threaded`, for what nothing depends on yet. Raises Problem (503) if the disk, or who is before, is slow."""
    try:
        async with asyncio.timeout(ROOM_SECONDS):
            return await threaded(work, *arguments)
    except TimeoutError:
        raise Problem("the disk of the vault does not answer", status=503, kind="unavailable",
                      headers={"Retry-After": "10"}) from None  # fmt: skip


def wanted(request: web.Request, name: str) -> Wanted:
    """What a PUT announces. Raises Problem."""
    if request.headers.get("If-None-Match") != "*":
        detail = "objects are never overwritten: say so, with If-None-Match: *"
        raise Problem(detail, status=428, kind="precondition-required")
    found = _DIGEST.fullmatch(request.headers.get("Repr-Digest", ""))
    if found is None:
        raise Problem("Repr-Digest has to be blake3=:<base64>:")
    length = request.content_length
    if length is None:
        raise Problem("Content-Length is needed", status=411, kind="length-required")
    begin, size = _place(request.headers.get("Content-Range"), length)
    if size > OBJECT_MAX:
        raise Problem(f"objects have at most {OBJECT_MAX:,} bytes", status=413, kind="too-large")
    try:
        digest = base64.b64decode(found[1], validate=True)
    except binascii.Error as error:
        raise Problem("Repr-Digest is not base64") from error
    return Wanted(name, size, digest, begin)


def _place(text: str | None, length: int) -> tuple[int, int]:
    """Where the bytes that are sent begin, and the size of the object they end."""
    if text is None:
        return 0, length
    found = _CONTENT_RANGE.fullmatch(text)
    if found is None:
        raise Problem("Content-Range has to be bytes <first>-<last>/<size>")
    first, last, size = map(int, found.groups())
    if last + 1 != size or last + 1 - first != length:
        raise Problem("Content-Range has to go to the end of the object, and to be as long as the content")
    return first, size


async def received(request: web.Request, shelf: Shelf, want: Wanted) -> None:
    """Take in an object. Raises StoreError, after all that was sent is read: who sends hears an answer only then."""
    blocks = _blocks(request)
    try:
        upload = await threaded(shelf.begin, want)
    except StoreError:
        await _passed_over(blocks)
        raise
    try:
        await _written(blocks, shelf, want, upload)
    except StoreError:  # the disk is full, or does not work: what came is given up, to make room
        await asyncio.shield(threaded(upload.close))
        await _passed_over(blocks)
        raise
    except BaseException:  # the connection broke, or the server stops
        await asyncio.shield(threaded(shelf.abandon, want, upload))
        raise
    await threaded(shelf.finish, want, upload)


async def _passed_over(blocks: AsyncIterator[list[bytes]]) -> None:
    """Read the rest."""
    async for _ in blocks:
        pass


async def _written(blocks: AsyncIterator[list[bytes]], shelf: Shelf, want: Wanted, upload: Upload) -> None:
    """One block is on its way to the disk while the next comes in."""
    pending: asyncio.Future[None] | None = None
    try:
        async for block in blocks:
            if pending is not None:
                await pending
            pending = asyncio.ensure_future(threaded(shelf.write, want, upload, block))
        if pending is not None:
            await pending
    finally:
        if pending is not None and not pending.done():
            await asyncio.wait([pending])


async def _blocks(request: web.Request) -> AsyncIterator[list[bytes]]:
    """What comes in; also the last of it before the connection broke."""
    parts, size = list[bytes](), 0
    while True:
        try:
            async with asyncio.timeout(SILENCE):
                part = await request.content.readany()
        except (OSError, TimeoutError):
            if parts:
                yield parts
            raise
        if not part:
            break
        parts.append(part)
        size += len(part)
        if size >= BLOCK:
            yield parts
            parts, size = [], 0
    if parts:
        yield parts


@dataclass(frozen=True, slots=True)
class Span:
    """Which bytes of an object an answer has."""

    begin: int
    end: int
    size: int
    part: bool  # it was asked for a range


def span(request: web.Request, size: int) -> Span:
    """What a GET asks for of an object of `size` bytes. Raises Problem with 416 if there is none of it."""
    text = request.headers.get("Range")
    if text is None:
        return Span(0, size, size, False)
    found = _RANGE.fullmatch(text)
    if found is None:
        raise Problem("Range has to be bytes=<first>-<last>, of one range")
    begin, end = int(found[1]), min(size, int(found[2]) + 1 if found[2] else size)
    if begin >= end:
        raise Problem(f"the object has {size} bytes", status=416, kind="range")
    return Span(begin, end, size, True)


def headers_of(size: int, written: int) -> dict[str, str]:
    """What is said of an object: `size` in bytes, `written` in ns since the epoch."""
    return {
        "Content-Length": str(size),
        "Content-Type": "application/octet-stream",
        "Accept-Ranges": "bytes",
        "Last-Modified": formatdate(written // 10**9, usegmt=True),
    }


async def sent(request: web.Request, shelf: Shelf, name: str, written: int, part: Span) -> web.StreamResponse:
    """Answer with the bytes of an object."""
    headers = headers_of(part.end - part.begin, written)
    if part.part:
        headers["Content-Range"] = f"bytes {part.begin}-{part.end - 1}/{part.size}"
    status = 206 if part.part else 200
    first = await threaded(shelf.objects.get, name, part.begin, min(BLOCK, part.end - part.begin))
    if len(first) == part.end - part.begin:
        return web.Response(status=status, headers=headers, body=first)
    response = web.StreamResponse(status=status, headers=headers)
    await response.prepare(request)
    await write(response, first)
    for at in range(part.begin + len(first), part.end, BLOCK):
        await write(response, await threaded(shelf.objects.get, name, at, min(BLOCK, part.end - at)))
    await response.write_eof()
    return response
