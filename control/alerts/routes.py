"""Routes: /api/v1/alerts."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from control.alerts.tables import AlertRow
from control.api.call import Call
from control.api.problems import Unknown
from control.api.routes import Routes
from control.db.base import now
from control.pages import ListQuery, page
from model.wire.alerts import Alert, AlertKind
from model.wire.base import Page

routes = Routes()


class AlertQuery(ListQuery):
    """Which alerts. `open`: neither acknowledged nor resolved."""

    agent: UUID | None = None
    job: UUID | None = None
    kind: AlertKind | None = None
    open: bool | None = None


@routes.add("GET", "/api/v1/alerts", scope="alerts:read", query=AlertQuery, returns={200: Page[Alert]})
async def list_alerts(call: Call) -> Page[Alert]:
    """List alerts, newest first."""
    query = call.query(AlertQuery)
    wanted = select(AlertRow).where(AlertRow.tenant_id == call.tenant)
    if query.agent is not None:
        wanted = wanted.where(AlertRow.agent_uuid == query.agent)
    if query.job is not None:
        wanted = wanted.where(AlertRow.job_uuid == query.job)
    if query.kind is not None:
        wanted = wanted.where(AlertRow.kind == query.kind)
    if query.open is not None:
        is_open = AlertRow.acknowledged_at.is_(None) & AlertRow.resolved_at.is_(None)
        wanted = wanted.where(is_open if query.open else ~is_open)
    async with call.reading() as session:
        return await page(session, wanted, (AlertRow.raised_at, AlertRow.uuid), query, Page[Alert], alert_of)


@routes.add("GET", "/api/v1/alerts/{alert_uuid}", scope="alerts:read", returns={200: Alert})
async def show(call: Call) -> Alert:
    """Show an alert."""
    async with call.reading() as session:
        return alert_of(await _row(session, call))


@routes.add(
    "POST", "/api/v1/alerts/{alert_uuid}/acknowledge", scope="alerts:write", returns={200: Alert}, audit="alert.ack"
)
async def acknowledge(call: Call) -> Alert:
    """Say that somebody looks after it: the same trouble again makes a new alert."""
    async with call.transaction() as session:
        row = await _row(session, call)
        row.acknowledged_at = row.acknowledged_at or now()
    return alert_of(row)


async def _row(session: AsyncSession, call: Call) -> AlertRow:
    row = await session.scalar(
        select(AlertRow).where(AlertRow.tenant_id == call.tenant, AlertRow.uuid == call.uuid("alert_uuid"))
    )
    if row is None:
        raise Unknown("alert")
    return row


def alert_of(row: AlertRow) -> Alert:
    """The alert as the API shows it."""
    return Alert.model_validate({name: getattr(row, name) for name in Alert.model_fields})
