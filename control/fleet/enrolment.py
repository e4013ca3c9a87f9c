"""Enrolment: a registration token becomes the credential of one host."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import delete, update
from sqlalchemy.ext.asyncio import AsyncSession

from control.alerts.raising import raise_alert, resolve_alerts
from control.api.problems import Unauthenticated
from control.auth.secrets import REGISTRATION, make_secret, parse_secret
from control.db.base import new_id, now
from control.fleet.credentials import make_credential
from control.fleet.tables import AgentRow, CommandRow, CredentialRow, RegistrationRow, RotationRow
from model.wire.agents import RegisterIn

LIFETIME = timedelta(hours=24)
NOT_VALID = "the registration token is not valid"
REPEAT = timedelta(minutes=10)  # the same host may ask again when it did not get the answer


@dataclass(frozen=True, slots=True)
class Enrolled:
    """Who was enrolled, and its credential."""

    tenant: UUID
    agent: UUID
    credential: str


async def issue(session: AsyncSession, agent: AgentRow) -> tuple[str, datetime]:
    """A registration token for `agent` in place of any earlier one, and when it expires."""
    await session.execute(delete(RegistrationRow).where(RegistrationRow.agent_uuid == agent.uuid))
    secret = make_secret(REGISTRATION, new_id())
    row = RegistrationRow(
        uuid=secret.uuid,
        tenant_id=agent.tenant_id,
        agent_uuid=agent.uuid,
        secret_hash=secret.hash,
        expires_at=now() + LIFETIME,
    )
    session.add(row)
    await session.flush()
    return secret.text, row.expires_at


async def registration_of(session: AsyncSession, body: RegisterIn) -> RegistrationRow:
    """What the token stands for. Raises Unauthenticated. Only reads: who guesses does not keep others from writing."""
    secret = parse_secret(body.registration_token)
    row = None if secret is None or secret.kind != REGISTRATION else await session.get(RegistrationRow, secret.uuid)
    if secret is None or row is None or not secret.matches(row.secret_hash) or row.agent_uuid != body.agent_uuid:
        raise Unauthenticated(NOT_VALID)
    return row


async def enrol(session: AsyncSession, body: RegisterIn, key: str) -> Enrolled:
    """Exchange the token for a credential. `key` is the Idempotency-Key. Raises Unauthenticated."""
    row = await registration_of(session, body)
    repeat = _repeat_hash(body, key)
    taken = await session.execute(
        update(RegistrationRow)
        .where(RegistrationRow.uuid == row.uuid, RegistrationRow.used_at.is_(None), RegistrationRow.expires_at > now())
        .values(used_at=now(), used_key=repeat)
    )
    if taken.rowcount:  # type: ignore[attr-defined]  # of two at the same time one gets it
        await _forget_earlier(session, row.agent_uuid)
    elif not await _may_repeat(session, row, repeat):
        await _refuse(session, row)
    credential = await make_credential(session, row.tenant_id, row.agent_uuid, "pending")
    await session.execute(
        update(RegistrationRow).where(RegistrationRow.uuid == row.uuid).values(credential_uuid=credential.uuid)
    )
    await _note_host(session, body)
    return Enrolled(row.tenant_id, row.agent_uuid, credential.text)


def _repeat_hash(body: RegisterIn, key: str) -> bytes:
    return hashlib.sha256(f"{body.machine_id}\n{key}".encode()).digest()


async def _may_repeat(session: AsyncSession, row: RegistrationRow, repeat: bytes) -> bool:
    """Whether the host did not get the answer: it asks again, soon, and never used the credential. That one goes."""
    await session.refresh(row)
    if not row.used_at or row.used_key != repeat or now() > row.used_at + REPEAT:
        return False
    gone = await session.execute(
        delete(CredentialRow).where(CredentialRow.uuid == row.credential_uuid, CredentialRow.state == "pending")
    )
    return bool(gone.rowcount)  # type: ignore[attr-defined]


async def _refuse(session: AsyncSession, row: RegistrationRow) -> None:
    if row.used_at:
        await raise_alert(
            session,
            row.tenant_id,
            "token_reuse",
            row.agent_uuid,
            "a registration token that had been used was used again, not by the host that used it first",
            severity="critical",
            agent=row.agent_uuid,
        )
        raise Unauthenticated(NOT_VALID)
    raise Unauthenticated("the registration token has expired: reissue the install command")


async def _forget_earlier(session: AsyncSession, agent: UUID) -> None:
    """A host that enrols anew begins anew: what an earlier one held is no longer valid, its commands are gone."""
    await session.execute(delete(RotationRow).where(RotationRow.agent_uuid == agent))
    await session.execute(delete(CommandRow).where(CommandRow.agent_uuid == agent))
    await session.execute(
        delete(CredentialRow).where(CredentialRow.agent_uuid == agent, CredentialRow.state == "pending")
    )
    await session.execute(
        update(CredentialRow)
        .where(CredentialRow.agent_uuid == agent, CredentialRow.state == "active")
        .values(state="revoked", retired_at=now())
    )
    await resolve_alerts(session, "token_reuse", agent)


async def _note_host(session: AsyncSession, body: RegisterIn) -> None:
    await session.execute(
        update(AgentRow)
        .where(AgentRow.uuid == body.agent_uuid)
        .values(
            revoked=False,
            registered_at=now(),
            machine_id=body.machine_id,
            hostname=body.hostname,
            os=body.os,
            version=body.version,
            heartbeat_sequence=0,
        )
    )
