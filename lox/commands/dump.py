"""``lox dump``."""

from __future__ import annotations

import os
import sys

import click

from lox.commands.restore import snapshot_path
from lox.contents import Catalogue
from lox.settings import command as command_of
from lox.settings import option
from lox.types import BytesType
from model.errors import UsageError


@command_of("dump")
@click.argument("snapshot", metavar="SNAP")
@click.argument("path", type=BytesType())
@option("--archive", type=click.Choice(["tar"]), help="Write a folder, with all below it, as an archive.")
@click.pass_context
def command(ctx: click.Context, /, snapshot: str, path: bytes, archive: str | None) -> None:
    """Write a file, or a folder as an archive, to stdout.

    lox dump latest /etc/passwd | diff - /etc/passwd
    """
    wanted = snapshot_path(path)
    if sys.stdout.isatty():
        raise UsageError("the terminal is no place for this", hint="send it to a file with >, or through a pipe")
    catalogue = Catalogue.open(ctx)
    from pipelines.archive import dump_tar
    from pipelines.dump import dump
    from repository.sessions import reading_session

    found = catalogue.snapshot(snapshot)
    sys.stdout.flush()
    # A buffered writer of our own: click and the locale have no say in bytes.
    out = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=1 << 20)
    with out, reading_session(catalogue.repository, "dump"):  # whoever reads on may take hours
        write = dump if archive is None else dump_tar
        write(catalogue.repository, found, wanted, out, catalogue.tell_damage)
