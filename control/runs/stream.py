"""A run as server-sent events: what there is already, then what comes, until the run is over."""

from __future__ import annotations

import asyncio
import time
from uuid import UUID

from aiohttp import web
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from control.api.call import Call
from control.api.problems import Invalid
from control.runs.keeping import FINAL, log_line_of, problem_of, run_of, run_row
from control.runs.live import Live
from control.runs.tables import RunLineRow, RunRow

BATCH = 500  # lines that are sent together
QUIET_SECONDS = 15.0  # then a comment keeps the connection open
HEADERS = {"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}


async def stream_run(call: Call, run: UUID) -> web.StreamResponse:
    """Send a run to a watcher. Raises Unknown, and Invalid for a Last-Event-ID that is not a number."""
    live, last = call.services.part(Live), _last_seen(call)
    event = live.watch(run)
    try:
        async with call.reading() as session:
            row = await run_row(session, call.tenant, run)
        if last is not None and row.status in FINAL and row.sequence <= last:
            return web.Response(status=204)  # tells a browser not to come again
        response = web.StreamResponse(headers=HEADERS)
        await response.prepare(call.request)
        await _send(call, response, run, last or 0, live, event)
        return response
    finally:
        live.leave(run, event)


def _last_seen(call: Call) -> int | None:
    given = call.request.headers.get("Last-Event-ID")
    if given is None:
        return None
    if not given.isascii() or not given.isdigit() or len(given) > 16:
        raise Invalid("Last-Event-ID", "this is not an id that this stream gave")
    return int(given)


async def _send(
    call: Call, response: web.StreamResponse, run: UUID, last: int, live: Live, event: asyncio.Event
) -> None:
    shown, spoke = "", time.monotonic()
    while True:
        async with call.reading() as session:
            row = await run_row(session, call.tenant, run)
            lines, more = await _lines(session, row, last)
        now = run_of(row, live.progress(run, row.sequence)).model_dump_json()
        text = "".join(map(_line_text, lines))
        if lines:
            last = lines[-1].sequence
        if not more and now != shown:
            last, shown = max(last, row.sequence), now
            text += f"id: {last}\nevent: run\ndata: {now}\n\n"
        if not text and time.monotonic() - spoke > QUIET_SECONDS:
            text = ": still here\n\n"
        if text:
            await response.write(text.encode())
            spoke = time.monotonic()
        if more:
            continue
        if row.status in FINAL or call.services.stopping.is_set():
            return
        await live.next(event)


async def _lines(session: AsyncSession, row: RunRow, last: int) -> tuple[list[RunLineRow], bool]:
    wanted = select(RunLineRow).where(RunLineRow.run_uuid == row.uuid, RunLineRow.sequence > last)
    rows = list((await session.scalars(wanted.order_by(RunLineRow.sequence).limit(BATCH + 1))).all())
    return rows[:BATCH], len(rows) > BATCH


def _line_text(row: RunLineRow) -> str:
    shown = problem_of(row) if row.kind == "problem" else log_line_of(row)
    return f"id: {row.sequence}\nevent: {row.kind}\ndata: {shown.model_dump_json()}\n\n"
