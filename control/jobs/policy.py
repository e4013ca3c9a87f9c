"""The policy of an agent: everything it needs to go on by itself when the server is away."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from control.fleet.tables import AgentRow
from control.jobs.keeping import policy_job
from control.jobs.tables import JobRow
from control.repositories.places import default_repository, in_use, policy_repository
from control.repositories.tables import RepositoryRow
from control.services import Services
from model.wire.agents import HEARTBEAT_SECONDS
from model.wire.policy import Policy


async def policy_of(services: Services, session: AsyncSession, agent: AgentRow) -> Policy:
    """What `agent` is to work by. Jobs whose repository is not settled are left out: they cannot run."""
    jobs = (await session.scalars(select(JobRow).where(JobRow.agent_uuid == agent.uuid).order_by(JobRow.uuid))).all()
    default = await default_repository(session, agent.tenant_id)
    chosen: dict[UUID, UUID] = {}
    for job in jobs:
        place = job.repository_uuid or (default.uuid if default else None)
        if place is not None:
            chosen[job.uuid] = place
    mine = RepositoryRow.uuid.in_(set(chosen.values())) | (RepositoryRow.maintenance_agent_uuid == agent.uuid)
    rows = await session.scalars(
        select(RepositoryRow)
        .where(RepositoryRow.tenant_id == agent.tenant_id, mine, in_use())
        .order_by(RepositoryRow.uuid)
    )
    repositories = {row.uuid: row for row in rows}
    return Policy(
        revision=agent.policy_revision,
        agent_uuid=agent.uuid,
        name=agent.name,
        heartbeat_interval=HEARTBEAT_SECONDS,
        paused=agent.paused,
        bandwidth_limit_mbps=agent.bandwidth_limit_mbps,
        jobs=[policy_job(job, chosen[job.uuid]) for job in jobs if chosen.get(job.uuid) in repositories],
        repositories=[policy_repository(services, row, agent.uuid) for row in repositories.values()],
    )
