"""From alerts to messages: what is told together, how often it is tried, and that two processes send none twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import delete, select, update

from control.alerts import claims, outbox
from control.alerts.content import LISTED_MAX, headline, text_of
from control.alerts.raising import raise_alert, resolve_alerts
from control.alerts.tables import AlertDeliveryRow, AlertEventRow, AlertNoticeRow, AlertRow, AlertTargetRow
from control.auth.tables import TenantRow
from control.db.base import new_id, now
from control.db.engine import Sessions, make_engine, make_sessions
from control.db.migrate import migrate
from model.wire.alert_targets import Choice

SERVER = "https://backup.example.com"


@dataclass
class Outbox:
    """A database with two tenants, and a target of each."""

    sessions: Sessions
    tenant: UUID
    target: UUID
    foreign: UUID
    under_way: list[claims.Work] = field(default_factory=list)

    async def step(self, at: Any) -> None:
        """What the server does every second."""
        async with self.sessions.begin() as db:
            while await outbox.note_events(db, at):
                pass
            await outbox.remind(db, SERVER, at)
            await outbox.gather(db, SERVER, at)

    async def settle(self) -> Any:
        """What happened becomes messages. Returns the time at which it did."""
        await self.step(now())
        at = now() + timedelta(seconds=31)
        await self.step(at)
        return at

    async def claim(self, at: Any, most: int = 8) -> list[claims.Work]:
        async with self.sessions.begin() as db:
            return await claims.claim(db, at, most, self.under_way)

    async def contents(self, target: UUID | None = None) -> list[dict[str, Any]]:
        """Of all messages to a target."""
        mine = AlertDeliveryRow.target_uuid == (target or self.target)
        async with self.sessions() as db:
            return list(await db.scalars(select(AlertDeliveryRow.content).where(mine).order_by(AlertDeliveryRow.uuid)))


def _target(tenant: UUID, **choice: Any) -> AlertTargetRow:
    fields = {**Choice.model_validate(choice).model_dump(mode="json"), "address": "https://hooks.example.com/…"}
    return AlertTargetRow(uuid=new_id(), tenant_id=tenant, name="on call", kind="webhook", fields=fields, sealed=b"")


@asynccontextmanager
async def _outbox(database: str, **choice: Any) -> AsyncIterator[Outbox]:
    engine = make_engine(database)
    await migrate(engine)
    sessions = make_sessions(engine)
    async with sessions.begin() as db:
        tenants = [TenantRow(uuid=new_id(), name=str(new_id())) for _ in range(2)]
        db.add_all(tenants)
        await db.flush()
        targets = [_target(tenant.uuid, **choice) for tenant in tenants]
        db.add_all(targets)
    try:
        yield Outbox(sessions, tenants[0].uuid, targets[0].uuid, targets[1].uuid)
    finally:
        await engine.dispose()


def run(database: str, work: Callable[[Outbox], Awaitable[None]], **choice: Any) -> None:
    async def everything() -> None:
        async with _outbox(database, **choice) as found:
            await work(found)

    asyncio.run(everything())


async def offline(box: Outbox, count: int) -> list[UUID]:
    """An outage: as many alerts in one transaction."""
    agents = [new_id() for _ in range(count)]
    async with box.sessions.begin() as db:
        for number, agent in enumerate(agents):
            await raise_alert(db, box.tenant, "offline", agent, f"web-{number} is silent", severity="critical")
    return agents


def test_an_outage_is_one_message_and_its_end_another(database: str) -> None:
    async def outage(box: Outbox) -> None:
        begin = now()
        agents = await offline(box, 130)
        await box.step(begin)
        assert await box.contents() == [], "there may be more"
        await box.step(begin + timedelta(seconds=31))
        (content,) = await box.contents()
        assert (content["total"], content["kinds"], len(content["alerts"])) == (130, {"offline": 130}, LISTED_MAX)
        assert headline(content) == "130 alerts (130 offline)" and "... and 30 more" in text_of(content)
        assert await box.contents(box.foreign) == [], "another tenant hears nothing"
        (work,) = await box.claim(begin + timedelta(seconds=31))
        async with box.sessions.begin() as db:
            await claims.note_sent(db, work, "taken", begin)
            for agent in agents:
                await resolve_alerts(db, "offline", agent)
            await raise_alert(db, box.tenant, "failed", new_id(), "x")
        await box.step(begin + timedelta(seconds=100))
        assert len(await box.contents()) == 1, "five minutes are to lie between two messages"
        await box.step(begin + timedelta(seconds=332))
        last = (await box.contents())[-1]
        assert last["events"] == {"opened": 1, "resolved": 130} and last["alerts"][0]["kind"] == "failed"
        assert headline(last) == "1 alerts (1 failed); 130 resolved"
        async with box.sessions() as db:
            assert (await db.scalars(select(AlertEventRow.sequence))).all() == []
            assert (await db.scalars(select(AlertNoticeRow.alert_uuid))).all() == []

    run(database, outage)


def test_what_opened_and_ended_in_between_is_told_once(database: str) -> None:
    async def flap(box: Outbox) -> None:
        begin, subject = now(), new_id()
        async with box.sessions.begin() as db:
            await raise_alert(db, box.tenant, "failed", subject, "x")
        await box.step(begin)
        async with box.sessions.begin() as db:
            await resolve_alerts(db, "failed", subject)
        await box.step(begin + timedelta(seconds=31))
        (content,) = await box.contents()
        assert content["events"] == {"resolved": 1} and content["total"] == 1

    run(database, flap)


def test_an_alert_without_its_transaction_is_told_to_nobody(database: str) -> None:
    async def undone(box: Outbox) -> None:
        with pytest.raises(ZeroDivisionError):
            async with box.sessions.begin() as db:
                await raise_alert(db, box.tenant, "failed", new_id(), "x")
                raise ZeroDivisionError
        await box.step(now() + timedelta(hours=1))
        assert await box.contents() == []

    run(database, undone)


def test_a_target_that_does_not_answer_has_one_message_on_its_way(database: str) -> None:
    """And what is given up is an alert, which goes to others, until something gets there again."""

    async def dead(box: Outbox) -> None:
        async with box.sessions.begin() as db:
            other = _target(box.tenant, wait_seconds=0, quiet_seconds=0, kinds=["undelivered"])
            db.add(other)
        await offline(box, 1)
        at, pauses = await box.settle(), []
        for attempt in range(1, claims.ATTEMPTS + 1):
            (work,) = await box.claim(at)
            assert work.attempt == attempt and await box.claim(at) == []
            async with box.sessions.begin() as db:
                await claims.note_failed(db, work, "it answered 500", at)
            await offline(box, 1)
            await box.step(at)
            async with box.sessions() as db:
                row = await db.get_one(AlertDeliveryRow, work.uuid)
            pauses.append((row.due_at - at).total_seconds())
            at = max(row.due_at, at)
        assert row.state == "failed" and pauses[-1] <= 0
        assert all(early < late for early, late in pairwise(pauses[:6])), pauses
        assert 3600 < sum(pauses[:-1]) < 86_400
        await box.step(at)
        (told,) = await box.contents(other.uuid)
        assert told["alerts"][0]["text"] == "alerts do not reach on call: it answered 500"
        await box.step(at + timedelta(seconds=600))
        assert [one["total"] for one in await box.contents()] == [1, claims.ATTEMPTS]
        works = await box.claim(at + timedelta(seconds=600))
        async with box.sessions.begin() as db:
            for work in works:
                await claims.note_sent(db, work, "taken", at)
            target = await db.get_one(AlertTargetRow, box.target)
            assert (target.sent, target.failed, target.failing_since, target.error) == (1, 1, None, None)
            opened = await db.scalars(select(AlertRow).where(AlertRow.kind == "undelivered"))
            assert [one.resolved_at is not None for one in opened] == [True]

    run(database, dead)


def test_two_processes_do_not_send_the_same(database: str) -> None:
    async def both(box: Outbox) -> None:
        await offline(box, 1)
        async with box.sessions.begin() as db:
            db.add_all([_target(box.tenant) for _ in range(5)])
        at = now() + timedelta(seconds=31)
        await asyncio.gather(*(box.step(now()) for _ in range(3)))
        await asyncio.gather(*(box.step(at) for _ in range(3)))
        async with box.sessions() as db:
            uuids = set((await db.scalars(select(AlertDeliveryRow.uuid))).all())
        taken: list[UUID] = []
        for _ in range(3):
            found = await asyncio.gather(*(box.claim(at) for _ in range(4)))
            works = [work for part in found for work in part]
            taken += [work.uuid for work in works]
            async with box.sessions.begin() as db:
                for work in works:
                    await claims.note_sent(db, work, "taken", at)
        assert sorted(taken) == sorted(uuids) and len(uuids) == 6

    run(database, both)


def test_who_waits_behind_slow_chats_has_not_been_tried(database: str) -> None:
    """At most so many are sent at a time, of which a tenant has one; what has no turn keeps its attempts."""

    async def slow(box: Outbox) -> None:
        at = now()
        async with box.sessions.begin() as db:
            tenants = [TenantRow(uuid=new_id(), name=str(new_id())) for _ in range(3)]
            db.add_all(tenants)
            await db.flush()
            chats = [_target(tenant.uuid) for tenant in tenants for _ in range(2)]
            for chat in chats:
                chat.kind = "apprise"
            db.add_all(chats)
            await db.flush()
            db.add_all(_waiting(chat.tenant_id, chat.uuid, at) for chat in chats for _ in range(20))
            db.add(_waiting(box.tenant, box.target, at + timedelta(seconds=1)))
        box.under_way = await box.claim(at)
        assert len({work.tenant for work in box.under_way}) == len(box.under_way) == claims.CHATS
        later = at + timedelta(seconds=2)
        hook = await box.claim(later)
        assert [work.target for work in hook] == [box.target], "others are sent beside them"
        ended, box.under_way = box.under_way[0], [*box.under_way[1:], *hook]
        (next_one,) = await box.claim(later)
        assert next_one.tenant not in [work.tenant for work in box.under_way] and next_one.kind == "apprise"
        async with box.sessions() as db:
            tried = list(await db.scalars(select(AlertDeliveryRow.attempts).where(AlertDeliveryRow.attempts > 0)))
        assert tried == [1] * 4 and ended.uuid != next_one.uuid

    run(database, slow)


def _waiting(tenant: UUID, target: UUID, at: datetime) -> AlertDeliveryRow:
    return AlertDeliveryRow(uuid=new_id(), tenant_id=tenant, target_uuid=target, kind="events", content={}, due_at=at)


def test_a_tenant_with_many_messages_keeps_nobody_waiting(database: str) -> None:
    async def crowd(box: Outbox) -> None:
        at = now()
        async with box.sessions.begin() as db:
            other = await db.scalar(select(AlertTargetRow.tenant_id).where(AlertTargetRow.uuid == box.foreign))
            assert other is not None
            db.add_all(_waiting(box.tenant, box.target, at) for _ in range(150))
            db.add(_waiting(other, box.foreign, at + timedelta(seconds=1)))
        mine = [work for work in await box.claim(at) if work.tenant == box.tenant]
        assert len(mine) == claims.PER_TENANT
        box.under_way = mine
        assert [work.target for work in await box.claim(at + timedelta(seconds=2))] == [box.foreign]
        async with box.sessions.begin() as db:
            assert await claims.is_due(db, at)
            await db.execute(update(TenantRow).values(suspended=True))
            assert not await claims.is_due(db, at), "nobody looks each second for what is not sent"

    run(database, crowd)


def test_who_died_lets_go_and_who_comes_late_changes_nothing(database: str) -> None:
    async def died(box: Outbox) -> None:
        await offline(box, 1)
        at = await box.settle()
        (first,) = await box.claim(at)
        assert await box.claim(at + claims.CLAIM - timedelta(seconds=1)) == []
        (second,) = await box.claim(at + claims.CLAIM)
        assert (second.uuid, second.content, second.attempt) == (first.uuid, first.content, 2)
        async with box.sessions.begin() as db:
            await claims.note_sent(db, second, "taken", at)
            await claims.note_failed(db, first, "too late", at)
            row = await db.get_one(AlertDeliveryRow, first.uuid, populate_existing=True)
            assert row.state == "sent"

    run(database, died)


def test_reminders_tell_what_nobody_looks_after(database: str) -> None:
    async def reminded(box: Outbox) -> None:
        begin = now()
        (one, _, _) = await offline(box, 3)
        async with box.sessions.begin() as db:
            await db.execute(delete(AlertEventRow))
            await resolve_alerts(db, "offline", one)
            await db.execute(delete(AlertEventRow))
            left = select(AlertRow.uuid).where(AlertRow.resolved_at.is_(None)).limit(1).scalar_subquery()
            await db.execute(update(AlertRow).where(AlertRow.uuid == left).values(acknowledged_at=begin))
            target = await db.get_one(AlertTargetRow, box.target)
            target.remind_at = begin + timedelta(hours=2)
        await box.step(begin + timedelta(hours=1))
        assert await box.contents() == []
        await box.step(begin + timedelta(hours=2, minutes=30))
        (content,) = await box.contents()
        assert (content["type"], content["total"], content["alerts"][0]["event"]) == ("reminder", 1, "open")
        assert headline(content).startswith("still open: CRITICAL: web-")
        await box.step(begin + timedelta(hours=3))
        assert len(await box.contents()) == 1

    run(database, reminded, remind_hours=2)


def test_pauses_grow_and_end() -> None:
    seconds = [claims.pause(attempt, 0.5).total_seconds() for attempt in range(1, 10)]
    assert seconds[:4] == [30, 120, 480, 1920] and seconds[-1] == claims.LONGEST
    assert claims.pause(1, 0).total_seconds() == pytest.approx(24) and claims.pause(1, 1).total_seconds() == 36
