"""Jobs in the database: how fields become rows and rows what the API and agents are told."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from control.api.problems import Unknown
from control.db.base import now
from control.jobs.schedule import next_time
from control.jobs.tables import JobRow
from model.wire.jobs import Job, JobFields
from model.wire.policy import PolicyJob

LATE = timedelta(minutes=15)  # how long after its time, and its jitter, a run may begin before the job is overdue
COLUMNS = ("name", "repository_uuid")
TIMES = ("schedule_cron", "timezone", "jitter_seconds", "enabled")


async def job_row(session: AsyncSession, tenant: UUID, uuid: UUID, *, lock: bool = False) -> JobRow:
    """The job; with `lock` as it stays to the end of the transaction. Raises Unknown, also for another tenant's."""
    wanted = select(JobRow).where(JobRow.tenant_id == tenant, JobRow.uuid == uuid)
    if lock:
        wanted = wanted.with_for_update().execution_options(populate_existing=True)
    row = await session.scalar(wanted)
    if row is None:
        raise Unknown("job")
    return row


def put_fields(row: JobRow, fields: JobFields) -> bool:
    """Make `row` hold `fields`. Returns whether its times are others now, and it was reckoned anew when it is due."""
    before = row.fields or {}
    held = {name: getattr(fields, name) for name in COLUMNS}
    for name, value in held.items():
        setattr(row, name, value)
    whole = fields.model_dump(mode="json", include=set(JobFields.model_fields) - set(COLUMNS))
    row.fields = whole
    row.updated_at = now()
    changed = any(before.get(name) != whole[name] for name in TIMES)
    if changed:
        row.due_at, row.overdue = due_after(fields, row.updated_at), False
    return changed


def fields_of(row: JobRow) -> dict[str, Any]:
    """The fields of a job, by name."""
    return {**row.fields, **{name: getattr(row, name) for name in COLUMNS}}


def due_after(fields: JobFields, moment: datetime) -> datetime | None:
    """By when the first scheduled run after `moment` must have begun; None without a schedule."""
    time = next_run(fields, moment)
    return None if time is None else time + timedelta(seconds=fields.jitter_seconds) + LATE


def next_run(fields: JobFields, moment: datetime) -> datetime | None:
    """The first scheduled time after `moment`."""
    if fields.schedule_cron is None or not fields.enabled:
        return None
    return next_time(fields.schedule_cron, fields.timezone, moment)


def job_fields(row: JobRow) -> JobFields:
    """What the job says of its work."""
    return JobFields.model_validate(fields_of(row))


def job_of(row: JobRow) -> Job:
    """The job as the API shows it."""
    return Job.model_validate(
        {
            **fields_of(row),
            "uuid": row.uuid,
            "agent_uuid": row.agent_uuid,
            "created_at": row.created_at,
            "updated_at": row.updated_at,
            "next_run_at": next_run(job_fields(row), now()),
            "last_run_uuid": row.last_run_uuid,
            "last_run_status": row.last_run_status,
            "last_run_at": row.last_run_at,
            "overdue": row.overdue,
        }
    )


def policy_job(row: JobRow, repository: UUID) -> PolicyJob:
    """The job as its agent is told of it."""
    return PolicyJob.model_validate({**fields_of(row), "uuid": row.uuid, "repository_uuid": repository})
