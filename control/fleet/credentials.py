"""Credentials of agents: how they are made, used for the first time, rotated, and what tells a theft.

A rotation has both credentials valid for a while, so that no agent goes offline: the new one is handed out with a
heartbeat, and its first use retires the old one. Who still uses the old one later than `OVERLAP` after that is not the
agent: both are revoked and an operator is told. Until a rotation is done the old one works, up to `grace_until`.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from control.alerts.raising import raise_alert
from control.api.problems import Conflict, Forbidden, Unauthenticated
from control.auth.secrets import CREDENTIAL, Secret, make_secret
from control.auth.tables import TenantRow
from control.db.base import new_id, now
from control.fleet.commands import SOON, enqueue
from control.fleet.known import KnownAgent
from control.fleet.tables import AgentRow, CredentialRow, RotationRow
from model.wire.commands import RotateCredential

OVERLAP = timedelta(seconds=30)  # requests under way with the old credential when the new one was first used
GRACE = timedelta(days=7)  # for an agent to fetch its new credential
NOT_VALID = "this credential is not valid"
TOO_LATE = "this credential was to be replaced and was not in time: reissue the agent's install command"
PENDING_KEPT = timedelta(minutes=10)  # a new credential whose delivery may have been lost


class Stolen(Unauthenticated):
    """A credential that had been retired was used again; `agent` was revoked."""

    def __init__(self, agent: UUID) -> None:
        super().__init__(NOT_VALID)
        self.agent = agent


async def make_credential(session: AsyncSession, tenant: UUID, agent: UUID, state: str) -> Secret:
    """A new credential for an agent; `state` is ``pending`` until its first use."""
    secret = make_secret(CREDENTIAL, new_id())
    session.add(
        CredentialRow(
            uuid=secret.uuid, tenant_id=tenant, agent_uuid=agent, secret_hash=secret.hash, state=state, created_at=now()
        )
    )
    await session.flush()
    return secret


async def known_agent(session: AsyncSession, secret: Secret, *, note: bool) -> KnownAgent | None:
    """Who `secret` belongs to; None if there is something to note first (a first use, a theft), which needs `note`.

    Raises Unauthenticated, or Forbidden if its tenant is suspended; what was noted is to be kept.
    """
    found = (
        await session.execute(
            select(
                CredentialRow, AgentRow.policy_revision, AgentRow.revoked, RotationRow.grace_until, TenantRow.suspended
            )
            .join(TenantRow, TenantRow.uuid == CredentialRow.tenant_id)
            .join(AgentRow, AgentRow.uuid == CredentialRow.agent_uuid)
            .outerjoin(RotationRow, RotationRow.agent_uuid == CredentialRow.agent_uuid)
            .where(CredentialRow.uuid == secret.uuid)
        )
    ).one_or_none()
    if found is None or not secret.matches(found[0].secret_hash):
        raise Unauthenticated(NOT_VALID)
    credential, revision, revoked = found[:3]
    grace: datetime | None = found[3]
    if found[4]:
        raise Forbidden("the tenant of this agent is suspended")
    if revoked:
        raise Unauthenticated("this agent was revoked: reissue its install command to let it in again")
    if credential.state == "pending":
        if not note:
            return None
        await _first_use(session, credential)
        grace = None
    elif credential.state == "revoked":
        raise Unauthenticated(NOT_VALID)
    elif credential.retired_at is not None and now() > credential.retired_at + OVERLAP:
        if not note:
            return None
        await _stolen(session, credential)
        raise Stolen(credential.agent_uuid)
    elif credential.state == "active" and grace is not None and now() > grace:
        raise Unauthenticated(TOO_LATE)
    return KnownAgent(credential.agent_uuid, credential.tenant_id, revision, grace is not None)


async def _first_use(session: AsyncSession, credential: CredentialRow) -> None:
    taken = await session.execute(
        update(CredentialRow)
        .where(CredentialRow.uuid == credential.uuid, CredentialRow.state == "pending")
        .values(state="active", first_used_at=now())
    )
    if not taken.rowcount:  # type: ignore[attr-defined]  # another request of the agent was first
        return
    others = CredentialRow.agent_uuid == credential.agent_uuid, CredentialRow.uuid != credential.uuid
    await session.execute(delete(CredentialRow).where(*others, CredentialRow.state == "pending"))
    await session.execute(
        update(CredentialRow).where(*others, CredentialRow.state == "active").values(state="retired", retired_at=now())
    )
    await session.execute(delete(RotationRow).where(RotationRow.agent_uuid == credential.agent_uuid))


async def _stolen(session: AsyncSession, credential: CredentialRow) -> None:
    await session.execute(update(AgentRow).where(AgentRow.uuid == credential.agent_uuid).values(revoked=True))
    await raise_alert(
        session,
        credential.tenant_id,
        "token_reuse",
        credential.agent_uuid,
        "a credential that had been replaced was used again: somebody has a copy of it. The agent was revoked; "
        "look at the host, then reissue its install command",
        severity="critical",
        agent=credential.agent_uuid,
    )


async def ask_rotation(session: AsyncSession, agent: AgentRow) -> datetime:
    """Have the agent get a new credential with its next heartbeat, which it is to send now. Returns by when."""
    if agent.registered_at is None or agent.revoked:
        raise Conflict("this agent has no credential: it was not registered yet, or it was revoked")
    grace = now() + GRACE
    row = RotationRow(agent_uuid=agent.uuid, tenant_id=agent.tenant_id, asked_at=now(), grace_until=grace)
    await session.merge(row)
    await enqueue(session, agent.uuid, RotateCredential(), SOON)
    return grace


async def next_credential(session: AsyncSession, agent: KnownAgent) -> str:
    """The new credential for an agent whose rotation was asked for. If its delivery fails the next one gets another."""
    old = CredentialRow.agent_uuid == agent.uuid, CredentialRow.state == "pending"
    await session.execute(delete(CredentialRow).where(*old, CredentialRow.created_at < now() - PENDING_KEPT))
    return (await make_credential(session, agent.tenant, agent.uuid, "pending")).text
