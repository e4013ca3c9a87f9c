"""Maintenance: the agent that an operator named lets backups go that no job keeps, and prunes, when the server says.

It is a run like others: queued as a command, with events, a log and an end. Its rules are those of all jobs whose data
lies in the repository, whichever agents they are of: only the maintenance agent may delete there.
"""

from __future__ import annotations

from typing import TypeVarTuple
from uuid import UUID

from sqlalchemy import Select, exists, select
from sqlalchemy.ext.asyncio import AsyncSession

from control.alerts.raising import raise_alert, resolve_alerts
from control.api.call import Call
from control.api.problems import Conflict
from control.api.routes import Routes
from control.db.base import new_id, now
from control.fleet.agents import agent_row
from control.fleet.commands import RUN, Wakes, enqueue
from control.fleet.tables import AgentRow
from control.jobs.keeping import job_fields
from control.jobs.tables import JobRow
from control.repositories.due import jobs_into, set_due
from control.repositories.places import in_use, policy_repository, repository_row
from control.repositories.tables import RepositoryRow
from control.runs.keeping import run_of
from control.runs.tables import RunRow
from control.services import Services
from model.wire.commands import MaintainCommand
from model.wire.jobs import RetentionRule
from model.wire.runs import Finished, Run

routes = Routes()
KIND = "maintenance"
Columns = TypeVarTuple("Columns")


@routes.add(
    "POST", "/api/v1/repositories/{repository_uuid}/maintain", scope="repositories:write", returns={202: Run},
    audit="repository.maintain",
)  # fmt: skip
async def maintain(call: Call) -> Run:
    """Have the maintenance agent let old backups go and prune, now."""
    async with call.transaction() as session:
        row = await repository_row(session, call.tenant, call.uuid("repository_uuid"))
        if row.maintenance_agent_uuid is None:
            raise Conflict("no agent maintains this repository", hint="name one: maintenance_agent_uuid")
        agent = await agent_row(session, call.tenant, row.maintenance_agent_uuid)
        if agent.registered_at is None or agent.revoked:
            raise Conflict("the agent that maintains it is not registered, or was revoked")
        if await _under_way(session, row.uuid):
            raise Conflict("it is being maintained")
        run = await _ask(call.services, session, row, agent.uuid, "api")
    call.services.part(Wakes).wake(agent.uuid)
    return run_of(run)


async def ask_due(services: Services) -> None:
    """Queue the maintenance of repositories whose time has come. What was missed while no server ran is done once."""
    async with services.sessions() as session:
        late = list((await session.scalars(_due(select(RepositoryRow.uuid)))).all())
    for uuid in late:  # one at a time: who holds a repository waits for its agent, and no agent is held meanwhile
        await _ask_if_due(services, uuid)


async def _ask_if_due(services: Services, uuid: UUID) -> None:
    async with services.sessions.begin() as session:
        mine = _due(select(RepositoryRow)).where(RepositoryRow.uuid == uuid)
        row = await session.scalar(mine.with_for_update(of=RepositoryRow))
        if row is None:
            return  # changed, or removed, just now
        set_due(row)
        agent = row.maintenance_agent_uuid
        if agent is None or await _under_way(session, row.uuid):
            return
        await _ask(services, session, row, agent, "schedule")
    services.part(Wakes).wake(agent)


def _due(wanted: Select[*Columns]) -> Select[*Columns]:
    """Those whose time has come, and whose agent can be asked."""
    return (
        wanted.join(AgentRow, AgentRow.uuid == RepositoryRow.maintenance_agent_uuid)
        .where(RepositoryRow.maintenance_due_at <= now(), in_use())
        .where(AgentRow.registered_at.is_not(None), AgentRow.revoked.is_(False), AgentRow.paused.is_(False))
    )


async def _under_way(session: AsyncSession, repository: UUID) -> bool:
    mine = (RunRow.repository_uuid == repository) & (RunRow.kind == KIND)
    return bool(await session.scalar(select(exists().where(mine, RunRow.status.in_(("queued", "running"))))))


async def _ask(services: Services, session: AsyncSession, row: RepositoryRow, agent: UUID, trigger: str) -> RunRow:
    run = RunRow(
        uuid=new_id(), tenant_id=row.tenant_id, agent_uuid=agent, repository_uuid=row.uuid, kind=KIND, status="queued",
        trigger=trigger, attempt=1, created_at=now(), cancel_requested=False, problems=0, log_lines=0, sequence=0,
    )  # fmt: skip
    session.add(run)
    await session.flush()
    jobs = (await session.scalars(select(JobRow).where(jobs_into(row)).order_by(JobRow.uuid))).all()
    place = policy_repository(services, row, agent)
    asked = MaintainCommand(run_uuid=run.uuid, repository=place, rules=[_rule(job) for job in jobs])
    await enqueue(session, agent, asked, RUN)
    return run


def _rule(job: JobRow) -> RetentionRule:
    fields = job_fields(job)
    return RetentionRule(
        job_uuid=job.uuid, timezone=fields.timezone, retention_count=fields.retention_count, keep=fields.keep
    )


async def note_end(session: AsyncSession, row: RunRow, event: Finished) -> None:
    """Raise an alert about maintenance that failed, until it succeeds."""
    subject = row.repository_uuid or row.uuid
    if event.status in ("success", "partial"):
        await resolve_alerts(session, "failed", subject)
    if event.status == "failed":
        why = f"{event.error.what}: {event.error.why}" if event.error else "see its log"
        text = f"the maintenance of a repository failed: {why}"
        await raise_alert(
            session, row.tenant_id, "failed", subject, text, severity="critical", agent=row.agent_uuid, run=row.uuid
        )
