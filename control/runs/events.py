"""Taking in what agents report of runs: each event once, in order, whatever is sent again."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from uuid import UUID

from sqlalchemy import delete, exists, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from control.alerts.raising import resolve_alerts
from control.api.problems import Unknown
from control.db.base import new_id, now
from control.fleet.tables import AgentRow
from control.jobs.keeping import due_after, job_fields
from control.jobs.tables import JobRow
from control.repositories.maintenance import note_end
from control.repositories.places import default_repository
from control.runs.findings import note_findings
from control.runs.keeping import FINAL, LINES_MAX
from control.runs.tables import MachineBackupRow, RunLineRow, RunRow
from model.wire.runs import EventsIn, EventsOut, Finished, LogLine, Problem, Progress, RunEvent, Started


async def take_events(session: AsyncSession, agent: UUID, tenant: UUID, run: UUID, body: EventsIn) -> EventsOut:
    """Take in events of a run of `agent`. Raises Unknown for a run of another, and for one that never started."""
    row = await session.scalar(select(RunRow).where(RunRow.uuid == run).with_for_update())
    if row is None:
        row = await _new_run(session, agent, tenant, run, body.events[0])
    elif row.agent_uuid != agent:
        raise Unknown("run")
    fresh = [event for event in body.events if event.sequence > row.sequence]
    for event in fresh:
        await _apply(session, row, event)
        row.sequence = event.sequence
    row.heard_at = now()
    return EventsOut(taken=row.sequence, cancel=row.cancel_requested and row.status not in FINAL)


async def _new_run(session: AsyncSession, agent: UUID, tenant: UUID, run: UUID, first: RunEvent) -> RunRow:
    """A run that the agent's own schedule began."""
    if not isinstance(first, Started):
        raise Unknown("run")
    job = None
    if first.job_uuid is not None:
        job = await session.scalar(select(JobRow).where(JobRow.uuid == first.job_uuid, JobRow.agent_uuid == agent))
    row = RunRow(
        uuid=run, tenant_id=tenant, agent_uuid=agent, kind=first.kind, status="queued", trigger=first.trigger,
        job_uuid=job.uuid if job else None, job_name=job.name if job else None,
        repository_uuid=await _repository(session, job), sequence=0, problems=0, log_lines=0, cancel_requested=False,
        attempt=first.attempt,
    )  # fmt: skip
    session.add(row)
    await session.flush()
    return row


async def _repository(session: AsyncSession, job: JobRow | None) -> UUID | None:
    if job is None or job.repository_uuid is not None:
        return job.repository_uuid if job else None
    default = await default_repository(session, job.tenant_id)
    return default.uuid if default else None


async def _apply(session: AsyncSession, row: RunRow, event: RunEvent) -> None:
    match event:
        case Started():
            await _start(session, row, event)
        case Progress():
            row.progress = event.model_dump(mode="json")
            _live(row)
        case LogLine():
            row.log_lines += 1
            if row.log_lines <= LINES_MAX:
                session.add(_line(row, event.sequence, event.time, "log", event.text, level=event.level))
        case Problem():
            row.problems += 1
            if row.problems <= LINES_MAX:
                line = _line(row, event.sequence, event.time, "problem", event.text, level="warn")
                line.path, line.path_b64 = event.path, event.path_b64
                session.add(line)
        case Finished():
            await _finish(session, row, event)


def _line(row: RunRow, sequence: int, time: datetime, kind: str, text: str, *, level: str) -> RunLineRow:
    return RunLineRow(
        run_uuid=row.uuid, sequence=sequence, tenant_id=row.tenant_id, kind=kind, time=time, level=level, text=text
    )


def _live(row: RunRow) -> None:
    """It runs: also one that was given up for lost, and turns out to have gone on."""
    if row.status in ("queued", "lost"):
        row.status, row.finished_at = "running", None


async def _start(session: AsyncSession, row: RunRow, event: Started) -> None:
    _live(row)
    row.started_at = row.started_at or min(event.time, now())
    row.attempt, row.mode = event.attempt, event.mode or row.mode
    row.scheduled_for = event.scheduled_for or row.scheduled_for
    if row.job_uuid is None:
        return
    job = await session.get(JobRow, row.job_uuid)
    if job is not None:
        job.last_run_uuid, job.last_run_status, job.last_run_at = row.uuid, "running", row.started_at
        job.due_at, job.overdue = due_after(job_fields(job), now()), False
        await resolve_alerts(session, "overdue", job.uuid)


async def _finish(session: AsyncSession, row: RunRow, event: Finished) -> None:
    row.status, row.exit_code = event.status, event.exit_code
    row.finished_at = min(event.time, now())
    row.summary = event.summary.model_dump(mode="json")
    row.error = None if event.error is None else event.error.model_dump(mode="json")
    row.problems = max(row.problems, event.summary.problems)
    await resolve_alerts(session, "lost", row.uuid)
    if event.summary.forgotten and row.repository_uuid is not None and row.kind != "restore":
        await _forget(session, row.repository_uuid, event.summary.forgotten)
    if row.kind == "maintenance":
        await note_end(session, row, event)
        return
    if row.kind != "backup":
        await note_findings(session, row, event, None)
        return
    job = None if row.job_uuid is None else await session.get(JobRow, row.job_uuid)
    if job is not None:
        job.last_run_uuid, job.last_run_status, job.last_run_at = row.uuid, event.status, row.finished_at
    await note_findings(session, row, event, job)
    if event.summary.snapshot is not None and row.repository_uuid is not None:
        await _keep_backup(session, row, event)


async def _keep_backup(session: AsyncSession, row: RunRow, event: Finished) -> None:
    assert event.summary.snapshot is not None and row.repository_uuid is not None
    if await session.scalar(select(exists().where(MachineBackupRow.run_uuid == row.uuid))):
        return  # said before, under another number
    session.add(
        MachineBackupRow(
            uuid=new_id(), tenant_id=row.tenant_id, agent_uuid=row.agent_uuid, job_uuid=row.job_uuid, run_uuid=row.uuid,
            repository_uuid=row.repository_uuid, snapshot=event.summary.snapshot, time=row.finished_at or now(),
            complete=event.status == "success", files=event.summary.files, bytes=event.summary.bytes,
            bytes_stored=event.summary.bytes_stored,
        )
    )  # fmt: skip
    await session.flush()


async def _forget(session: AsyncSession, repository: UUID, snapshots: Iterable[str]) -> None:
    """Backups that retention let go. Only what this repository holds is touched, whoever reports it."""
    await session.execute(
        delete(MachineBackupRow).where(
            MachineBackupRow.repository_uuid == repository, MachineBackupRow.snapshot.in_(list(snapshots))
        )
    )


async def give_up(session: AsyncSession, row: RunRow, why: str) -> None:
    """A run of which nothing was heard for too long is lost, until something is heard of it after all."""
    row.status, row.finished_at = "lost", now()
    row.error = {"what": "nothing more was heard of this run", "subject": "", "why": why, "hint": ""}
    if row.job_uuid is not None:
        await session.execute(
            update(JobRow)
            .where(JobRow.uuid == row.job_uuid, JobRow.last_run_uuid == row.uuid)
            .values(last_run_status="lost")
        )


async def running_at(session: AsyncSession, agent: UUID, since: datetime) -> set[str]:
    """Ids of runs that the agent said are under way in its last heartbeat, if that came after `since`."""
    wanted = select(AgentRow.heartbeat).where(AgentRow.uuid == agent, AgentRow.last_heartbeat_at > since)
    said = await session.scalar(wanted)
    return set((said or {}).get("running", []))
