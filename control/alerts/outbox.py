"""From alerts to messages, all in the database: event → a notice for each target → one message for many notices.

Nothing here sends. An event is written in the transaction of its alert; each step below is a transaction too, so that a
process can die between any two. What happened since a target's last message goes into the next one together, so that an
outage of two thousand agents is a few messages. A target has one message on its way at a time; what comes meanwhile
waits as notices, of which there is one per alert.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import delete, exists, func, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession

from control.alerts.content import content_of
from control.alerts.raising import SAID
from control.alerts.tables import AlertDeliveryRow, AlertEventRow, AlertNoticeRow, AlertRow, AlertTargetRow
from control.auth.tables import TenantRow
from control.db.base import new_id
from control.fleet.tables import AgentRow
from control.jobs.tables import JobRow
from model.wire.alerts import Alert

EVENTS = 1_000  # of one transaction
OPEN_MAX = 10_000  # alerts that one reminder counts
KEPT = timedelta(days=30)  # how long messages that are done can be looked at
_GRAVE = {"warning": 0, "critical": 1}


async def is_idle(db: AsyncSession, at: datetime) -> bool:
    """Whether none of the steps below would find anything."""
    there = exists(select(AlertEventRow.sequence))
    remind = exists(select(AlertTargetRow.uuid).where(AlertTargetRow.remind_at <= at))
    return not await db.scalar(select(there | remind)) and not await _ready(db, at)


def wants(target: AlertTargetRow, event: str, said: dict[str, Any]) -> bool:
    """Whether a target is to hear of this."""
    choice = target.fields
    if event == "resolved" and not choice["resolved"]:
        return False
    if choice["kinds"] is not None and said["kind"] not in choice["kinds"]:
        return False
    if _GRAVE[said["severity"]] < _GRAVE[choice["least_severity"]]:
        return False
    if not choice["agent_uuids"] and not choice["job_uuids"]:
        return True
    return said["agent_uuid"] in choice["agent_uuids"] or said["job_uuid"] in choice["job_uuids"]


async def note_events(db: AsyncSession, at: datetime) -> int:
    """Turns events into notices. Returns how many events there were; there may be more."""
    first = select(AlertEventRow.sequence).order_by(AlertEventRow.sequence).limit(EVENTS)
    taken = delete(AlertEventRow).where(AlertEventRow.sequence.in_(first)).returning(AlertEventRow)
    events = sorted((await db.scalars(taken)).all(), key=lambda one: one.sequence)
    if not events:
        return 0
    targets = await _targets(db, {event.tenant_id for event in events})
    newest: dict[tuple[UUID, str], dict[str, Any]] = {}
    for event in events:
        for target in targets:
            if target.tenant_id != event.tenant_id or event.subject == target.uuid:
                continue  # nobody can be told by a target that it does not work
            if wants(target, event.event, event.said):
                newest[target.uuid, event.said["uuid"]] = {
                    "target_uuid": target.uuid, "alert_uuid": UUID(event.said["uuid"]), "tenant_id": target.tenant_id,
                    "sequence": event.sequence, "event": event.event, "said": event.said, "at": at,
                }  # fmt: skip
    if newest:
        await _upsert(db, list(newest.values()))
    return len(events)


async def _targets(db: AsyncSession, tenants: set[UUID]) -> Sequence[AlertTargetRow]:
    enabled = select(AlertTargetRow).where(AlertTargetRow.tenant_id.in_(tenants), AlertTargetRow.enabled.is_(True))
    return (await db.scalars(enabled)).all()


async def _upsert(db: AsyncSession, rows: list[dict[str, Any]]) -> None:
    """The newest event of an alert takes the place of an older one that was not told yet; its time stays."""
    made = sqlite.insert if db.get_bind().dialect.name == "sqlite" else postgresql.insert
    insert = made(AlertNoticeRow)
    newer = {name: insert.excluded[name] for name in ("sequence", "event", "said")}
    await (await db.connection()).execute(
        insert.on_conflict_do_update(
            index_elements=["target_uuid", "alert_uuid"], set_=newer,
            where=insert.excluded.sequence > AlertNoticeRow.sequence,
        ),
        rows,
    )  # fmt: skip


async def gather(db: AsyncSession, server: str, at: datetime) -> int:
    """Makes a message of the notices of each target whose time has come. Returns how many were made."""
    made = 0
    for target in await _ready(db, at):
        gone = delete(AlertNoticeRow).where(AlertNoticeRow.target_uuid == target.uuid).returning(AlertNoticeRow)
        items = [{**one.said, "event": one.event} for one in (await db.scalars(gone)).all()]
        if items:
            await _put(db, target, "alerts", items, server, at)
            made += 1
    return made


async def _ready(db: AsyncSession, at: datetime) -> list[AlertTargetRow]:
    """Targets whose notices are to become a message now."""
    waiting = (
        select(AlertNoticeRow.target_uuid, func.min(AlertNoticeRow.at).label("since"))
        .group_by(AlertNoticeRow.target_uuid)
        .subquery()
    )
    under_way = exists().where(AlertDeliveryRow.target_uuid == AlertTargetRow.uuid, AlertDeliveryRow.state == "waiting")
    found = await db.execute(
        select(AlertTargetRow, waiting.c.since)
        .join(waiting, waiting.c.target_uuid == AlertTargetRow.uuid)
        .where(~under_way, AlertTargetRow.enabled.is_(True))
        .execution_options(populate_existing=True)
    )
    return [target for target, since in found.all() if _is_time(target, since, at)]


def _is_time(target: AlertTargetRow, since: datetime, at: datetime) -> bool:
    if since + timedelta(seconds=target.fields["wait_seconds"]) > at:
        return False
    return target.message_at is None or target.message_at + timedelta(seconds=target.fields["quiet_seconds"]) <= at


async def is_busy(db: AsyncSession, target: UUID) -> bool:
    """Whether a message is on its way to it."""
    mine = (AlertDeliveryRow.target_uuid == target) & (AlertDeliveryRow.state == "waiting")
    return bool(await db.scalar(select(exists(select(AlertDeliveryRow.uuid).where(mine)))))


async def remind(db: AsyncSession, server: str, at: datetime) -> int:
    """Makes messages that tell again of what nobody looks after. Returns how many."""
    due = select(AlertTargetRow).where(AlertTargetRow.remind_at <= at, AlertTargetRow.enabled.is_(True))
    made = 0
    for target in (await db.scalars(due.with_for_update(skip_locked=True))).all():
        pause = timedelta(hours=target.fields["remind_hours"])
        target.remind_at = at + pause
        items = [{**said, "event": "open"} for said in await _open(db, target, at - pause)]
        if items and not await is_busy(db, target.uuid):
            await _put(db, target, "reminder", items, server, at)
            made += 1
    return made


async def _open(db: AsyncSession, target: AlertTargetRow, before: datetime) -> list[dict[str, Any]]:
    rows = await db.scalars(
        select(AlertRow)
        .where(AlertRow.tenant_id == target.tenant_id, AlertRow.raised_at <= before, AlertRow.subject != target.uuid)
        .where(AlertRow.resolved_at.is_(None), AlertRow.acknowledged_at.is_(None))
        .order_by(AlertRow.raised_at.desc())
        .limit(OPEN_MAX)
    )
    shown = [Alert.model_validate({name: getattr(row, name) for name in Alert.model_fields}) for row in rows]
    said = [one.model_dump(mode="json", include=set(SAID)) for one in shown]
    return [one for one in said if wants(target, "open", one)]


async def _put(
    db: AsyncSession, target: AlertTargetRow, kind: str, items: list[dict[str, Any]], server: str, at: datetime
) -> None:
    await _name(db, items)
    tenant = await db.get_one(TenantRow, target.tenant_id)
    content = content_of(kind, (tenant.uuid, tenant.name), server, items, at)
    db.add(
        AlertDeliveryRow(
            uuid=new_id(), tenant_id=target.tenant_id, target_uuid=target.uuid, kind=kind, content=content,
            created_at=at, due_at=at,
        )
    )  # fmt: skip
    target.message_at = at
    await db.flush()


async def _name(db: AsyncSession, items: list[dict[str, Any]]) -> None:
    """Puts the names of agents and jobs beside their UUIDs."""
    for key, row in (("agent", AgentRow), ("job", JobRow)):
        wanted = {one[f"{key}_uuid"] for one in items} - {None}
        names: dict[str, str] = {}
        for part in _parts([UUID(text) for text in wanted]):
            found = await db.execute(select(row.uuid, row.name).where(row.uuid.in_(part)))
            names |= {str(uuid): name for uuid, name in found}
        for one in items:
            one[f"{key}_name"] = names.get(one[f"{key}_uuid"] or "")


def _parts(uuids: list[UUID]) -> Iterable[list[UUID]]:
    return (uuids[first : first + 500] for first in range(0, len(uuids), 500))


async def forget(db: AsyncSession, at: datetime) -> None:
    """Takes away messages that were done long ago."""
    await db.execute(delete(AlertDeliveryRow).where(AlertDeliveryRow.done_at < at - KEPT))


async def drop(db: AsyncSession, target: UUID, why: str, at: datetime) -> None:
    """Nothing more goes to a target that was turned off."""
    await db.execute(delete(AlertNoticeRow).where(AlertNoticeRow.target_uuid == target))
    mine = (AlertDeliveryRow.target_uuid == target) & (AlertDeliveryRow.state == "waiting")
    gone = {"state": "failed", "done_at": at, "detail": why}
    await db.execute(update(AlertDeliveryRow).where(mine).values(**gone))
