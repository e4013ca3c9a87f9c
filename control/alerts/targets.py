"""Alert targets in the database: what of them is shown, what is sealed, and what a target cannot be."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from control.alerts import chat
from control.alerts.guard import Guard, NotSent
from control.alerts.tables import AlertDeliveryRow, AlertTargetRow
from control.api.problems import Invalid, Unknown
from control.db.base import now
from control.fleet.tables import AgentRow
from control.jobs.tables import JobRow
from control.sealing import Sealer
from control.services import Services
from model.addresses import address
from model.wire.alert_targets import AlertTarget, AlertTargetIn, Apprise, Choice, Mail, Webhook

CHOICE = frozenset(Choice.model_fields)
TARGETS_MAX = 200  # of a tenant
Way = Webhook | Mail | Apprise


async def target_row(session: AsyncSession, tenant: UUID, uuid: UUID, *, lock: bool = False) -> AlertTargetRow:
    """The target. Raises Unknown, also for one of another tenant."""
    wanted = select(AlertTargetRow).where(AlertTargetRow.tenant_id == tenant, AlertTargetRow.uuid == uuid)
    row = await session.scalar(wanted.with_for_update() if lock else wanted)
    if row is None:
        raise Unknown("alert target")
    return row


async def target_of(session: AsyncSession, row: AlertTargetRow) -> AlertTarget:
    """The target as the API shows it."""
    waiting = await session.scalar(
        select(func.count()).where(AlertDeliveryRow.target_uuid == row.uuid, AlertDeliveryRow.state == "waiting")
    )
    return shown(row, waiting or 0)


def shown(row: AlertTargetRow, waiting: int) -> AlertTarget:
    """The same, where it is known how many messages wait."""
    columns = AlertTarget.model_fields.keys() - CHOICE - {"waiting", "address"}
    fields = {name: getattr(row, name) for name in columns}
    return AlertTarget.model_validate({**row.fields, **fields, "waiting": waiting})


def way_of(body: Any) -> Way | None:
    """Which of the ways a body gives."""
    found = body.webhook or body.mail or body.apprise
    assert found is None or isinstance(found, Webhook | Mail | Apprise)
    return found


def put_choice(row: AlertTargetRow, choice: dict[str, Any]) -> None:
    """Makes `row` hold a choice, or changes of one; JSON."""
    row.fields = {**row.fields, **{name: value for name, value in choice.items() if name in CHOICE}}
    hours = row.fields["remind_hours"]
    if hours is None or not row.enabled:
        row.remind_at = None
    elif row.remind_at is None or "remind_hours" in choice:
        row.remind_at = now() + timedelta(hours=hours)


def put_way(services: Services, row: AlertTargetRow, way: Way, kept: dict[str, Any]) -> None:
    """Makes `row` go there. `kept` are the secrets that it had."""
    if isinstance(way, Webhook):
        host = urlsplit(way.url)
        fields: dict[str, Any] = {"address": f"{host.scheme}://{host.netloc}/…"}
        secrets = {**kept, "url": way.url}
    elif isinstance(way, Mail):
        plain = way.model_dump(mode="json", exclude={"password"})
        fields = {"address": f"{', '.join(way.recipients)} by {way.host}:{way.port}", "mail": plain}
        password = way.password if way.password is not None else _same_password(row, plain, kept)
        if way.username is not None and password is None:
            raise Invalid("mail/password", "it is missing: one that was kept goes to no other server and login")
        secrets = {"password": password}
    else:
        fields, secrets = {"address": f"{way.url.partition(':')[0]}://…"}, {"url": way.url}
    row.fields = {**row.fields, **fields}
    seal(services, row, secrets)


def _same_password(row: AlertTargetRow, mail: dict[str, Any], kept: dict[str, Any]) -> str | None:
    """A password that was kept goes to no other place than the one it was given for."""
    before = row.fields.get("mail", {})
    same = all(before.get(name) == mail[name] for name in ("host", "port", "security", "username"))
    return kept.get("password") if same else None


def seal(services: Services, row: AlertTargetRow, secrets: dict[str, Any]) -> None:
    """Keeps the secrets of a target. Raises ConfigError."""
    row.sealed = services.part(Sealer).seal(_about(row), secrets)


def secrets_of(services: Services, row: AlertTargetRow) -> dict[str, Any]:
    """What was kept. Raises ConfigError if it cannot be opened."""
    return services.part(Sealer).open(_about(row), row.sealed)


def _about(row: AlertTargetRow) -> bytes:
    return b"alert-target" + row.tenant_id.bytes + row.uuid.bytes


async def check_way(services: Services, way: Way | None) -> None:
    """Raises Invalid for what no message can go to. What a name leads to is looked at when one is sent."""
    guard = Guard.of(services.settings)
    if isinstance(way, Webhook):
        parts = urlsplit(way.url)
        _check_literal(guard, "webhook/url", parts.hostname or "")
        if parts.scheme == "http" and not guard.allowed:
            raise Invalid("webhook/url", "this is not encrypted", "use https, or allow a network: alert_networks")
    elif isinstance(way, Mail):
        _check_literal(guard, "mail/host", way.host)
        if way.security == "none" and not guard.allowed:
            raise Invalid("mail/security", "this is not encrypted", "use starttls or tls, or set alert_networks")
    elif isinstance(way, Apprise):
        scheme = way.url.partition(":")[0]
        if scheme not in chat.SCHEMES:
            raise Invalid("apprise/url", f"{scheme} is none of the services there are", ", ".join(sorted(chat.SCHEMES)))
        if scheme in chat.PLAIN and not guard.allowed:
            raise Invalid("apprise/url", "this is not encrypted", f"use {scheme}s, or allow a network: alert_networks")
        try:
            await chat.check(guard, way.url)
        except NotSent as error:
            raise Invalid("apprise/url", str(error)) from None


def _check_literal(guard: Guard, field: str, host: str) -> None:
    try:
        one = address(host)
    except ValueError:
        return
    if not guard.may(one, host):
        raise Invalid(field, f"{host} is not of the internet, nor of the setting alert_networks")


async def check_names(session: AsyncSession, tenant: UUID, body: BaseModel) -> None:
    """Raises Invalid if a choice names agents or jobs that this tenant has not."""
    for field, row in (("agent_uuids", AgentRow), ("job_uuids", JobRow)):
        wanted = set(getattr(body, field) or [])
        if not wanted:
            continue
        found = await session.scalars(select(row.uuid).where(row.tenant_id == tenant, row.uuid.in_(wanted)))
        if missing := wanted - set(found.all()):
            number = min(index for index, uuid in enumerate(getattr(body, field)) if uuid in missing)
            raise Invalid(f"{field}/{number}", f"there is no such {field.partition('_')[0]}")


def choice_of(body: AlertTargetIn) -> dict[str, Any]:
    """The choice of a new target, as JSON."""
    return body.model_dump(mode="json", include=set(CHOICE))
