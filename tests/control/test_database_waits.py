"""Nobody waits for the database without an end, and who goes by itself goes on when it is back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import structlog
from sqlalchemy import select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from control.auth.tables import TenantRow
from control.db import engine as engines
from control.db.base import new_id
from control.db.engine import Sessions, make_engine, make_sessions
from control.db.migrate import migrate
from control.fleet.commands import REFRESH, Wakes, enqueue
from control.fleet.known import KnownAgents
from control.fleet.tables import AgentRow
from model.wire.commands import RefreshPolicy
from tests.control.postgres import Cluster

PATIENCE = 60.0
FIRST = TenantRow(uuid=new_id(), name="first")


def run(database: str, work: Callable[[Sessions], Awaitable[None]]) -> None:
    async def everything() -> None:
        async with _sessions(database) as sessions, asyncio.timeout(PATIENCE):
            await work(sessions)

    asyncio.run(everything())


@asynccontextmanager
async def _sessions(database: str) -> AsyncIterator[Sessions]:
    engine = make_engine(database)
    await migrate(engine)
    sessions = make_sessions(engine)
    async with sessions.begin() as db:
        db.add(TenantRow(uuid=FIRST.uuid, name="first"))
    await engine.dispose()  # bounds are those of a connection when it is made: what a test makes tight begins here
    try:
        yield sessions
    finally:
        await engine.dispose()


async def rename(sessions: Sessions, name: str) -> None:
    async with sessions.begin() as db:
        await db.execute(update(TenantRow).where(TenantRow.uuid == FIRST.uuid).values(name=name))


class Holder:
    """A transaction that changed a row, and does nothing more until it is let go."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions, self._holds, self._go = sessions, asyncio.Event(), asyncio.Event()

    async def begin(self) -> None:
        self._task = asyncio.create_task(self._hold())
        await self._holds.wait()

    async def let_go(self) -> None:
        """Raises what its commit does."""
        self._go.set()
        await self._task

    async def _hold(self) -> None:
        async with self._sessions.begin() as db:
            await db.execute(update(TenantRow).where(TenantRow.uuid == FIRST.uuid).values(name="holder"))
            self._holds.set()
            await self._go.wait()


async def name_of(sessions: Sessions) -> str | None:
    async with sessions() as db:
        return await db.scalar(select(TenantRow.name).where(TenantRow.uuid == FIRST.uuid))


def test_who_waits_too_long_for_another_transaction_is_told(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def queued(sessions: Sessions) -> None:
        monkeypatch.setattr(engines, "LOCK_SECONDS", 0.5)
        holder = Holder(sessions)
        await holder.begin()
        for _ in range(3):
            with pytest.raises(SQLAlchemyError) as refused:
                await rename(sessions, "impatient")
            assert isinstance(refused.value, PoolTimeout) or "lock timeout" in str(refused.value)
        await holder.let_go()
        assert await name_of(sessions) == "holder"
        await rename(sessions, "next")
        assert await name_of(sessions) == "next"

    run(database, queued)


@pytest.mark.slow
def test_a_transaction_that_does_nothing_lets_its_rows_go(postgres: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """As that of a process that was stopped, or whose machine is gone."""

    async def stuck(sessions: Sessions) -> None:
        monkeypatch.setattr(engines, "IDLE_SECONDS", 5.0)
        holder = Holder(sessions)
        await holder.begin()
        await rename(sessions, "waited")
        with suppress(SQLAlchemyError):
            await holder.let_go()
        assert await name_of(sessions) == "waited"

    run(postgres.database(), stuck)


def test_commands_of_other_processes_are_seen_after_the_database_was_away(tmp_path: Path) -> None:
    async def away() -> None:
        engine = make_engine(f"sqlite:///{tmp_path / 'database.sqlite3'}")
        sessions, wakes, agent = make_sessions(engine), Wakes(KnownAgents()), new_id()
        event = wakes.watch(agent)
        looking = asyncio.create_task(wakes.look(sessions, structlog.get_logger("test")))
        await asyncio.wait([looking], timeout=1.0)  # there are no tables
        await migrate(engine)
        async with sessions.begin() as db:
            db.add(TenantRow(uuid=FIRST.uuid, name="first"))
            await db.flush()
            db.add(AgentRow(uuid=agent, tenant_id=FIRST.uuid, name="web-1", hostname="web-1", os="linux", tags=[]))
            await db.flush()
            await enqueue(db, agent, RefreshPolicy(), REFRESH)
        assert await wakes.wait(agent, event, PATIENCE)
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
        await engine.dispose()

    asyncio.run(away())
