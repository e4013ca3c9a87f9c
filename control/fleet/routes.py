"""Routes for people: /api/v1/agents."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import delete, exists, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from control.alerts.raising import resolve_all
from control.api.call import Call
from control.api.problems import Conflict, Invalid
from control.api.routes import Routes
from control.db.base import new_id
from control.fleet.agents import agent_fields, agent_health, agent_of, agent_row, rotating
from control.fleet.commands import REFRESH, Wakes, enqueue, policy_changed
from control.fleet.credentials import ask_rotation
from control.fleet.enrolment import issue
from control.fleet.heartbeats import Heartbeats
from control.fleet.tables import AgentRow, CredentialRow
from control.installer.command import install_command
from control.pages import ListQuery, page
from control.runs.tables import MachineBackupRow
from control.services import Services
from model.wire.agents import (
    Agent,
    AgentChange,
    AgentHealth,
    AgentIn,
    InstallCommand,
    NewAgent,
    Os,
    Rotation,
)
from model.wire.base import Hostname, Page
from model.wire.commands import SetLimits

routes = Routes()
EXAMPLE = {"hostname": "web-1.example.com", "os": "linux", "tags": ["web"]}


class AgentQuery(ListQuery):
    """Which agents."""

    os: Os | None = None
    hostname: Hostname | None = None


@routes.add(
    "POST", "/api/v1/agents", scope="agents:write", body=AgentIn, returns={201: NewAgent}, example=EXAMPLE,
    secret=True, audit="agent.add",
)  # fmt: skip
async def add(call: Call) -> NewAgent:
    """Add an agent. The registration token in the answer is shown only once."""
    body = call.body(AgentIn)
    row = AgentRow(
        uuid=new_id(), tenant_id=call.tenant, hostname=body.hostname, name=body.name or body.hostname, os=body.os,
        tags=body.tags,
    )  # fmt: skip
    call.subject = row.uuid
    async with call.transaction() as session:
        session.add(row)
        await session.flush()
        shown = await _install(call.services, session, row)
    return NewAgent.model_validate({**agent_fields(row, None), **shown.model_dump()})


async def _install(services: Services, session: AsyncSession, row: AgentRow) -> InstallCommand:
    token, expires_at = await issue(session, row)
    command = install_command(services, row.os, row.uuid, token)
    return InstallCommand(registration_token=token, expires_at=expires_at, install_command=command)


@routes.add("GET", "/api/v1/agents", scope="agents:read", query=AgentQuery, returns={200: Page[Agent]})
async def list_agents(call: Call) -> Page[Agent]:
    """List agents, newest first."""
    query = call.query(AgentQuery)
    wanted = select(AgentRow).where(AgentRow.tenant_id == call.tenant)
    if query.os is not None:
        wanted = wanted.where(AgentRow.os == query.os)
    if query.hostname is not None:
        wanted = wanted.where(AgentRow.hostname == query.hostname)
    beats = call.services.part(Heartbeats)
    async with call.reading() as session:
        order = (AgentRow.created_at, AgentRow.uuid)
        return await page(session, wanted, order, query, Page[Agent], lambda row: agent_of(row, beats.newest(row.uuid)))


@routes.add("GET", "/api/v1/agents/{agent_uuid}", scope="agents:read", returns={200: Agent})
async def show(call: Call) -> Agent:
    """Show an agent."""
    async with call.reading() as session:
        return await _shown(call, session, call.uuid("agent_uuid"))


async def _shown(call: Call, session: AsyncSession, uuid: UUID) -> Agent:
    row = await agent_row(session, call.tenant, uuid)
    return agent_of(row, call.services.part(Heartbeats).newest(uuid), await rotating(session, uuid))


@routes.add(
    "PATCH", "/api/v1/agents/{agent_uuid}", scope="agents:write", body=AgentChange, returns={200: Agent},
    example={"paused": True}, audit="agent.change",
)  # fmt: skip
async def change(call: Call) -> Agent:
    """Change the name, the tags or the limits of an agent, or pause it."""
    uuid, body = call.uuid("agent_uuid"), call.body(AgentChange)
    given = body.model_dump(exclude_unset=True)
    for name in ("name", "tags", "paused"):
        if name in given and given[name] is None:
            raise Invalid(name, "this cannot be null")
    call.details = {"changed": sorted(given)}
    async with call.transaction() as session:
        await agent_row(session, call.tenant, uuid)
        if given:
            await session.execute(update(AgentRow).where(AgentRow.uuid == uuid).values(**given))
            await policy_changed(session, uuid)
        if "bandwidth_limit_mbps" in given:
            await enqueue(session, uuid, SetLimits(bandwidth_limit_mbps=body.bandwidth_limit_mbps), REFRESH)
        session.expire_all()
        shown = await _shown(call, session, uuid)
    call.services.part(Wakes).wake(uuid)
    return shown


@routes.add("DELETE", "/api/v1/agents/{agent_uuid}", scope="agents:write", audit="agent.delete")
async def remove(call: Call) -> None:
    """Remove an agent that made no backups, or whose backups are gone; revoke one that made some."""
    uuid = call.uuid("agent_uuid")
    async with call.transaction() as session:
        row = await agent_row(session, call.tenant, uuid, lock=True)
        await resolve_all(session, uuid)
        if await session.scalar(select(exists().where(MachineBackupRow.agent_uuid == uuid))):
            if row.revoked:
                raise Conflict("it is revoked; it stays, because backups of it are known that can be restored")
            row.revoked = True
            await session.execute(delete(CredentialRow).where(CredentialRow.agent_uuid == uuid))
        else:
            await session.delete(row)
    call.services.part(Wakes).wake(uuid)


@routes.add(
    "POST", "/api/v1/agents/{agent_uuid}/install-command", scope="agents:write", returns={200: InstallCommand},
    secret=True, audit="agent.install-command",
)  # fmt: skip
async def reissue(call: Call) -> InstallCommand:
    """Make a new registration token; an earlier one is no longer valid."""
    async with call.transaction() as session:
        row = await agent_row(session, call.tenant, call.uuid("agent_uuid"), lock=True)
        return await _install(call.services, session, row)


@routes.add(
    "POST", "/api/v1/agents/{agent_uuid}/rotate-token", scope="agents:write", returns={202: Rotation},
    audit="agent.rotate-token",
)  # fmt: skip
async def rotate(call: Call) -> Rotation:
    """Have an agent take a new credential; the old one works until the new one is in use."""
    uuid = call.uuid("agent_uuid")
    async with call.transaction() as session:
        row = await agent_row(session, call.tenant, uuid, lock=True)
        grace = await ask_rotation(session, row)
    call.services.part(Wakes).wake(uuid)
    return Rotation(uuid=uuid, rotation_pending=True, grace_until=grace)


@routes.add("GET", "/api/v1/agents/{agent_uuid}/health", scope="agents:read", returns={200: AgentHealth})
async def health(call: Call) -> AgentHealth:
    """What an agent said of itself last, and what of it needs a look."""
    uuid = call.uuid("agent_uuid")
    async with call.reading() as session:
        row = await agent_row(session, call.tenant, uuid)
    return agent_health(row, call.services.part(Heartbeats).newest(uuid))
