"""``lox login``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lox.escape import safe
from lox.output import output_of
from lox.remote.asking import event_fields, within
from lox.settings import command as command_of
from lox.settings import option
from model.errors import NotFound, UsageError

if TYPE_CHECKING:
    from lox.remote.client import Client


@command_of("login")
@click.argument("url", metavar="URL")
@option("--email", metavar="ADDRESS", help="Log in as this person, with a password, for some hours.")
@option("--password-file", metavar="FILE", help="With --email: it is the first line of this file; '-' reads stdin.")
@option("--token-file", metavar="FILE", help="The token is the first line of this file; '-' reads it from stdin.")
@option("--ca-file", metavar="FILE", type=click.Path(path_type=Path),
        help="Trust the authority whose certificate (PEM) this is, and no other.")  # fmt: skip
@option("--fingerprint", metavar="sha256:...",
        help="Trust the server's own authority if it has this fingerprint, and no other.")  # fmt: skip
@option("--tenant", metavar="TENANT", help="Act within this one: for those who stand above tenants. [env: LOX_TENANT]")
@click.pass_context
def command(
    ctx: click.Context, /, url: str, email: str | None, password_file: str | None, token_file: str | None,
    ca_file: Path | None, fingerprint: str | None, tenant: str | None,
) -> None:  # fmt: skip
    """Remember a server and a token for it.

    URL is https://HOST[:PORT]. With --email the token is that of a session, which ends after some hours; API tokens
    are good for longer and for less ('lox-server create-admin --token' makes the first). What is not in a file is
    asked for; so is, the first time, whether to trust a server whose authority this host does not know. Tokens are kept
    in ~/.config/lox/servers.json, readable by you only, with the certificate that is trusted.
    """
    if email is not None and token_file is not None:
        raise UsageError("--email or --token-file?", hint="a session needs a password, a token needs nothing else")
    from lox.remote.client import Client
    from lox.remote.servers import TENANT, Server, Servers, address, checked_token

    where = address(url)
    ca = _trusted(where, ca_file, fingerprint)
    if email is not None:
        password = _secret("Password", password_file).rstrip("\r\n")
        token = Client(Server(where, "", ca)).log_in(email, password)
    else:
        token = checked_token(_secret("Token", token_file), token_file or "the token")
    client = Client(Server(where, token, ca))
    fields = client.get("auth", "me")
    if tenant := tenant or os.environ.get(TENANT):
        client = _within(client, tenant, fields["tenant_uuid"])
    Servers().add(client.server)
    output = output_of(ctx)
    acting = {"tenant_uuid": client.server.tenant} if client.server.tenant else {}
    output.event("login", **{"url": where, **event_fields(fields), **acting})
    output.line(f"logged in to {where} as {safe(str(fields['name']))}" + (f", within {safe(tenant)}" if tenant else ""))


def _within(client: Client, tenant: str, own: str | None) -> Client:
    """The same within a tenant that is there. Raises UsageError, NotFound."""
    if own is None:
        chosen = within(client, tenant)
        if all(one["uuid"] != chosen.server.tenant for one in client.pages("tenants")):
            raise NotFound("the server has no such tenant", subject=tenant)
        return chosen
    if tenant.lower() != own:
        raise UsageError("the token is of one tenant", subject=own, hint="leave --tenant and LOX_TENANT out")
    return client


def _trusted(url: str, ca_file: Path | None, wanted: str | None) -> str:
    """The certificate (PEM) to trust; empty: what the host trusts."""
    from lox.remote import trust
    from lox.remote.servers import Servers, read_text

    wanted = None if wanted is None else trust.parse_fingerprint(wanted)
    if ca_file is None:
        return trust.trusted(url, wanted, Servers().known_ca(url))
    ca = read_text(str(ca_file), "the certificate")
    if wanted is not None and trust.fingerprint(ca) != wanted:
        raise UsageError("the certificate has another fingerprint", subject=str(ca_file), why=trust.fingerprint(ca))
    return ca


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
