"""What is looked at from time to time, by one process: who went offline, what is overdue, which runs are lost."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from control.alerts.raising import raise_alert
from control.db.base import now
from control.fleet.commands import RUN, expire
from control.fleet.heartbeats import note_offline
from control.fleet.tables import AgentRow
from control.jobs.tables import JobRow
from control.repositories.maintenance import ask_due
from control.runs.events import give_up, running_at
from control.runs.tables import RunRow
from control.services import Services
from model.wire.agents import OFFLINE_SECONDS

LOOK_SECONDS = 15.0
SILENT = timedelta(minutes=15)  # a run that says nothing for so long, and that its agent does not know of, is lost


async def watch(services: Services, begin: float = OFFLINE_SECONDS) -> None:
    """For ever. Begins after `begin` seconds: what a server missed while it was down is told to it first."""
    await asyncio.sleep(begin)
    while True:
        try:
            async with services.sessions.begin() as session:
                await look(session)
            await ask_due(services)
        except Exception:  # the next look may go better; nothing that people wait for depends on this one
            services.log.exception("looking after the fleet failed")
        await asyncio.sleep(LOOK_SECONDS)


async def look(session: AsyncSession) -> None:
    """Look once. Runs are held before jobs, and these before agents: as who reports a run, or changes a job, does."""
    await note_lost(session)
    await note_overdue(session)
    await note_offline(session)
    await expire(session, now())


async def note_overdue(session: AsyncSession) -> None:
    """Raise an alert for each job whose scheduled run did not begin in time. Jobs of paused agents are not due."""
    late = await session.execute(
        select(JobRow, AgentRow.name)
        .join(AgentRow, AgentRow.uuid == JobRow.agent_uuid)
        .where(JobRow.due_at < now(), JobRow.overdue.is_(False))
        .where(AgentRow.paused.is_(False), AgentRow.revoked.is_(False))
    )
    for job, agent in late:
        job.overdue = True
        text = f"{job.name} was to run on {agent} before {job.due_at:%Y-%m-%d %H:%M} UTC, and did not"
        await raise_alert(
            session, job.tenant_id, "overdue", job.uuid, text, severity="critical", agent=job.agent_uuid, job=job.uuid
        )


async def note_lost(session: AsyncSession) -> None:
    """Give up runs of which nothing is heard any more."""
    since = now() - SILENT
    silent = await session.scalars(select(RunRow).where(RunRow.status == "running", RunRow.heard_at < since))
    for row in silent:
        if str(row.uuid) not in await running_at(session, row.agent_uuid, since):
            await _lost(session, row, "its agent is gone, or does not know of it any more")
    never = await session.scalars(select(RunRow).where(RunRow.status == "queued", RunRow.created_at < now() - RUN))
    for row in never:
        await _lost(session, row, "its agent did not come for it within a day")


async def _lost(session: AsyncSession, row: RunRow, why: str) -> None:
    await give_up(session, row, why)
    text = f"a {row.kind} of {row.job_name or 'no job'} was lost: {why}"
    await raise_alert(
        session, row.tenant_id, "lost", row.uuid, text, agent=row.agent_uuid, job=row.job_uuid, run=row.uuid
    )
