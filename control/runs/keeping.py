"""Runs in the database: found, and shown as the API shows them."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, select
from sqlalchemy.ext.asyncio import AsyncSession

from control.api.problems import Unknown
from control.repositories.places import in_use
from control.repositories.tables import RepositoryRow
from control.runs.tables import MachineBackupRow, RunLineRow, RunRow
from model.wire.restores import Restore
from model.wire.runs import MachineBackup, Progress, Run, RunLogLine, RunProblem

LINES_MAX = 10_000  # of the log of one run, and as many problems; more are only counted
FINAL = frozenset({"success", "partial", "failed", "cancelled", "skipped"})


async def run_row(session: AsyncSession, tenant: UUID, uuid: UUID, kind: str | None = None) -> RunRow:
    """The run. Raises Unknown, also for one of another tenant."""
    wanted = select(RunRow).where(RunRow.tenant_id == tenant, RunRow.uuid == uuid)
    if kind is not None:
        wanted = wanted.where(RunRow.kind == kind)
    row = await session.scalar(wanted)
    if row is None:
        raise Unknown(kind or "run")
    return row


def reachable() -> ColumnElement[bool]:
    """The condition that the repository of a machine backup was not removed."""
    return MachineBackupRow.repository_uuid.in_(select(RepositoryRow.uuid).where(in_use()))


async def backup_row(session: AsyncSession, tenant: UUID, uuid: UUID) -> MachineBackupRow:
    """The machine backup. Raises Unknown, also for one of another tenant."""
    row = await session.scalar(
        select(MachineBackupRow).where(MachineBackupRow.tenant_id == tenant, MachineBackupRow.uuid == uuid, reachable())
    )
    if row is None:
        raise Unknown("machine backup")
    return row


def run_fields(row: RunRow) -> dict[str, Any]:
    """What `Run` is made of."""
    return {name: getattr(row, name) for name in Run.model_fields}


def run_of(row: RunRow, progress: Progress | None = None) -> Run:
    """The run as the API shows it. `progress` is newer than what was written."""
    shown = run_fields(row)
    return Run.model_validate(shown if progress is None else {**shown, "progress": progress})


def restore_of(row: RunRow) -> Restore:
    """A run of kind restore, with what was asked of it."""
    return Restore.model_validate({**run_fields(row), **(row.request or {}), "repository_uuid": row.repository_uuid})


def log_line_of(row: RunLineRow) -> RunLogLine:
    """A line of the log."""
    return RunLogLine(sequence=row.sequence, time=row.time, level=row.level, text=row.text)


def problem_of(row: RunLineRow) -> RunProblem:
    """A problem with one entry."""
    return RunProblem(sequence=row.sequence, time=row.time, path=row.path or "", path_b64=row.path_b64, text=row.text)


def backup_of(row: MachineBackupRow) -> MachineBackup:
    """The machine backup as the API shows it."""
    return MachineBackup.model_validate({name: getattr(row, name) for name in MachineBackup.model_fields})
