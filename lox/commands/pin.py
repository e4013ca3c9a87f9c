"""``lox pin``."""

from __future__ import annotations

import time
from datetime import datetime

import click

from lox.commands.backup import checked_name
from lox.noting import note
from lox.settings import command as command_of
from lox.settings import option
from model.errors import UsageError


@command_of("pin")
@click.argument("snapshots", metavar="SNAP...", nargs=-1, required=True)
@option("--until", metavar="DATE", help="2027-01-31 or 2027-01-31T18:00, local time. Default: for ever.")
@option("--hold", metavar="NAME", help="A hold of this name instead; a snapshot may have several.")
@click.pass_context
def command(ctx: click.Context, /, snapshots: tuple[str, ...], until: str | None, hold: str | None) -> None:
    """Keep snapshots until a date or for ever, whatever a policy says.

    Neither a policy nor 'lox forget SNAP' forgets a pinned snapshot. There is one pin: a new one takes the place of
    the old. Holds (of a case, an audit) are ended one by one: 'lox unpin --hold NAME' ends that hold and no other.
    """
    if hold is not None and until is not None:
        raise UsageError("a hold has no end", hint="use --until without --hold, or end the hold with lox unpin")
    end = None if until is None else parse_date(until)
    name = None if hold is None else checked_name("name of a hold", hold)
    from repository.annotations import Changes, Pin

    note(ctx, snapshots, lambda: Changes(pin=Pin(end)) if name is None else Changes(hold=(name,)))


def parse_date(text: str) -> int:
    """A date to come, local time unless it says otherwise, in ns since the epoch. Raises UsageError."""
    try:
        seconds = datetime.fromisoformat(text.strip()).timestamp()
    except (ValueError, OverflowError, OSError) as error:
        raise UsageError("not a date", subject=text, hint="write 2027-01-31 or 2027-01-31T18:00") from error
    if seconds <= time.time():
        raise UsageError("the date is past", subject=text, hint="lox unpin ends a pin")
    return int(seconds) * 10**9
