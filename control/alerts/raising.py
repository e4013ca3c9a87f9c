"""Raising and resolving alerts. Each opening and each end is also an event, in the same transaction: see outbox.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from control.alerts.tables import AlertEventRow, AlertRow
from control.db.base import new_id, now
from model.wire.alerts import Alert, AlertKind, Severity

TEXT_MAX = 2_000  # letters: hosts have their say in it
SAID = frozenset(Alert.model_fields) - {"count", "last_at", "acknowledged_at"}
Texts = Mapping[tuple[UUID, UUID], str]
_COLUMNS = [getattr(AlertRow, name) for name in sorted(Alert.model_fields)]


async def raise_alert(
    session: AsyncSession,
    tenant: UUID,
    kind: AlertKind,
    subject: UUID,
    text: str,
    *,
    severity: Severity = "warning",
    agent: UUID | None = None,
    job: UUID | None = None,
    run: UUID | None = None,
    lasting: bool = False,
) -> None:
    """Tell the operators of a tenant. While an alert of this kind about `subject` is open, it counts up instead.

    `lasting`: the trouble is a state that is seen again and again: one that is acknowledged stays the only one too.
    """
    text = text[:TEXT_MAX]
    again = (
        update(AlertRow)
        .where(AlertRow.tenant_id == tenant, AlertRow.kind == kind, AlertRow.subject == subject)
        .where(AlertRow.resolved_at.is_(None))
        .values(count=AlertRow.count + 1, last_at=now(), text=text, run_uuid=run)
    )
    if not lasting:
        again = again.where(AlertRow.acknowledged_at.is_(None))
    if (await session.execute(again)).rowcount:  # type: ignore[attr-defined]
        return
    about = {"subject": subject, "text": text, "agent_uuid": agent, "job_uuid": job, "run_uuid": run}
    await _open(session, [{**about, "tenant_id": tenant, "kind": kind, "severity": severity}])


async def raise_of_agents(session: AsyncSession, kind: AlertKind, severity: Severity, texts: Texts) -> None:
    """The same trouble of many agents at once: (tenant, agent) → text. An outage must not hold the database up."""
    known = await unresolved(session, kind, [agent for _, agent in texts])
    fresh = []
    for (tenant, agent), text in texts.items():
        if agent in known:
            await raise_alert(session, tenant, kind, agent, text, severity=severity, agent=agent)
        else:
            about = {"subject": agent, "text": text[:TEXT_MAX], "agent_uuid": agent, "job_uuid": None, "run_uuid": None}
            fresh.append({**about, "tenant_id": tenant, "kind": kind, "severity": severity})
    await _open(session, fresh)


async def _open(session: AsyncSession, alerts: list[dict[str, Any]]) -> None:
    """New rows, each with its event."""
    moment = now()
    ends = {"acknowledged_at": None, "resolved_at": None}
    rows = [{**one, "uuid": new_id(), "count": 1, "raised_at": moment, "last_at": moment} for one in alerts]
    told = [
        {"tenant_id": row["tenant_id"], "event": "opened", "subject": row["subject"], "said": _said({**row, **ends})}
        for row in rows
    ]
    if rows:
        await session.flush()
        await session.execute(insert(AlertRow), rows)
        await session.execute(insert(AlertEventRow), told)


async def resolve_alerts(session: AsyncSession, kind: AlertKind, *subjects: UUID) -> None:
    """The cause is gone."""
    if subjects:
        await _resolve(session, (AlertRow.kind == kind) & AlertRow.subject.in_(subjects))


async def resolve_of_job(session: AsyncSession, kind: AlertKind, job: UUID) -> None:
    """The cause of those about single runs of a job is gone."""
    await _resolve(session, (AlertRow.kind == kind) & (AlertRow.job_uuid == job))


async def resolve_all(session: AsyncSession, subject: UUID) -> None:
    """An agent, a job or a target goes, or its trouble is of no interest any more."""
    about = or_(AlertRow.agent_uuid == subject, AlertRow.job_uuid == subject, AlertRow.subject == subject)
    await _resolve(session, about)


async def unresolved(session: AsyncSession, kind: AlertKind, subjects: list[UUID]) -> set[UUID]:
    """About which of `subjects` an alert of this kind is not resolved."""
    found = select(AlertRow.subject).where(
        AlertRow.kind == kind, AlertRow.subject.in_(subjects), AlertRow.resolved_at.is_(None)
    )
    return set((await session.scalars(found)).all())


async def _resolve(session: AsyncSession, which: ColumnElement[bool]) -> None:
    done = await session.execute(
        update(AlertRow)
        .where(which, AlertRow.resolved_at.is_(None))
        .values(resolved_at=now())
        .returning(AlertRow.tenant_id, AlertRow.subject, *_COLUMNS)
        .execution_options(synchronize_session=False)
    )
    events = [
        {"tenant_id": row["tenant_id"], "event": "resolved", "subject": row["subject"], "said": _said(row)}
        for row in done.mappings().all()
    ]
    if events:
        await session.execute(insert(AlertEventRow), events)


def _said(row: Any) -> dict[str, Any]:
    fields = {name: row[name] for name in Alert.model_fields}
    return Alert.model_validate(fields).model_dump(mode="json", include=set(SAID))
