"""``lox login``."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from lox.output import output_of
from lox.settings import command as command_of
from lox.settings import option
from model.errors import UsageError


@command_of("login")
@click.argument("url", metavar="URL")
@option("--token-file", metavar="FILE", help="The token is the first line of this file; '-' reads it from stdin.")
@option("--ca-file", metavar="FILE", type=click.Path(path_type=Path),
        help="Trust the authority whose certificate (PEM) this is, and no other.")  # fmt: skip
@click.pass_context
def command(ctx: click.Context, /, url: str, token_file: str | None, ca_file: Path | None) -> None:
    """Remember a server and a token for it.

    URL is https://HOST[:PORT]. A token is made on the server, with the scopes it is to have ('lox-server create-admin'
    prints the first); it is asked for unless --token-file names it. It is kept in ~/.config/lox/servers.json, readable
    by you only, with the certificate of --ca-file, and tried once.
    """
    from lox.remote.client import Client
    from lox.remote.servers import Server, Servers, address, checked_token, read_text

    ca = read_text(str(ca_file), "the certificate") if ca_file else ""
    server = Server(address(url), checked_token(_token(token_file), token_file or "the token"), ca)
    fields = Client(server).get("auth", "me")
    Servers().add(server)
    output = output_of(ctx)
    output.event("login", url=server.url, **fields)
    output.line(f"logged in to {server.url}")


def _token(file: str | None) -> str:
    if file == "-":
        return sys.stdin.readline(8192)
    if file is not None:
        from lox.remote.servers import read_text

        return read_text(file, "the token")
    import getpass

    from lox.passwords import can_prompt

    if not can_prompt():
        raise UsageError("no token given", why="there is no terminal to ask on", hint="use --token-file")
    return getpass.getpass("Token: ")
