"""lox-server backup-db."""

from __future__ import annotations

from pathlib import Path

import click

from control.cli import Options


@click.command("backup-db")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.pass_obj
def command(options: Options, file: Path) -> None:
    """Write a consistent copy of the database to a file.

    A running server does not mind. The copy holds hashes of secrets, no secrets; keep the tls folder beside it if
    agents trust the authority of this server.
    """
    from control.db.copies import backup

    size = backup(options.settings().database, file)
    options.tell(f"wrote {file}, {size} bytes", file=str(file), bytes=size)
