"""``lox tag``."""

from __future__ import annotations

import click

from lox.commands.backup import checked_name
from lox.noting import note
from lox.settings import command as command_of
from lox.settings import option
from model.errors import UsageError


@command_of("tag")
@click.argument("snapshots", metavar="SNAP...", nargs=-1, required=True)
@option("--add", multiple=True, metavar="TAG", help="A tag to add; may be repeated.")
@option("--remove", multiple=True, metavar="TAG", help="A tag to take away; may be repeated.")
@click.pass_context
def command(ctx: click.Context, /, snapshots: tuple[str, ...], add: tuple[str, ...], remove: tuple[str, ...]) -> None:
    """Add and remove tags of snapshots.

    The snapshots themselves are not changed: a note beside each says what its tags are from now on.
    """
    if not add and not remove:
        raise UsageError("nothing to change", hint="use --add TAG or --remove TAG")
    if both := set(add) & set(remove):
        raise UsageError("a tag cannot be added and removed at once", subject=min(both))
    tags = tuple(checked_name("tag", tag) for tag in add)
    from repository.annotations import Changes

    note(ctx, snapshots, lambda: Changes(add=tags, remove=remove))
