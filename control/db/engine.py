"""The engine: SQLite or PostgreSQL, set so that it keeps what it says it stored."""

from __future__ import annotations

from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine

from model.errors import ConfigError

BUSY_MILLISECONDS = 10_000
Sessions = async_sessionmaker[AsyncSession]


def make_engine(url: str) -> AsyncEngine:
    """The engine for `url`: ``sqlite:///FILE`` or ``postgresql://...``. Raises ConfigError."""
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise ConfigError("cannot use this database", subject="database_url", why=str(error)) from error
    kind = parsed.get_backend_name()
    if kind == "sqlite":
        engine = create_async_engine(parsed.set(drivername="sqlite+aiosqlite"), pool_size=8, max_overflow=0)
        event.listen(engine.sync_engine, "connect", _prepare_sqlite)
        return engine
    if kind == "postgresql":
        return create_async_engine(parsed.set(drivername="postgresql+psycopg"), pool_size=8, max_overflow=8)
    raise ConfigError("cannot use this database", subject="database_url", why=f"it is {kind}, not sqlite or postgresql")


def make_sessions(engine: AsyncEngine) -> Sessions:
    """What gives a session: ``async with sessions.begin() as session``."""
    return async_sessionmaker(engine, expire_on_commit=False)


def _prepare_sqlite(connection: Any, _: object) -> None:
    cursor = connection.cursor()
    for setting in ("journal_mode=WAL", "synchronous=NORMAL", f"busy_timeout={BUSY_MILLISECONDS}", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {setting}")
    cursor.close()
