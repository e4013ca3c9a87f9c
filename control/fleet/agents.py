"""Agents as operators see them: added, listed, changed, removed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import exists, select
from sqlalchemy.ext.asyncio import AsyncSession

from control.api.problems import Unknown
from control.fleet.heartbeats import SKEW_SECONDS, Beat, status_of
from control.fleet.tables import AgentRow, RotationRow
from model.wire.agents import Agent, AgentHealth, HeartbeatIn


async def agent_row(session: AsyncSession, tenant: UUID, uuid: UUID, *, lock: bool = False) -> AgentRow:
    """The agent. Raises Unknown, also for one of another tenant."""
    found = select(AgentRow).where(AgentRow.tenant_id == tenant, AgentRow.uuid == uuid)
    row = await session.scalar(found.with_for_update() if lock else found)
    if row is None:
        raise Unknown("agent")
    return row


async def rotating(session: AsyncSession, agent: UUID) -> bool:
    """Whether the agent is to get a new credential."""
    return bool(await session.scalar(select(exists().where(RotationRow.agent_uuid == agent))))


def agent_fields(row: AgentRow, beat: Beat | None, pending: bool = False) -> Mapping[str, Any]:
    """What `Agent` is made of. `beat` is a heartbeat that is not in `row` yet."""
    said = _said(row, beat)
    return {
        "uuid": row.uuid,
        "hostname": row.hostname,
        "name": row.name,
        "os": row.os,
        "status": status_of(row, beat),
        "tags": row.tags,
        "paused": row.paused,
        "bandwidth_limit_mbps": row.bandwidth_limit_mbps,
        "version": said.health.version if said else row.version,
        "created_at": row.created_at,
        "registered_at": row.registered_at,
        "last_heartbeat_at": beat.received if beat else row.last_heartbeat_at,
        "metrics_port": said.metrics_port if said else None,
        "running": said.running if said else [],
        "rotation_pending": pending,
        "policy_revision": row.policy_revision,
    }


def agent_of(row: AgentRow, beat: Beat | None, pending: bool = False) -> Agent:
    """The agent as the API shows it."""
    return Agent.model_validate(agent_fields(row, beat, pending))


def agent_health(row: AgentRow, beat: Beat | None) -> AgentHealth:
    """What the agent said of itself last, and what of it needs a look."""
    said = _said(row, beat)
    return AgentHealth(
        uuid=row.uuid,
        status=status_of(row, beat),
        last_heartbeat_at=beat.received if beat else row.last_heartbeat_at,
        health=said.health if said else None,
        next_runs=said.next_runs if said else {},
        problems=_problems(row, beat, said),
    )


def _said(row: AgentRow, beat: Beat | None) -> HeartbeatIn | None:
    if beat is not None:
        return beat.said
    return None if row.heartbeat is None else HeartbeatIn.model_validate(row.heartbeat)


def _problems(row: AgentRow, beat: Beat | None, said: HeartbeatIn | None) -> list[str]:
    problems = []
    status = status_of(row, beat)
    if status == "offline":
        problems.append("it sends no heartbeats: look at systemctl status lox-agent and at outbound HTTPS")
    if said is None:
        return problems
    skew = said.health.clock_skew_seconds
    if skew is not None and abs(skew) > SKEW_SECONDS:
        problems.append(f"its clock is {abs(skew):.0f} s {'ahead' if skew > 0 else 'behind'}")
    for disk in said.health.disks:
        if disk.total and disk.free < disk.total // 20:
            problems.append(f"{disk.path} has {disk.free * 100 // disk.total} % free")
    if status == "online" and said.health.policy_revision < row.policy_revision:
        problems.append("it has not fetched its newest policy yet")
    return problems + said.health.warnings
