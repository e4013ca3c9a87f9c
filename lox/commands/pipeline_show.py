"""``lox pipeline show``."""

from __future__ import annotations

import click

from lox.engine import named, profile_options
from lox.escape import safe
from lox.output import output_of, table
from lox.settings import command as command_of
from lox.settings import option


@command_of("show")
@click.argument("name", metavar="[PROFILE]", required=False)
@option("--resolved", is_flag=True, help="Every value that holds, with where it comes from.")
@profile_options
@click.pass_context
def command(
    ctx: click.Context, /, name: str | None, resolved: bool, profile: str | None, sets: tuple[str, ...]
) -> None:
    """Show a profile as it is written, or every value with where it comes from.

    PROFILE is a name or a file; without it, --profile, LOX_PROFILE or 'default' counts. What --set says is seen with
    --resolved.
    """
    from pipelines.profile import load
    from pipelines.profile_files import find
    from pipelines.profile_keys import ABOUT, KEYS

    output = output_of(ctx)
    wanted = named(name, profile) or "default"
    found = load(wanted, sets)
    if not (resolved or output.json or sets):
        text = find(wanted).read().decode("utf-8")
        output.lines(safe(line) for line in text.splitlines())
        return
    keys = [key for key in KEYS.values() if key.path not in ABOUT]
    for key in keys:
        output.event("value", key=key.path, value=found[key], text=found.shown(key), origin=str(found.origin(key)))
    rows = [(key.path, safe(found.shown(key)), safe(str(found.origin(key)))) for key in keys]
    output.lines(table(("KEY", "VALUE", "FROM"), rows))
