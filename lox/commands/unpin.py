"""``lox unpin``."""

from __future__ import annotations

import click

from lox.noting import note
from lox.settings import command as command_of
from lox.settings import option


@command_of("unpin")
@click.argument("snapshots", metavar="SNAP...", nargs=-1, required=True)
@option("--hold", metavar="NAME", help="End the hold of this name instead; the pin and other holds stay.")
@click.pass_context
def command(ctx: click.Context, /, snapshots: tuple[str, ...], hold: str | None) -> None:
    """Let policies decide about pinned or held snapshots again."""
    from repository.annotations import Changes

    note(ctx, snapshots, lambda: Changes(pin=False) if hold is None else Changes(release=(hold,)))
