"""lox-server restore-db."""

from __future__ import annotations

from pathlib import Path

import click

from control.cli import Options


@click.command("restore-db")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def command(options: Options, file: Path, yes: bool) -> None:
    """Put such a copy in the place of the database.

    The server must not run. The SQLite database that was there is kept beside it.
    """
    from control.db.copies import restore

    settings = options.settings()
    if not yes:
        click.confirm("replace the database with this copy?", abort=True, err=True)
    old = restore(settings.database, file)
    kept = f"; the old one is {old}" if old else ""
    options.tell(f"restored {file}{kept}", file=str(file), old=str(old) if old else None)
