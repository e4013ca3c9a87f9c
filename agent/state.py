"""What an agent must not forget, in one SQLite file: marks of the schedule, runs, and what the server is to be told.

Every method is one transaction, durable when it returns: a SIGKILL, or a power cut, comes before or after it.
"""

from __future__ import annotations

import errno
import json
import sqlite3
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from agent.schedule import Mark
from model.errors import ConfigError, LoxError

VERSION = 1
SPOOL_MAX = 200_000  # events kept for a server that is away; then the oldest log lines and problems go
UNWRITABLE_SECONDS = 5.0  # until it is tried again to write
TAKEN_MAX = 10_000  # ids of commands that are remembered
_TABLES = """
CREATE TABLE notes (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE marks (job TEXT PRIMARY KEY, until REAL NOT NULL, fingerprint TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE runs (
    run TEXT PRIMARY KEY, job TEXT, kind TEXT NOT NULL, state TEXT NOT NULL, body TEXT NOT NULL,
    told INTEGER NOT NULL DEFAULT 0, begun REAL, pid INTEGER, pid_began REAL, status TEXT, ended REAL
);
CREATE TABLE events (
    run TEXT NOT NULL, sequence INTEGER NOT NULL, kind TEXT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (run, sequence)
) WITHOUT ROWID;
CREATE TABLE taken (place INTEGER PRIMARY KEY AUTOINCREMENT, command TEXT NOT NULL UNIQUE);
"""


# What passes when somebody makes room, or mounts the file system so that it can be written again.
_SQLITE_PASSING = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_BUSY}
_SYSTEM_PASSING = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO}


class StateUnwritable(LoxError):
    """Nothing can be written down now, and nothing was: the disk is full, or read-only."""


@dataclass(slots=True)
class RunRow:
    """A run as the agent remembers it. `state`: waiting, running, ended. Times are seconds since 1970."""

    run: UUID
    job: UUID | None
    kind: str  # backup or restore
    state: str
    body: dict[str, Any]
    begun: float | None = None
    pid: int | None = None
    pid_began: float | None = None
    status: str | None = None
    ended: float | None = None


class State:
    """The file at `path`. May be used from any thread.

    Raises ConfigError if it cannot be used; it and all that writes raise StateUnwritable while the disk is full.
    """

    def __init__(self, path: Path) -> None:
        self._lock, self._path = threading.Lock(), path
        try:
            path.touch(mode=0o600)
            self._db = sqlite3.connect(path, timeout=30.0, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._prepare(path)
        except (sqlite3.Error, OSError) as error:
            if _passes(error):
                raise _unwritable(path, error) from error
            hint = "move the file away: the agent then begins anew, and registers with its credential"
            raise ConfigError("cannot use the agent's state", subject=str(path), why=str(error), hint=hint) from error

    def _prepare(self, path: Path) -> None:
        with self._transaction():
            (found,) = self._db.execute("PRAGMA user_version").fetchone()
            if found == 0:
                for statement in filter(str.strip, _TABLES.split(";")):
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version={VERSION}")
            elif found != VERSION:
                raise ConfigError("the state is of another version of the agent", subject=str(path), why=str(found))

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._lock:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                yield
                self._db.execute("COMMIT")
            except BaseException as error:
                if self._db.in_transaction:
                    with suppress(sqlite3.Error):
                        self._db.execute("ROLLBACK")
                if _passes(error):
                    raise _unwritable(self._path, error) from error
                raise

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    # ---- notes: the policy, the last command, ...

    def note(self, name: str) -> Any:
        """What was noted last under this name, None if nothing."""
        with self._lock:
            row = self._db.execute("SELECT value FROM notes WHERE name=?", (name,)).fetchone()
        return None if row is None else json.loads(row[0])

    def put_note(self, name: str, value: Any) -> None:
        """Note something that JSON can hold."""
        with self._transaction():
            self._put_note(name, value)

    def _put_note(self, name: str, value: Any) -> None:
        self._db.execute("INSERT OR REPLACE INTO notes VALUES (?, ?)", (name, json.dumps(value)))

    # ---- schedule and runs

    def marks(self) -> dict[UUID, Mark]:
        """The marks of the schedule."""
        with self._lock:
            rows = self._db.execute("SELECT job, until, fingerprint FROM marks").fetchall()
        return {UUID(job): Mark(until, fingerprint) for job, until, fingerprint in rows}

    def decided(self, marks: Mapping[UUID, Mark], runs: Iterable[RunRow] = ()) -> None:
        """The schedule decided: these are its marks now, and these runs begin or wait."""
        with self._transaction():
            self._db.execute("DELETE FROM marks")
            rows = [(str(job), mark.until, mark.fingerprint) for job, mark in marks.items()]
            self._db.executemany("INSERT INTO marks VALUES (?, ?, ?)", rows)
            for run in runs:
                self._put_run(run)

    def take_command(self, command: UUID, sequence: int, run: RunRow | None = None) -> bool:
        """A command is taken over, once for ever, and with it the run that it asks for; False if it was before."""
        with self._transaction():
            self._put_note("command", sequence)
            done = self._db.execute("INSERT OR IGNORE INTO taken (command) VALUES (?)", (str(command),)).rowcount
            self._db.execute("DELETE FROM taken WHERE place <= (SELECT MAX(place) FROM taken) - ?", (TAKEN_MAX,))
            if done and run is not None:
                self._put_run(run)
        return bool(done)

    def put_run(self, run: RunRow) -> None:
        """Remember a run as it is now."""
        with self._transaction():
            self._put_run(run)

    def _put_run(self, run: RunRow) -> None:
        self._db.execute(
            "INSERT INTO runs (run, job, kind, state, body, begun, pid, pid_began, status, ended)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (run) DO UPDATE SET state=excluded.state,"
            " body=excluded.body, begun=excluded.begun, pid=excluded.pid, pid_began=excluded.pid_began,"
            " status=excluded.status, ended=excluded.ended",
            (str(run.run), None if run.job is None else str(run.job), run.kind, run.state, json.dumps(run.body),
             run.begun, run.pid, run.pid_began, run.status, run.ended),
        )  # fmt: skip

    def runs(self, *states: str) -> list[RunRow]:
        """Runs in these states, the oldest first."""
        marks = ",".join("?" * len(states))
        with self._lock:
            rows = self._db.execute(
                "SELECT run, job, kind, state, body, begun, pid, pid_began, status, ended FROM runs"
                f" WHERE state IN ({marks}) ORDER BY rowid",
                states,
            ).fetchall()
        return [
            RunRow(UUID(run), UUID(job) if job else None, kind, state, json.loads(body), *rest)
            for run, job, kind, state, body, *rest in rows
        ]

    # ---- what the server is to be told

    def tell(
        self, run: UUID, events: Iterable[tuple[str, Mapping[str, Any]]], row: RunRow, after: RunRow | None = None
    ) -> None:
        """Spool events of a run (kind and body), in order; with them, what the run is now, and one to follow it.

        Of progress only the latest is kept.
        """
        with self._transaction():
            self._put_run(row)
            if after is not None:
                self._put_run(after)
            found = self._db.execute("SELECT told FROM runs WHERE run=?", (str(run),)).fetchone()
            sequence = found[0] if found else 0
            for kind, body in events:
                sequence += 1
                if kind in ("progress", "finished"):
                    self._db.execute("DELETE FROM events WHERE run=? AND kind='progress'", (str(run),))
                place = (str(run), sequence, kind, json.dumps(body))
                self._db.execute("INSERT INTO events VALUES (?, ?, ?, ?)", place)
            self._db.execute("UPDATE runs SET told=? WHERE run=?", (sequence, str(run)))

    def untold(
        self, most: int, aside: Collection[UUID] = ()
    ) -> tuple[UUID, list[tuple[int, str, dict[str, Any]]]] | None:
        """Events of one run that the server does not have yet, in order; None if there are none but of runs `aside`."""
        with self._lock:
            found = self._db.execute(
                "SELECT runs.run FROM runs WHERE EXISTS (SELECT 1 FROM events WHERE events.run = runs.run)"
                " ORDER BY runs.rowid LIMIT ?",
                (1 + len(aside),),
            ).fetchall()
            first = next((run for (run,) in found if UUID(run) not in aside), None)
            if first is None:
                return None
            rows = self._db.execute(
                "SELECT sequence, kind, body FROM events WHERE run=? ORDER BY sequence LIMIT ?", (first, most)
            ).fetchall()
        return UUID(first), [(sequence, kind, json.loads(body)) for sequence, kind, body in rows]

    def spooled(self) -> int:
        """How many events the server does not have yet."""
        with self._lock:
            return int(self._db.execute("SELECT COUNT(*) FROM events").fetchone()[0])

    def told(self, run: UUID, sequence: int) -> None:
        """The server has the events of the run up to this one."""
        with self._transaction():
            self._db.execute("DELETE FROM events WHERE run=? AND sequence<=?", (str(run), sequence))

    def trim(self, keep_runs: int = 500) -> None:
        """Let go of runs that ended and are told, but for the newest; and of details if the server is away too long."""
        with self._transaction():
            self._db.execute(
                "DELETE FROM runs WHERE state='ended' AND run NOT IN (SELECT run FROM events)"
                " AND rowid <= (SELECT MAX(rowid) FROM runs) - ?",
                (keep_runs,),
            )
            (count,) = self._db.execute("SELECT COUNT(*) FROM events").fetchone()
            if count > SPOOL_MAX:
                self._db.execute(
                    "DELETE FROM events WHERE (run, sequence) IN (SELECT run, sequence FROM events"
                    " WHERE kind IN ('log', 'problem') ORDER BY run, sequence LIMIT ?)",
                    (count - SPOOL_MAX,),
                )


def _passes(error: BaseException) -> bool:
    if isinstance(error, sqlite3.Error):
        return (getattr(error, "sqlite_errorcode", 0) & 0xFF) in _SQLITE_PASSING
    return isinstance(error, OSError) and error.errno in _SYSTEM_PASSING


def _unwritable(path: Path, error: BaseException) -> StateUnwritable:
    hint = "make room on its file system, or mount it so that it can be written; nothing is lost meanwhile"
    return StateUnwritable("the agent cannot write down its state", subject=str(path), why=str(error), hint=hint)
