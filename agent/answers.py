"""Questions of the server that wait for an answer: what a snapshot holds, its content, what a backup would read.

`lox` answers; what it says is passed on as it comes, so that neither side holds more than a piece of it.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import AsyncGenerator, AsyncIterator

from agent import lines
from agent.child import Child, Ended
from agent.host import Host, place_of
from agent.repositories import Place, trouble_of
from agent.server import Server
from agent.telling import clipped
from model.errors import LoxError, UsageError
from model.wire.commands import BrowseCommand, DownloadCommand, EstimateCommand
from model.wire.jobs import Estimate
from model.wire.restores import Entry

LINES, PROBLEM = "application/x-ndjson", "application/problem+json"
_SPECIAL = re.compile(r"[*?\[]")
KINDS = {"tar": "application/x-tar", "zip": "application/zip", "raw": "application/octet-stream"}


async def browse(host: Host, asked: BrowseCommand) -> AsyncGenerator[bytes, None]:
    """`Entry` lines. Raises RunFailed and the like before the first, or after the last if not all could be had."""
    place = place_of(asked.repository)
    host.repositories.require(place)
    if asked.pattern is None:
        line = ["--json", "ls", "--", asked.snapshot, asked.path]
    else:
        below = asked.pattern if asked.pattern.startswith("/") else f"**/{asked.pattern}"
        folder = _SPECIAL.sub(r"[\g<0>]", asked.path.rstrip("/"))  # the name of a folder is no pattern
        glob = folder + "/" + below.lstrip("/") if folder else asked.pattern
        line = ["--json", "find", "--snapshot", asked.snapshot, "--", glob]
    count = 0
    async with contextlib.aclosing(_lines(host, place, line)) as texts:
        async for text in texts:
            found = json.loads(text)
            if found.get("type") not in ("entry", "match"):
                continue
            yield entry_of(found).model_dump_json(exclude_none=True).encode() + b"\n"
            count += 1
            if count >= asked.limit:
                return


def entry_of(found: dict[str, object]) -> Entry:
    """An entry as `lox` tells it, in the words of the server."""
    exact = found.get("path_b64")
    fields = {
        "path": found["path"],
        "path_b64": exact,
        "kind": found["kind"],
        "bytes": found["size"],
        "mode": int(str(found["mode"]), 8),
        "user": found["user"],
        "group": found["group"],
        "modified_at": _whole_seconds(found.get("mtime")),
        "target": found.get("target"),
    }
    return Entry.model_validate(fields)


def _whole_seconds(text: object) -> str | None:
    """RFC 3339 without the nanoseconds, which no datetime holds."""
    return f"{text[:19]}Z" if isinstance(text, str) else None


async def download(host: Host, asked: DownloadCommand) -> AsyncGenerator[bytes, None]:
    """Content of files and folders, as an archive or, of one file, as it is."""
    place = place_of(asked.repository)
    host.repositories.require(place)
    archive = [] if asked.format == "raw" else ["--archive", asked.format]
    if asked.format == "raw" and len(asked.paths) != 1:
        raise UsageError("raw is the content of one file", hint="ask for tar or zip")
    line = ["--json", "dump", *archive, "--", asked.snapshot, *asked.paths]
    async with contextlib.aclosing(_content(host, place, line)) as pieces:
        async for piece in pieces:
            yield piece


async def estimate(host: Host, asked: EstimateCommand) -> AsyncGenerator[bytes, None]:
    """One `Estimate`: what a backup of the job would read now, by a dry run of it."""
    place, job = place_of(asked.repository), asked.job
    lines.refuse_impossible(job, place.encrypted)
    await host.repositories.prepare(place)
    there = [path for path in job.source_paths if os.path.lexists(path)]
    missing = [clipped(path) for path in job.source_paths if path not in there]
    if not there:
        yield Estimate(files=0, bytes=0, missing_paths=missing).model_dump_json().encode()
        return
    child = Child(lines.estimate(job, there), host.repositories.environment(place))
    await child.start()
    ended = await child.finish()
    if not ended.good:
        raise trouble_of(ended, "cannot estimate the backup", place)
    found = ended.summary
    yield (
        Estimate(
            files=found["files"],
            bytes=found["bytes_total"],
            files_new=found["files_new"] + found["files_changed"],
            bytes_new=found["bytes_new"],
            problems=found["problems"],
            missing_paths=missing,
            seconds=found["seconds"],
        )
        .model_dump_json()
        .encode()
    )


async def _content(host: Host, place: Place, line: list[str]) -> AsyncGenerator[bytes, None]:
    child, ended = Child(line, host.repositories.environment(place)), Ended(0)
    await child.start()
    async with contextlib.aclosing(child.data(ended)) as pieces:
        async for piece in pieces:
            yield piece
    if not ended.good:
        raise trouble_of(ended, "cannot read the snapshot", place)


async def _lines(host: Host, place: Place, line: list[str]) -> AsyncGenerator[bytes, None]:
    held = b""
    async with contextlib.aclosing(_content(host, place, line)) as pieces:
        async for piece in pieces:
            *whole, held = (held + piece).split(b"\n")
            for text in whole:
                if text:
                    yield text


async def send(host: Host, server: Server, asked: BrowseCommand | DownloadCommand | EstimateCommand) -> None:
    """Answer a question into its exchange; trouble before the first byte is the answer. Raises LoxError."""
    if isinstance(asked, BrowseCommand):
        pieces, kind = browse(host, asked), LINES
    elif isinstance(asked, DownloadCommand):
        pieces, kind = download(host, asked), KINDS[asked.format]
    else:
        pieces, kind = estimate(host, asked), "application/json"
    async with contextlib.aclosing(pieces):
        try:
            first = await anext(pieces, b"")
        except LoxError as error:
            await server.exchange(asked.exchange_uuid, _once(_problem(error)), PROBLEM)
            raise
        await server.exchange(asked.exchange_uuid, _chained(first, pieces), kind)


def _problem(error: LoxError) -> bytes:
    """RFC 9457."""
    detail = error.why + (f" ({error.hint})" if error.hint else "")
    return json.dumps({"title": str(error.what), "detail": clipped(detail), "status": 422}).encode()


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def _chained(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    if first:
        yield first
    async for piece in rest:
        yield piece
