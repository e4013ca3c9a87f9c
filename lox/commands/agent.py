"""``lox agent``: the hosts that a server knows."""

from __future__ import annotations

from typing import Any

import click

from lox.escape import safe
from lox.output import output_of
from lox.remote.asking import client_of, event_fields, found, given, server_option, show_list, show_one
from lox.settings import Group, option

KIND, KEYS = "agents", ("name", "hostname")
COLUMNS = (
    ("UUID", "uuid"), ("NAME", "name"), ("HOSTNAME", "hostname"), ("OS", "os"), ("STATUS", "status"),
    ("VERSION", "version"), ("LAST HEARTBEAT", "last_heartbeat_at"),
)  # fmt: skip


@click.group("agent", cls=Group, subcommand_metavar="COMMAND [ARGS]...")
def command() -> None:
    """List, add, install and remove agents of a server.

    AGENT is a UUID, the beginning of one, a name or a hostname.
    """


@command.command("list")
@option("--status", type=click.Choice(["registered", "online", "offline", "revoked"]), help="Only these.")
@server_option
@click.pass_context
def list_agents(ctx: click.Context, /, status: str | None, server: str | None) -> None:
    """List the agents, and which of them are online."""
    agents = [one for one in client_of(server).pages(KIND) if status in (None, one["status"])]
    show_list(ctx, "agent", agents, COLUMNS, "No agents. 'lox agent add HOSTNAME' registers one.")


@command.command("show")
@click.argument("agent", metavar="AGENT")
@server_option
@click.pass_context
def show(ctx: click.Context, /, agent: str, server: str | None) -> None:
    """Show one agent, and what it said about its host last."""
    client = client_of(server)
    one = found(client, KIND, agent, KEYS)
    show_one(ctx, "agent", {**one, **client.get(KIND, one["uuid"], "health")})


@command.command("add")
@click.argument("hostname", metavar="HOSTNAME")
@option("--os", type=click.Choice(["linux", "windows", "macos"]), default="linux", show_default=True,
        help="What the host runs.")  # fmt: skip
@option("--name", metavar="TEXT", help="What to call it. [default: its hostname]")
@option("--tag", "tags", metavar="TAG", multiple=True, help="A tag; may be repeated.")
@server_option
@click.pass_context
def add(ctx: click.Context, /, server: str | None, **asked: Any) -> None:
    """Register a host, and show the command that installs its agent.

    The token in that command is shown only now, is good for one host, and for a day.
    """
    _show_command(ctx, "agent", client_of(server).post(KIND, body=given(asked)))


@command.command("install-command")
@click.argument("agent", metavar="AGENT")
@server_option
@click.pass_context
def install_command(ctx: click.Context, /, agent: str, server: str | None) -> None:
    """Make a new token for a host, and show the command that installs its agent."""
    client = client_of(server)
    uuid = found(client, KIND, agent, KEYS)["uuid"]
    _show_command(ctx, "install_command", {"uuid": uuid, **client.post(KIND, uuid, "install-command")})


@command.command("rotate-token")
@click.argument("agent", metavar="AGENT")
@server_option
@click.pass_context
def rotate_token(ctx: click.Context, /, agent: str, server: str | None) -> None:
    """Give an agent a new credential with its next heartbeat; the old one dies when the new one is used."""
    client = client_of(server)
    uuid = found(client, KIND, agent, KEYS)["uuid"]
    show_one(ctx, "rotation", client.post(KIND, uuid, "rotate-token"))


@command.command("delete")
@click.argument("agent", metavar="AGENT")
@server_option
@click.pass_context
def delete(ctx: click.Context, /, agent: str, server: str | None) -> None:
    """Remove an agent: its credential is good for nothing from now on. What it backed up stays."""
    client = client_of(server)
    one = found(client, KIND, agent, KEYS)
    client.delete(KIND, one["uuid"])
    output = output_of(ctx)
    output.event("deleted", uuid=one["uuid"], name=one["name"])
    output.line(f"deleted agent {safe(one['name'])}")


def _show_command(ctx: click.Context, kind: str, fields: dict[str, Any]) -> None:
    output = output_of(ctx)
    output.event(kind, **event_fields(fields))
    output.note(f"Run this on the host until {safe(str(fields['expires_at']))}:")
    output.lines(map(safe, fields["install_command"].splitlines()))
