"""Raising and resolving alerts."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncSession

from control.alerts.tables import AlertRow
from control.db.base import now
from model.wire.alerts import AlertKind, Severity


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
) -> None:
    """Tell the operators of a tenant. While an alert of this kind about `subject` is open, it counts up instead."""
    again = await session.execute(
        update(AlertRow)
        .where(AlertRow.tenant_id == tenant, AlertRow.kind == kind, AlertRow.subject == subject)
        .where(AlertRow.resolved_at.is_(None), AlertRow.acknowledged_at.is_(None))
        .values(count=AlertRow.count + 1, last_at=now(), text=text, run_uuid=run)
    )
    if again.rowcount:  # type: ignore[attr-defined]
        return
    found = AlertRow(
        tenant_id=tenant,
        kind=kind,
        subject=subject,
        severity=severity,
        text=text,
        agent_uuid=agent,
        job_uuid=job,
        run_uuid=run,
    )
    session.add(found)
    await session.flush()


async def resolve_alerts(session: AsyncSession, kind: AlertKind, subject: UUID) -> None:
    """The cause is gone."""
    await session.execute(
        update(AlertRow)
        .where(AlertRow.kind == kind, AlertRow.subject == subject, AlertRow.resolved_at.is_(None))
        .values(resolved_at=now())
    )
