"""Routes: /api/v1/alert-targets."""

from __future__ import annotations

import time
from typing import Any

from sqlalchemy import func, select

from control.alerts import claims, outbox, webhook
from control.alerts.content import content_of, headline
from control.alerts.guard import NotSent
from control.alerts.raising import resolve_alerts, resolve_all
from control.alerts.sending import try_out
from control.alerts.tables import AlertDeliveryRow, AlertTargetRow
from control.alerts.targets import (
    TARGETS_MAX,
    check_names,
    check_way,
    choice_of,
    put_choice,
    put_way,
    seal,
    secrets_of,
    shown,
    target_of,
    target_row,
    way_of,
)
from control.api.call import Call
from control.api.problems import Conflict, Invalid
from control.api.routes import Routes
from control.auth.tables import TenantRow
from control.db.base import new_id, now
from control.pages import ListQuery, page
from model.errors import ConfigError
from model.wire.alert_targets import (
    AlertDelivery,
    AlertTarget,
    AlertTargetChange,
    AlertTargetIn,
    AlertTargetMade,
    AlertTest,
    SigningSecret,
)
from model.wire.base import Page

routes = Routes()
PATH = "/api/v1/alert-targets"
EXAMPLE = {
    "name": "on call", "webhook": {"url": "https://hooks.example.com/lox"}, "least_severity": "critical",
    "remind_hours": 24,
}  # fmt: skip
_NULLABLE = frozenset({"kinds", "remind_hours"})


@routes.add(
    "POST", PATH, scope="alerts:write", body=AlertTargetIn, returns={201: AlertTargetMade}, example=EXAMPLE,
    secret=True, audit="alert-target.add", limit="costly",
)  # fmt: skip
async def add(call: Call) -> AlertTargetMade:
    """Add a target: who is told of alerts, of which, and how. The secret of a webhook is shown only now."""
    body = call.body(AlertTargetIn)
    way = way_of(body)
    assert way is not None
    await check_way(call.services, way)
    secret = webhook.new_secret() if body.webhook else None
    kind = type(way).__name__.lower()
    moment = now()
    row = AlertTargetRow(
        uuid=new_id(), tenant_id=call.tenant, name=body.name, kind=kind, enabled=body.enabled, fields={}, sent=0,
        failed=0, created_at=moment, updated_at=moment,
    )  # fmt: skip
    put_choice(row, choice_of(body))
    put_way(call.services, row, way, {"secret": secret} if secret else {})
    call.subject, call.details = row.uuid, {"kind": kind}
    async with call.transaction() as session:
        count = select(func.count()).where(AlertTargetRow.tenant_id == call.tenant)
        if (await session.scalar(count) or 0) >= TARGETS_MAX:
            raise Conflict(f"there are {TARGETS_MAX} already")
        await check_names(session, call.tenant, body)
        session.add(row)
    return AlertTargetMade(**shown(row, 0).model_dump(), secret=secret)


@routes.add("GET", PATH, scope="alerts:read", query=ListQuery, returns={200: Page[AlertTarget]})
async def list_targets(call: Call) -> Page[AlertTarget]:
    """List targets, newest first."""
    wanted = select(AlertTargetRow).where(AlertTargetRow.tenant_id == call.tenant)
    waiting = select(AlertDeliveryRow.target_uuid, func.count()).where(
        AlertDeliveryRow.tenant_id == call.tenant, AlertDeliveryRow.state == "waiting"
    )
    async with call.reading() as session:
        found: dict[Any, int] = dict(
            (await session.execute(waiting.group_by(AlertDeliveryRow.target_uuid))).tuples().all()
        )
        order = (AlertTargetRow.created_at, AlertTargetRow.uuid)
        return await page(
            session, wanted, order, call.query(ListQuery), Page[AlertTarget],
            lambda row: shown(row, found.get(row.uuid, 0)),
        )  # fmt: skip


@routes.add("GET", PATH + "/{target_uuid}", scope="alerts:read", returns={200: AlertTarget})
async def show(call: Call) -> AlertTarget:
    """Show a target, and whether messages reach it."""
    async with call.reading() as session:
        return await target_of(session, await target_row(session, call.tenant, call.uuid("target_uuid")))


@routes.add(
    "PATCH", PATH + "/{target_uuid}", scope="alerts:write", body=AlertTargetChange, returns={200: AlertTarget},
    example={"remind_hours": 12}, audit="alert-target.change", limit="costly",
)  # fmt: skip
async def change(call: Call) -> AlertTarget:
    """Change where a target is, what it is told, or turn it off. What waits for it is tried again at once."""
    body = call.body(AlertTargetChange)
    given = body.model_dump(mode="json", exclude_unset=True)
    for name in given.keys() - _NULLABLE:
        if given[name] is None:
            raise Invalid(name, "this cannot be null")
    way = way_of(body)
    await check_way(call.services, way)
    call.details = {"changed": sorted(given)}
    async with call.transaction() as session:
        row = await target_row(session, call.tenant, call.uuid("target_uuid"), lock=True)
        if any(one in given and one != row.kind for one in ("webhook", "mail", "apprise")):
            raise Invalid(next(one for one in ("webhook", "mail", "apprise") if one in given), f"this is a {row.kind}")
        await check_names(session, call.tenant, body)
        row.name, row.enabled, row.updated_at = given.get("name", row.name), given.get("enabled", row.enabled), now()
        put_choice(row, given)
        if way is not None:
            put_way(call.services, row, way, _kept(call, row))
        if row.enabled:
            await claims.hurry(session, row.uuid, row.updated_at)
        else:
            await outbox.drop(session, row.uuid, "the target was turned off", row.updated_at)
            await resolve_alerts(session, "undelivered", row.uuid)
        return await target_of(session, row)


@routes.add("DELETE", PATH + "/{target_uuid}", scope="alerts:write", audit="alert-target.delete")
async def remove(call: Call) -> None:
    """Remove a target, and what waits for it."""
    async with call.transaction() as session:
        row = await target_row(session, call.tenant, call.uuid("target_uuid"), lock=True)
        await resolve_all(session, row.uuid)
        await session.delete(row)


@routes.add(
    "POST", PATH + "/{target_uuid}/test", scope="alerts:write", returns={200: AlertTest}, limit="costly",
    audit="alert-target.test",
)  # fmt: skip
async def test(call: Call) -> AlertTest:
    """Send a message to a target now, and say what came of it."""
    async with call.transaction() as session:
        row = await target_row(session, call.tenant, call.uuid("target_uuid"))
        tenant = await session.get_one(TenantRow, call.tenant)
    uuid, begin = new_id(), time.monotonic()
    content = content_of("test", (tenant.uuid, tenant.name), call.services.settings.url, [], now())
    try:
        detail, sent = await try_out(call.services, row, uuid, content), True
    except NotSent as error:
        detail, sent = str(error), False
    seconds = round(time.monotonic() - begin, 3)
    return AlertTest(delivery_uuid=uuid, sent=sent, detail=detail, seconds=seconds)


@routes.add(
    "POST", PATH + "/{target_uuid}/rotate-secret", scope="alerts:write", returns={200: SigningSecret}, secret=True,
    audit="alert-target.rotate-secret",
)  # fmt: skip
async def rotate(call: Call) -> SigningSecret:
    """Make a new secret for a webhook. For a day the old one signs beside it."""
    moment, secret = now(), webhook.new_secret()
    async with call.transaction() as session:
        row = await target_row(session, call.tenant, call.uuid("target_uuid"), lock=True)
        if row.kind != "webhook":
            raise Conflict("only what a webhook gets is signed")
        kept = _kept(call, row)
        if "url" not in kept:
            raise Conflict("its secrets cannot be opened any more", hint="give its URL again")
        seal(call.services, row, webhook.rotated(kept, secret, moment))
    return SigningSecret(uuid=row.uuid, secret=secret, old_until=moment + webhook.OVERLAP)


@routes.add(
    "GET", PATH + "/{target_uuid}/deliveries", scope="alerts:read", query=ListQuery, returns={200: Page[AlertDelivery]}
)
async def deliveries(call: Call) -> Page[AlertDelivery]:
    """List messages to a target, newest first. Those that are done are kept for 30 days."""
    async with call.reading() as session:
        row = await target_row(session, call.tenant, call.uuid("target_uuid"))
        wanted = select(AlertDeliveryRow).where(AlertDeliveryRow.target_uuid == row.uuid)
        order = (AlertDeliveryRow.created_at, AlertDeliveryRow.uuid)
        return await page(session, wanted, order, call.query(ListQuery), Page[AlertDelivery], _delivery_of)


def _delivery_of(row: AlertDeliveryRow) -> AlertDelivery:
    fields = {name: getattr(row, name) for name in AlertDelivery.model_fields.keys() - {"headline", "alerts"}}
    return AlertDelivery(**fields, headline=headline(row.content), alerts=row.content["total"])


def _kept(call: Call, row: AlertTargetRow) -> dict[str, Any]:
    """The secrets of a target. If they cannot be opened any more, a webhook gets a new one by another rotation."""
    try:
        return secrets_of(call.services, row)
    except ConfigError:
        if row.kind == "webhook":
            return {"secret": webhook.new_secret()}
        return {}
