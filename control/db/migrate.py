"""Migrations: which form the database has, which one this version needs, and the way there (Alembic)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from control.db.engine import begin_writing
from model.errors import ConfigError

FOLDER = Path(__file__).parent / "migrations"


@dataclass(frozen=True, slots=True)
class Forms:
    """Revisions: what the database has (None: it is empty), and what this version needs."""

    found: str | None
    needed: str

    @property
    def is_current(self) -> bool:
        return self.found == self.needed


async def forms(engine: AsyncEngine) -> Forms:
    """What there is and what is needed. Raises ConfigError: it cannot be reached, or is of a newer version."""
    try:
        async with engine.connect() as connection:
            found = await connection.run_sync(_found)
    except (SQLAlchemyError, OSError) as error:
        raise _unreachable(engine, error) from error
    scripts = ScriptDirectory.from_config(_config())
    needed = scripts.get_current_head()
    assert needed is not None
    if found is not None and found not in {script.revision for script in scripts.walk_revisions()}:
        raise ConfigError(
            "the database was written by a newer version",
            subject=found,
            hint="install that version again, or restore a copy made before",
        )
    return Forms(found, needed)


async def migrate(engine: AsyncEngine) -> Forms:
    """Brings it to the form that is needed, in one transaction. Returns what it was before. Raises ConfigError."""
    before = await forms(engine)
    if not before.is_current:
        try:
            async with engine.begin() as connection:
                await connection.run_sync(_upgrade)
        except SQLAlchemyError as error:
            raise _unreachable(engine, error) from error
    return before


async def require_current(engine: AsyncEngine) -> None:
    """Raises ConfigError unless the database has the form that this version needs."""
    found = await forms(engine)
    if not found.is_current:
        why = "it is empty" if found.found is None else f"it has form {found.found}, this version needs {found.needed}"
        raise ConfigError("the database is not ready", why=why, hint="run: lox-server migrate")


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    return config


def _found(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _upgrade(connection: Connection) -> None:
    begin_writing(connection)
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SET LOCAL statement_timeout = 0")  # a large table takes its time
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _unreachable(engine: AsyncEngine, error: Exception) -> ConfigError:
    why = str(getattr(error, "orig", None) or error).splitlines()[0]
    return ConfigError("cannot use the database", subject=engine.url.render_as_string(hide_password=True), why=why)
