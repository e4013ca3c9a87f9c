"""``lox logout``."""

from __future__ import annotations

import click

from lox.output import output_of
from lox.remote.asking import server_option
from lox.settings import command as command_of


@command_of("logout")
@server_option
@click.pass_context
def command(ctx: click.Context, /, server: str | None) -> None:
    """Forget the token of a server.

    The token itself is good until it expires or is taken back on the server.
    """
    from lox.remote.servers import Servers

    servers = Servers()
    chosen = servers.chosen(server)
    servers.remove(chosen.url)
    output = output_of(ctx)
    output.event("logout", url=chosen.url)
    output.line(f"logged out of {chosen.url}")
