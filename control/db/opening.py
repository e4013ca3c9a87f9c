"""What the commands share that use the database without a server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from control.db.engine import make_engine, make_sessions
from control.db.migrate import require_current
from control.settings import ServerSettings


@asynccontextmanager
async def engine_of(settings: ServerSettings) -> AsyncIterator[AsyncEngine]:
    """The engine; SQLite's folder is made if need be. Raises ConfigError."""
    if settings.database.startswith("sqlite"):
        settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    engine = make_engine(settings.database)
    try:
        yield engine
    finally:
        await engine.dispose()


@asynccontextmanager
async def transaction(settings: ServerSettings) -> AsyncIterator[AsyncSession]:
    """A transaction on a database that has the form this version needs. Raises ConfigError if it has not."""
    async with engine_of(settings) as engine:
        await require_current(engine)
        async with make_sessions(engine).begin() as db:
            yield db
