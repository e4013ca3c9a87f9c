"""``lox logout``."""

from __future__ import annotations

from contextlib import suppress

import click

from lox.output import output_of
from lox.remote.asking import server_option
from lox.settings import command as command_of
from model.errors import ServerError

SESSION = "lox_ses_"  # how tokens of sessions begin


@command_of("logout")
@server_option
@click.pass_context
def command(ctx: click.Context, /, server: str | None) -> None:
    """Forget the token of a server.

    A session ends. An API token is good until it expires or is taken back on the server.
    """
    from lox.remote.client import Client
    from lox.remote.servers import Servers

    servers = Servers()
    chosen = servers.chosen(server)
    if chosen.token.startswith(SESSION):
        with suppress(ServerError):  # it ends by itself
            Client(chosen).post("auth", "logout")
    servers.remove(chosen.url)
    output = output_of(ctx)
    output.event("logout", url=chosen.url)
    output.line(f"logged out of {chosen.url}")
