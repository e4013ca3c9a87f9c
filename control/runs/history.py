"""What is kept of runs: their log for some time, they themselves for longer, and as long as a backup of them is there.

Without it a server of two thousand hosts would grow by a million rows a year. Rows go a run at a time, and
others have their turn in between.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Select, delete, exists, select

from control.db.base import now
from control.runs.keeping import FINAL
from control.runs.tables import MachineBackupRow, RunLineRow, RunRow
from control.services import Services

LOOK_SECONDS = 3600.0
FIRST_SECONDS = 60.0  # after the server began, when all agents come at once
BATCH = 200  # runs at a time
PAUSE_SECONDS = 0.2
OVER = (*FINAL, "lost")


@asynccontextmanager
async def lead(services: Services) -> AsyncIterator[None]:
    """In one process: let old history go, now and then."""
    task = asyncio.create_task(_trimming(services))
    try:
        yield
    finally:  # it ends by itself, not in the middle of a query
        services.stopping.set()
        await task


async def _trimming(services: Services) -> None:
    wait = FIRST_SECONDS
    while True:
        with suppress(TimeoutError):
            await asyncio.wait_for(services.stopping.wait(), wait)
        if services.stopping.is_set():
            return
        wait = LOOK_SECONDS
        try:
            await trim(services)
        except Exception:  # nothing that people wait for depends on it; the next look goes on
            services.log.exception("old history could not be let go")


async def trim(services: Services) -> tuple[int, int]:
    """Let go what is too old: of how many runs the log, and how many runs."""
    logs, runs = services.settings.run_log_days, services.settings.run_days
    with_lines = exists().where(RunLineRow.run_uuid == RunRow.uuid)
    with_backup = exists().where(MachineBackupRow.run_uuid == RunRow.uuid)
    of_lines = await _gone(services, _older(logs).where(with_lines), lines_only=True)
    of_runs = await _gone(services, _older(runs).where(~with_backup), lines_only=False)
    if of_lines or of_runs:
        services.log.info("old history let go", logs=of_lines, runs=of_runs)
    return of_lines, of_runs


def _older(days: int) -> Select[Any]:
    before: datetime = now() - timedelta(days=days)
    return select(RunRow.uuid).where(RunRow.created_at < before, RunRow.status.in_(OVER)).limit(BATCH)


async def _gone(services: Services, wanted: Select[Any], lines_only: bool) -> int:
    count = 0
    while not services.stopping.is_set():
        async with services.sessions() as session:
            found = list((await session.scalars(wanted)).all())
        if not found:
            break
        for run in found:  # each may have twenty thousand lines
            async with services.sessions.begin() as session:
                await session.execute(delete(RunLineRow).where(RunLineRow.run_uuid == run))
        if not lines_only:
            async with services.sessions.begin() as session:
                await session.execute(delete(RunRow).where(RunRow.uuid.in_(found)))
        count += len(found)
        await asyncio.sleep(PAUSE_SECONDS)
    return count
