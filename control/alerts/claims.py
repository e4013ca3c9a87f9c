"""Which process sends a message, and what became of it: at least once, under one UUID, and not for ever.

A claim is a row's time in the future. A process that dies at it, also by SIGKILL, leaves the message to the next one
when that time is over; the attempt has been counted, so that a message nobody survives ends too.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVarTuple
from uuid import UUID

from sqlalchemy import ColumnElement, Select, and_, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from control.alerts.raising import raise_alert, resolve_alerts
from control.alerts.tables import AlertDeliveryRow, AlertTargetRow
from control.auth.tables import TenantRow

CLAIM = timedelta(seconds=60)  # longer than any way of sending takes
ATTEMPTS = 8  # over about fifteen hours
FIRST, LONGEST, GROWTH = 30.0, 6 * 3600.0, 4.0  # seconds between attempts
SPREAD = 0.2  # of a pause, so that what failed together does not come back together
PER_TENANT = 2  # at a time: one whose targets are slow does not keep others waiting
CHAT, CHATS, CHATS_PER_TENANT = "apprise", 2, 1  # each is a process, which takes 60 MiB
_LOOK = 100

Columns = TypeVarTuple("Columns")


@dataclass(frozen=True, slots=True)
class Work:
    """A message that this process is to send."""

    uuid: UUID
    tenant: UUID
    target: UUID
    attempt: int
    content: dict[str, Any]
    kind: str  # of the target


def pause(attempt: int, chance: float | None = None) -> timedelta:
    """How long to wait after `attempt` (from 1) failed; `chance` from 0 to 1."""
    seconds = min(LONGEST, FIRST * GROWTH ** (attempt - 1))
    spread = 1 - SPREAD + 2 * SPREAD * (random.random() if chance is None else chance)
    return timedelta(seconds=seconds * spread)


def _is_due(at: datetime) -> Any:
    free = or_(AlertDeliveryRow.claimed_until.is_(None), AlertDeliveryRow.claimed_until <= at)
    return (AlertDeliveryRow.state == "waiting") & (AlertDeliveryRow.due_at <= at) & free


async def is_due(db: AsyncSession, at: datetime) -> bool:
    """Whether a message waits to be sent."""
    return await db.scalar(_of_active(select(AlertDeliveryRow.uuid)).where(_is_due(at)).limit(1)) is not None


def _of_active(messages: Select[*Columns]) -> Select[*Columns]:
    """Those of tenants that are not suspended."""
    return messages.join(TenantRow, TenantRow.uuid == AlertDeliveryRow.tenant_id).where(TenantRow.suspended.is_(False))


class _Room:
    """What can be begun beside what is under way. What there is no room for is not claimed: it does not wait for its
    turn within the time of an attempt.
    """

    def __init__(self, under_way: Iterable[Work]) -> None:
        self._all, self._chats = Counter[UUID](), Counter[UUID]()
        for work in under_way:
            self.take(work.tenant, work.kind)

    def take(self, tenant: UUID, kind: str) -> None:
        """One more is under way."""
        self._all[tenant] += 1
        self._chats[tenant] += kind == CHAT

    def has(self, tenant: UUID, kind: str) -> bool:
        """Whether one more may be."""
        if kind == CHAT and (self._chats.total() >= CHATS or self._chats[tenant] >= CHATS_PER_TENANT):
            return False
        return self._all[tenant] < PER_TENANT

    @property
    def condition(self) -> ColumnElement[bool]:
        """Leaves out what there is no room for, however much of it waits."""
        no_chat = [tenant for tenant, count in self._chats.items() if count >= CHATS_PER_TENANT]
        chat = AlertTargetRow.kind == CHAT
        if self._chats.total() < CHATS:
            chat = and_(chat, AlertDeliveryRow.tenant_id.in_(no_chat))
        full = [tenant for tenant, count in self._all.items() if count >= PER_TENANT]
        return AlertDeliveryRow.tenant_id.not_in(full) & ~chat


async def claim(db: AsyncSession, at: datetime, most: int, under_way: Iterable[Work]) -> list[Work]:
    """Up to `most` messages, for this process alone, which is at those `under_way`."""
    room = _Room(under_way)
    due = await db.execute(
        _of_active(select(AlertDeliveryRow.uuid, AlertDeliveryRow.tenant_id, AlertTargetRow.kind))
        .join(AlertTargetRow, AlertTargetRow.uuid == AlertDeliveryRow.target_uuid)
        .where(_is_due(at), room.condition)
        .order_by(AlertDeliveryRow.due_at)
        .limit(_LOOK)
    )
    taken: list[Work] = []
    for uuid, tenant, kind in due.all():
        if len(taken) >= most:
            break
        if not room.has(tenant, kind):
            continue
        found = await db.execute(
            update(AlertDeliveryRow)
            .where(AlertDeliveryRow.uuid == uuid, _is_due(at))
            .values(claimed_until=at + CLAIM, attempts=AlertDeliveryRow.attempts + 1)
            .returning(AlertDeliveryRow.target_uuid, AlertDeliveryRow.attempts, AlertDeliveryRow.content)
            .execution_options(synchronize_session=False)
        )
        for target, attempts, content in found:
            taken.append(Work(uuid, tenant, target, attempts, content, kind))
            room.take(tenant, kind)
    return taken


async def note_sent(db: AsyncSession, work: Work, detail: str, at: datetime) -> None:
    """It is there."""
    if await _end(db, work, "sent", detail, at):
        values = {"sent": AlertTargetRow.sent + 1, "last_sent_at": at, "failing_since": None, "error": None}
        await db.execute(update(AlertTargetRow).where(AlertTargetRow.uuid == work.target).values(**values))
        await resolve_alerts(db, "undelivered", work.target)


async def note_failed(db: AsyncSession, work: Work, why: str, at: datetime) -> None:
    """It is not there: it is tried again, or given up, which is an alert of its own."""
    target = await db.get(AlertTargetRow, work.target, populate_existing=True)
    if target is None:
        return
    if work.attempt < ATTEMPTS:
        again = update(AlertDeliveryRow).where(AlertDeliveryRow.uuid == work.uuid, AlertDeliveryRow.state == "waiting")
        await db.execute(again.values(due_at=at + pause(work.attempt), claimed_until=None, detail=why))
    elif await _end(db, work, "failed", why, at):
        target.failed += 1
        text = f"alerts do not reach {target.name}: {why}"
        await raise_alert(db, work.tenant, "undelivered", target.uuid, text, severity="critical", lasting=True)
    target.failing_since, target.error = target.failing_since or at, why
    await db.flush()


async def _end(db: AsyncSession, work: Work, state: str, detail: str, at: datetime) -> bool:
    """Whether it was this that ended it."""
    ended = update(AlertDeliveryRow).where(AlertDeliveryRow.uuid == work.uuid, AlertDeliveryRow.state == "waiting")
    values = {"state": state, "detail": detail, "done_at": at, "claimed_until": None}
    return bool((await db.execute(ended.values(**values))).rowcount)  # type: ignore[attr-defined]


async def hurry(db: AsyncSession, target: UUID, at: datetime) -> None:
    """What waits for a target that was changed is tried at once."""
    waiting = (AlertDeliveryRow.target_uuid == target) & (AlertDeliveryRow.state == "waiting")
    free = AlertDeliveryRow.claimed_until.is_(None)
    await db.execute(update(AlertDeliveryRow).where(waiting, free).values(due_at=at, attempts=0))
