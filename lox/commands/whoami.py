"""``lox whoami``."""

from __future__ import annotations

import click

from lox.remote.asking import client_of, server_option, show_one
from lox.settings import command as command_of


@command_of("whoami")
@server_option
@click.pass_context
def command(ctx: click.Context, /, server: str | None) -> None:
    """Show who you are to a server, and what you may do there."""
    client = client_of(server)
    show_one(ctx, "whoami", {"server": client.server.url, **client.get("auth", "me")})
