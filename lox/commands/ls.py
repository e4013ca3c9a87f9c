"""``lox ls``."""

from __future__ import annotations

from itertools import islice

import click

from lox.commands.restore import snapshot_path
from lox.contents import Catalogue
from lox.output import output_of
from lox.settings import command as command_of
from lox.settings import option
from lox.types import BytesType

TOGETHER = 2000  # lines printed at once


@command_of("ls")
@click.argument("snapshot", metavar="SNAP")
@click.argument("path", required=False, default=b"/", type=BytesType())
@option("--recursive", "-R", is_flag=True, help="List everything below, too.")
@option("--long", "-l", "long_", is_flag=True, help="Show mode, owner, size and time as well.")
@click.pass_context
def command(ctx: click.Context, /, snapshot: str, path: bytes, recursive: bool, long_: bool) -> None:
    """List what a snapshot holds.

    SNAP is the id of a snapshot, the beginning of one, or 'latest'. Without PATH the list begins at /. Odd characters
    of names are shown as \\n, \\x1b or \\xff; --json has the exact bytes.
    """
    wanted = snapshot_path(path)
    catalogue = Catalogue.open(ctx)
    output = output_of(ctx)
    from lox.rows import entry_fields, entry_path, long_line
    from repository.query import ls

    text = long_line if long_ else entry_path
    found = ls(catalogue.manifest(catalogue.snapshot(snapshot)), wanted, recursive)
    while some := list(islice(found, TOGETHER)):
        if output.json:
            output.events("entry", map(entry_fields, some))
        else:
            output.lines(map(text, some))
