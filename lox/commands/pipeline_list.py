"""``lox pipeline list``."""

from __future__ import annotations

import click

from lox.escape import safe
from lox.output import output_of, table
from lox.settings import command as command_of
from model.errors import ConfigError


@command_of("list")
@click.pass_context
def command(ctx: click.Context, /) -> None:
    """List the profiles that have names.

    Yours lie in ~/.config/lox/pipelines (or where XDG_CONFIG_HOME says), those of this machine in /etc/lox/pipelines.
    Of several with one name the first is used.
    """
    from pipelines.profile import load_file
    from pipelines.profile_files import every

    output = output_of(ctx)
    rows, seen = [], set[str]()
    for file in every():
        if file.name in seen:
            continue
        seen.add(file.name)
        try:
            about = load_file(file).description
        except ConfigError as error:
            about = f"invalid: {error}"
        output.event("profile", name=file.name, place=file.place, path=file.path, description=about)
        rows.append((safe(file.name), file.place, safe(about)))
    output.lines(table(("NAME", "PLACE", "ABOUT"), rows))
