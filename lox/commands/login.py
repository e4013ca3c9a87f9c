"""``lox login``."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from lox.escape import safe
from lox.output import output_of
from lox.remote.asking import event_fields
from lox.settings import command as command_of
from lox.settings import option
from model.errors import UsageError


@command_of("login")
@click.argument("url", metavar="URL")
@option("--email", metavar="ADDRESS", help="Log in as this person, with a password, for some hours.")
@option("--password-file", metavar="FILE", help="With --email: it is the first line of this file; '-' reads stdin.")
@option("--token-file", metavar="FILE", help="The token is the first line of this file; '-' reads it from stdin.")
@option("--ca-file", metavar="FILE", type=click.Path(path_type=Path),
        help="Trust the authority whose certificate (PEM) this is, and no other.")  # fmt: skip
@click.pass_context
def command(
    ctx: click.Context, /, url: str, email: str | None, password_file: str | None, token_file: str | None,
    ca_file: Path | None,
) -> None:  # fmt: skip
    """Remember a server and a token for it.

    URL is https://HOST[:PORT]. With --email the token is that of a session, which ends after some hours; API tokens
    are good for longer and for less ('lox-server create-admin --token' makes the first). What is not in a file is
    asked for. Tokens are kept in ~/.config/lox/servers.json, readable by you only, with the certificate of --ca-file.
    """
    if email is not None and token_file is not None:
        raise UsageError("--email or --token-file?", hint="a session needs a password, a token needs nothing else")
    from lox.remote.client import Client
    from lox.remote.servers import Server, Servers, address, checked_token, read_text

    ca = read_text(str(ca_file), "the certificate") if ca_file else ""
    where = address(url)
    if email is not None:
        password = _secret("Password", password_file).rstrip("\r\n")
        token = Client(Server(where, "", ca)).log_in(email, password)
    else:
        token = checked_token(_secret("Token", token_file), token_file or "the token")
    server = Server(where, token, ca)
    fields = Client(server).get("auth", "me")
    Servers().add(server)
    output = output_of(ctx)
    output.event("login", url=server.url, **event_fields(fields))
    output.line(f"logged in to {server.url} as {safe(str(fields['name']))}")


def _secret(what: str, file: str | None) -> str:
    """The first line of `file`, else what is typed on the terminal, without echo."""
    if file == "-":
        return sys.stdin.readline(8192)
    if file is not None:
        from lox.remote.servers import read_text

        return read_text(file, f"the {what.lower()}").partition("\n")[0]
    import getpass

    from lox.passwords import can_prompt

    if not can_prompt():
        raise UsageError(f"no {what.lower()} given", why="there is no terminal to ask on", hint="name a file")
    return getpass.getpass(f"{what}: ")
