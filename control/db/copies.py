"""Copies of the database that are consistent, and bringing one back.

SQLite by its own backup call, beside a server that writes; PostgreSQL by pg_dump and pg_restore, whose password travels
in the environment.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from pathlib import Path

from sqlalchemy.engine import URL, make_url

from model.errors import ConfigError, UsageError

_MAGIC = b"SQLite format 3\0"


def backup(url: str, target: Path) -> int:
    """Writes a copy to `target`, which must not exist. Returns its bytes. Raises ConfigError, UsageError."""
    parsed = make_url(url)
    if target.exists():
        raise UsageError("the file exists already", subject=str(target), hint="name another one")
    temporary = target.with_name(target.name + ".new")
    temporary.unlink(missing_ok=True)
    try:
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        if parsed.get_backend_name() == "sqlite":
            _copy(_file(parsed), temporary)
        else:
            _run(parsed, ["pg_dump", "--format=custom", f"--file={temporary}", "--dbname", _name(parsed)])
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.rename(target)
    except OSError as error:
        raise ConfigError("cannot write the copy", subject=str(target), why=(error.strerror or "").lower()) from error
    finally:
        temporary.unlink(missing_ok=True)
    return target.stat().st_size


def restore(url: str, source: Path) -> Path | None:
    """Puts the copy in the place of the database; no server may run. Returns where the old file is kept, if one is.

    Raises ConfigError, UsageError.
    """
    parsed = make_url(url)
    if not source.is_file():
        raise UsageError("there is no such file", subject=str(source))
    if parsed.get_backend_name() != "sqlite":
        clean = ["--clean", "--if-exists", "--no-owner", "--single-transaction", "--exit-on-error"]
        _run(parsed, ["pg_restore", *clean, "--dbname", _name(parsed), str(source)])
        return None
    with source.open("rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise UsageError("this is no copy of a database", subject=str(source))
    return _put(source, _file(parsed))


def _put(source: Path, place: Path) -> Path | None:
    fresh, old = place.with_name(place.name + ".new"), place.with_name(place.name + ".old")
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh.unlink(missing_ok=True)
    _copy(source, fresh)
    if place.exists():
        with sqlite3.connect(place, isolation_level=None, timeout=1) as connection:
            try:
                connection.execute("PRAGMA locking_mode=EXCLUSIVE")
                connection.execute("BEGIN EXCLUSIVE")
                connection.execute("COMMIT")
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            except sqlite3.OperationalError as error:
                raise ConfigError("the database is in use", subject=str(place), hint="stop the server first") from error
        connection.close()
        shutil.copy2(place, old)
    for ending in ("-wal", "-shm"):
        place.with_name(place.name + ending).unlink(missing_ok=True)
    os.chmod(fresh, 0o600)
    fresh.rename(place)
    return old if old.exists() else None


def _copy(source: Path, target: Path) -> None:
    try:
        with sqlite3.connect(f"file:{source}?mode=ro", uri=True) as come, sqlite3.connect(target) as goes:
            come.backup(goes)
            verdict = goes.execute("PRAGMA integrity_check").fetchone()[0]
        come.close()
        goes.close()
    except sqlite3.Error as error:
        raise ConfigError("cannot copy the database", subject=str(source), why=str(error)) from error
    if verdict != "ok":
        raise ConfigError("the database is damaged", subject=str(source), why=str(verdict))


def _file(url: URL) -> Path:
    if not url.database or url.database == ":memory:":
        raise ConfigError("there is nothing to copy", subject="database_url", why="it is in memory")
    return Path(url.database)


def _name(url: URL) -> str:
    """The URL without its password."""
    return url.set(drivername="postgresql", password=None).render_as_string()


def _run(url: URL, command: list[str]) -> None:
    environment = dict(os.environ)
    if url.password is not None:
        environment["PGPASSWORD"] = str(url.password)
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        hint = "install the client programs of PostgreSQL"
        raise ConfigError("there is no such program", subject=command[0], hint=hint) from error
    if done.returncode:
        raise ConfigError(f"{command[0]} failed", why=done.stderr.strip()[-500:])
