"""The engine: SQLite or PostgreSQL, set so that it keeps what it says it stored.

SQLite has one writer. Its driver begins a transaction only with the first change, so that what was read before may be
old by then; ours begins it at once and holds the lock to its end: what a transaction reads stays true until it commits.
Writers of one process wait in a queue of ours, because those who wait for SQLite's own lock sleep, and not in turn.

Nobody waits without an end, whoever holds a lock, and also when PostgreSQL, or the way to it, is gone without a word.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import Connection, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import ORMExecuteState, Session, SessionTransaction
from sqlalchemy.orm.session import SessionTransactionOrigin

from model.errors import ConfigError

BUSY_MILLISECONDS = 10_000
LOCK_SECONDS = 30.0  # for a turn of SQLite's writers, or a row that another transaction holds
STATEMENT_SECONDS = 120.0
IDLE_SECONDS = 60.0  # after which PostgreSQL ends a transaction that does nothing and holds its rows
_AWAY = {"connect_timeout": 10, "keepalives_idle": 15, "keepalives_interval": 5, "keepalives_count": 3,
         "tcp_user_timeout": 30_000}  # fmt: skip


class Sessions:
    """Gives sessions: ``async with sessions() as db`` to read, ``async with sessions.begin() as db`` to change.

    With SQLite both see one state of the database from their first query to their end. A reader must not change
    anything, and a writer must not begin another transaction, which would wait for it: RuntimeError.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._make = async_sessionmaker(engine, expire_on_commit=False, sync_session_class=_Session)
        self._turn = asyncio.Lock() if engine.dialect.name == "sqlite" else None
        self._holder: asyncio.Task[Any] | None = None

    def __call__(self) -> AsyncSession:
        return self._make()

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncSession]:
        """A transaction: committed at the end, or rolled back if something is raised.

        Raises sqlalchemy.exc.TimeoutError if others hold the database, or all connections to it, for too long.
        """
        if self._turn is None:
            async with self._make.begin() as db:
                yield db
            return
        if self._holder is asyncio.current_task():
            raise RuntimeError("a transaction within a transaction")
        await self._take(self._turn)
        try:
            self._holder = asyncio.current_task()
            async with self._make.begin() as db:
                yield db
        finally:
            self._holder = None
            self._turn.release()

    async def _take(self, turn: asyncio.Lock) -> None:
        try:
            async with asyncio.timeout(LOCK_SECONDS):
                await turn.acquire()
        except TimeoutError:
            raise PoolTimeout(f"others have written to the database for {LOCK_SECONDS:.0f} s") from None


class _Session(Session):
    """Its transactions are begun by `_begin_sqlite`."""


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
        away = {name: value for name, value in _AWAY.items() if name not in parsed.query}
        parsed = parsed.set(drivername="postgresql+psycopg")
        engine = create_async_engine(parsed, pool_size=8, max_overflow=8, connect_args=away)
        event.listen(engine.sync_engine, "connect", _prepare_postgresql)
        return engine
    raise ConfigError("cannot use this database", subject="database_url", why=f"it is {kind}, not sqlite or postgresql")


def make_sessions(engine: AsyncEngine) -> Sessions:
    """What gives a session: ``async with sessions.begin() as session``."""
    return Sessions(engine)


def begin_writing(connection: Connection) -> None:
    """Begins a transaction that changes something, on a connection that no session has."""
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN IMMEDIATE")


@event.listens_for(_Session, "after_begin")
def _begin_sqlite(session: Session, transaction: SessionTransaction, connection: Connection) -> None:
    if connection.dialect.name == "sqlite":
        writes = transaction.origin is SessionTransactionOrigin.BEGIN
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


@event.listens_for(_Session, "do_orm_execute")
def _refuse_writing(state: ORMExecuteState) -> None:
    if state.is_insert or state.is_update or state.is_delete:
        _needs_begin(state.session)


@event.listens_for(_Session, "before_flush")
def _refuse_flushing(session: Session, context: object, instances: object) -> None:
    _needs_begin(session)


def _needs_begin(session: Session) -> None:
    transaction = session.get_transaction()
    if transaction is not None and transaction.origin is SessionTransactionOrigin.AUTOBEGIN:
        raise RuntimeError("what changes something needs sessions.begin()")


def _prepare_sqlite(connection: Any, _: object) -> None:
    connection.isolation_level = None  # the driver begins nothing by itself
    cursor = connection.cursor()
    for setting in ("journal_mode=WAL", "synchronous=FULL", f"busy_timeout={BUSY_MILLISECONDS}", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {setting}")
    cursor.close()


def _prepare_postgresql(connection: Any, _: object) -> None:
    cursor = connection.cursor()
    for name, seconds in (
        ("lock_timeout", LOCK_SECONDS),
        ("statement_timeout", STATEMENT_SECONDS),
        ("idle_in_transaction_session_timeout", IDLE_SECONDS),
    ):
        cursor.execute(f"SET {name} = {round(seconds * 1000)}")
    cursor.close()
    connection.commit()
