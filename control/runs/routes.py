"""Routes: /api/v1/runs and /api/v1/machine-backups."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import select

from control.api.call import Call
from control.api.problems import Conflict
from control.api.routes import Routes
from control.db.base import now
from control.fleet.commands import RUN, Wakes, enqueue
from control.pages import ListQuery, page
from control.runs.keeping import FINAL, backup_of, backup_row, log_line_of, problem_of, reachable, run_of, run_row
from control.runs.live import Live
from control.runs.stream import stream_run
from control.runs.tables import MachineBackupRow, RunLineRow, RunRow
from model.wire.base import Page
from model.wire.commands import CancelRun
from model.wire.runs import MachineBackup, Run, RunKind, RunLogLine, RunProblem, RunStatus

routes = Routes()


class RunQuery(ListQuery):
    """Which runs."""

    agent: UUID | None = None
    job: UUID | None = None
    status: RunStatus | None = None
    kind: RunKind | None = None


class BackupQuery(ListQuery):
    """Which machine backups."""

    agent: UUID | None = None
    job: UUID | None = None
    repository: UUID | None = None


class LinesQuery(BaseModel):
    """Lines after one of them, oldest first."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    limit: int = Field(500, ge=1, le=5_000)
    cursor: int = Field(0, ge=0, le=1 << 53)


@routes.add("GET", "/api/v1/runs", scope="runs:read", query=RunQuery, returns={200: Page[Run]})
async def list_runs(call: Call) -> Page[Run]:
    """List runs, newest first."""
    query = call.query(RunQuery)
    wanted = select(RunRow).where(RunRow.tenant_id == call.tenant)
    for column, value in (
        (RunRow.agent_uuid, query.agent), (RunRow.job_uuid, query.job), (RunRow.status, query.status),
        (RunRow.kind, query.kind),
    ):  # fmt: skip
        if value is not None:
            wanted = wanted.where(column == value)
    async with call.reading() as session:
        return await page(session, wanted, (RunRow.created_at, RunRow.uuid), query, Page[Run], run_of)


@routes.add("GET", "/api/v1/runs/{run_uuid}", scope="runs:read", returns={200: Run})
async def show(call: Call) -> Run:
    """Show a run, with its newest progress."""
    async with call.reading() as session:
        row = await run_row(session, call.tenant, call.uuid("run_uuid"))
    return run_of(row, call.services.part(Live).progress(row.uuid, row.sequence))


@routes.add("GET", "/api/v1/runs/{run_uuid}/log", scope="runs:read", query=LinesQuery, returns={200: Page[RunLogLine]})
async def log(call: Call) -> Page[RunLogLine]:
    """The log of a run, oldest line first."""
    rows, cursor = await _lines(call, "log")
    return Page[RunLogLine](items=[log_line_of(row) for row in rows], next=cursor)


@routes.add(
    "GET", "/api/v1/runs/{run_uuid}/problems", scope="runs:read", query=LinesQuery, returns={200: Page[RunProblem]}
)
async def problems(call: Call) -> Page[RunProblem]:
    """Entries that a run had trouble with."""
    rows, cursor = await _lines(call, "problem")
    return Page[RunProblem](items=[problem_of(row) for row in rows], next=cursor)


async def _lines(call: Call, kind: str) -> tuple[list[RunLineRow], str | None]:
    query = call.query(LinesQuery)
    async with call.reading() as session:
        run = await run_row(session, call.tenant, call.uuid("run_uuid"))
        wanted = select(RunLineRow).where(RunLineRow.run_uuid == run.uuid, RunLineRow.kind == kind)
        wanted = wanted.where(RunLineRow.sequence > query.cursor).order_by(RunLineRow.sequence)
        rows = list((await session.scalars(wanted.limit(query.limit + 1))).all())
    shown = rows[: query.limit]
    return shown, str(shown[-1].sequence) if len(rows) > query.limit else None


@routes.add("POST", "/api/v1/runs/{run_uuid}/cancel", scope="jobs:run", returns={202: Run}, audit="run.cancel")
async def cancel(call: Call) -> Run:
    """Cancel a run: its agent ends it as soon as it hears of it. What was stored is used by the next run."""
    async with call.transaction() as session:
        row = await run_row(session, call.tenant, call.uuid("run_uuid"))
        if row.status in FINAL:
            raise Conflict(f"this run is over: {row.status}")
        row.cancel_requested = True
        if row.status == "lost":
            row.status, row.finished_at = "cancelled", now()
        await enqueue(session, row.agent_uuid, CancelRun(run_uuid=row.uuid), RUN)
    call.services.part(Wakes).wake(row.agent_uuid)
    call.services.part(Live).forget(row.uuid)
    call.services.part(Live).changed(row.uuid)
    return run_of(row)


@routes.add("GET", "/api/v1/runs/{run_uuid}/events", scope="runs:read", returns={200: None, 204: None})
async def events(call: Call) -> web.StreamResponse:
    """Watch a run: server-sent events ``run``, ``log`` and ``problem``, which Last-Event-ID resumes."""
    return await stream_run(call, call.uuid("run_uuid"))


@routes.add("GET", "/api/v1/machine-backups", scope="runs:read", query=BackupQuery, returns={200: Page[MachineBackup]})
async def list_backups(call: Call) -> Page[MachineBackup]:
    """List machine backups, newest first."""
    query = call.query(BackupQuery)
    wanted = select(MachineBackupRow).where(MachineBackupRow.tenant_id == call.tenant, reachable())
    asked: tuple[tuple[Any, UUID | None], ...] = (
        (MachineBackupRow.agent_uuid, query.agent), (MachineBackupRow.job_uuid, query.job),
        (MachineBackupRow.repository_uuid, query.repository),
    )  # fmt: skip
    for column, value in asked:
        if value is not None:
            wanted = wanted.where(column == value)
    order = (MachineBackupRow.time, MachineBackupRow.uuid)
    async with call.reading() as session:
        return await page(session, wanted, order, query, Page[MachineBackup], backup_of)


@routes.add("GET", "/api/v1/machine-backups/{backup_uuid}", scope="runs:read", returns={200: MachineBackup})
async def show_backup(call: Call) -> MachineBackup:
    """Show a machine backup."""
    async with call.reading() as session:
        return backup_of(await backup_row(session, call.tenant, call.uuid("backup_uuid")))
