"""``lox pipeline diff``."""

from __future__ import annotations

import click

from lox.escape import safe
from lox.output import output_of, table
from lox.settings import command as command_of


@command_of("diff")
@click.argument("one", metavar="A")
@click.argument("other", metavar="B")
@click.pass_context
def command(ctx: click.Context, /, one: str, other: str) -> None:
    """Show in which values two profiles differ.

    A and B are names or files.
    """
    from pipelines.profile import load
    from pipelines.profile_keys import ABOUT, KEYS

    output = output_of(ctx)
    left, right = load(one), load(other)
    differing = [key for key in KEYS.values() if key.path not in ABOUT and left[key] != right[key]]
    for key in differing:
        output.event("difference", key=key.path, a=left.shown(key), b=right.shown(key))
    if not differing:
        output.note("no differences")
        return
    rows = [(key.path, safe(left.shown(key)), safe(right.shown(key))) for key in differing]
    output.lines(table(("KEY", safe(one), safe(other)), rows))
