"""What was deleted is summed up while others delete: nobody waits for it, and nothing is left out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
import structlog
from sqlalchemy import select
from sqlalchemy.exc import TimeoutError as PoolTimeout

from control.audit import AuditRow
from control.auth.roles import Principal
from control.db import engine
from control.db.engine import Sessions, make_engine, make_sessions
from control.db.migrate import migrate
from control.vault.deletions import LONGEST_SECONDS, Deletions

TENANT, PATIENCE = uuid4(), 60.0
WHO = Principal("agent", uuid4(), "web-1", TENANT, frozenset())


@asynccontextmanager
async def audited(folder: Path) -> AsyncIterator[tuple[Deletions, Sessions]]:
    made = make_engine(f"sqlite:///{folder / 'database.sqlite3'}")
    await migrate(made)
    sessions = make_sessions(made)
    try:
        yield Deletions(sessions, structlog.get_logger("test")), sessions
    finally:
        await made.dispose()


async def delete(deletions: Deletions, repository: UUID, name: str) -> None:
    async with deletions.batch(TENANT, WHO, repository, "") as batch:
        batch.add(name, 10)


async def log(sessions: Sessions, repository: UUID) -> list[tuple[str, Any]]:
    rows = select(AuditRow).where(AuditRow.subject == repository).order_by(AuditRow.sequence)
    async with sessions() as db:
        return [(row.action, row.details.get("names")) for row in await db.scalars(rows)]


def test_summing_up_waits_for_a_slow_request_and_others_do_not(tmp_path: Path) -> None:
    slow, other = uuid4(), uuid4()

    async def everything() -> None:
        async with audited(tmp_path) as (deletions, sessions), asyncio.timeout(PATIENCE):
            async with deletions.batch(TENANT, WHO, slow, "") as batch:  # its disk does not answer
                batch.begun -= LONGEST_SECONDS + 1
                summing = asyncio.create_task(deletions.sum_up())
                await asyncio.sleep(0.1)
                await delete(deletions, other, "packs/1")
                await delete(deletions, slow, "packs/2")
                assert await log(sessions, slow) == [("vault.delete.begin", None)] * 2, "the second is a new batch"
                batch.add("packs/3", 10)
            await summing
            await deletions.sum_up()
            assert (await log(sessions, slow))[2:] == [("vault.delete", ["packs/3"])]
            await deletions.finish()
            assert (await log(sessions, slow))[3:] == [("vault.delete", ["packs/2"])]
            assert await log(sessions, other) == [("vault.delete.begin", None), ("vault.delete", ["packs/1"])]

    asyncio.run(everything())


def test_what_is_deleted_while_the_server_stops_is_summed_up(tmp_path: Path) -> None:
    repository = uuid4()

    async def everything() -> None:
        async with audited(tmp_path) as (deletions, sessions), asyncio.timeout(PATIENCE):
            stopping = asyncio.Event()
            running = asyncio.create_task(deletions.run(stopping))
            async with deletions.batch(TENANT, WHO, repository, "") as batch:
                stopping.set()
                await running
                batch.add("packs/1", 10)
            await asyncio.gather(*(delete(deletions, repository, f"packs/{number}") for number in (2, 3)))
            await deletions.finish()
            begin, (action, names) = await log(sessions, repository)
            assert begin == ("vault.delete.begin", None)
            assert (action, sorted(names)) == ("vault.delete", ["packs/1", "packs/2", "packs/3"])

    asyncio.run(everything())


def test_who_waits_for_the_same_beginning_fails_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not one after the other, each after waiting for the database as long as one may."""
    repository = uuid4()

    async def everything() -> None:
        async with audited(tmp_path) as (deletions, sessions), asyncio.timeout(PATIENCE):
            monkeypatch.setattr(engine, "LOCK_SECONDS", 2.0)
            async with sessions.begin():  # the database cannot be written to
                names = [f"packs/{number}" for number in range(60)]
                found = await asyncio.gather(
                    *(delete(deletions, repository, name) for name in names), return_exceptions=True
                )
            assert {type(one) for one in found} == {PoolTimeout}
            monkeypatch.setattr(engine, "LOCK_SECONDS", PATIENCE)
            await delete(deletions, repository, "packs/1")
            await deletions.finish()
            assert await log(sessions, repository) == [("vault.delete.begin", None), ("vault.delete", ["packs/1"])]

    asyncio.run(everything())
