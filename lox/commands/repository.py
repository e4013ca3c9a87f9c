"""``lox repository``: where jobs of a server store."""

from __future__ import annotations

from typing import Any

import click

from lox.escape import safe
from lox.output import output_of
from lox.remote.asking import NONE, client_of, found, given, server_option, show_list, show_one
from lox.settings import Group, option
from lox.types import SizeType
from model.errors import UsageError

KIND = "repositories"
COLUMNS = (
    ("UUID", "uuid"), ("NAME", "name"), ("URL", "url"), ("ENCRYPTION", "encryption"), ("DEFAULT", "default"),
    ("QUOTA", "quota_bytes"),
)  # fmt: skip


@click.group("repository", cls=Group, subcommand_metavar="COMMAND [ARGS]...")
def command() -> None:
    """List, add, change and remove repositories of a server.

    REPOSITORY is a UUID, the beginning of one, or a name.
    """


@command.command("list")
@server_option
@click.pass_context
def list_repositories(ctx: click.Context, /, server: str | None) -> None:
    """List the repositories that jobs may name."""
    empty = "No repositories. 'lox repository add NAME --vault' makes one."
    show_list(ctx, "repository", client_of(server).pages(KIND), COLUMNS, empty)


@command.command("show")
@click.argument("repository", metavar="REPOSITORY")
@server_option
@click.pass_context
def show(ctx: click.Context, /, repository: str, server: str | None) -> None:
    """Show one repository; of one in the vault, what it takes there."""
    client = client_of(server)
    show_one(ctx, "repository", client.get(KIND, found(client, KIND, repository)["uuid"]))


@command.command("add")
@click.argument("name", metavar="NAME")
@option("--url", metavar="URL", help="A store that all its agents reach: s3://, sftp://, a path, ... No credentials.")
@option("--vault", is_flag=True, help="In the server's own vault.")
@option("--quota", "quota_bytes", type=SizeType(), metavar="SIZE", help="How much the vault takes. [default: no limit]")
@option("--maintainer", metavar="AGENT", help="The agent that lets old backups go and prunes.")
@option("--unencrypted", is_flag=True, help="Store in the open; agents must allow it.")
@option("--default", is_flag=True, help="For jobs that name none. The first one is that anyway.")
@server_option
@click.pass_context
def add(ctx: click.Context, /, server: str | None, **asked: Any) -> None:
    """Add a repository: a store by its URL, or one in the server's vault.

    Its key is made by the first agent that uses it, and stays on that host.
    """
    if asked["vault"] == (asked["url"] is not None):
        raise UsageError("where does it lie?", hint="give --url URL, or --vault")
    client = client_of(server)
    body = {
        "name": asked["name"], "url": asked["url"], "vault": asked["vault"], "quota_bytes": asked["quota_bytes"],
        "maintenance_agent_uuid": _agent(client, asked["maintainer"]),
        "encryption": "none" if asked["unencrypted"] else "required", "default": asked["default"],
    }  # fmt: skip
    made = client.post(KIND, body={name: value for name, value in body.items() if value is not None})
    show_one(ctx, "repository", made)


@command.command("change")
@click.argument("repository", metavar="REPOSITORY")
@option("--name", metavar="TEXT", help="Another name.")
@option("--quota", "quota_bytes", metavar="SIZE|none", help="How much the vault takes; none: no limit.")
@option("--maintainer", metavar="AGENT|none", help="The agent that lets old backups go and prunes.")
@option("--default", is_flag=True, help="For jobs that name none.")
@server_option
@click.pass_context
def change(ctx: click.Context, /, repository: str, server: str | None, **asked: Any) -> None:
    """Change the name, the quota or who maintains a repository, or make it the default."""
    client = client_of(server)
    uuid = found(client, KIND, repository)["uuid"]
    if asked["quota_bytes"] not in (None, NONE):
        asked["quota_bytes"] = SizeType().convert(asked["quota_bytes"], None, ctx)
    maintainer = asked.pop("maintainer")
    if maintainer is not None:
        asked["maintenance_agent_uuid"] = NONE if maintainer == NONE else _agent(client, maintainer)
    asked["default"] = asked["default"] or None
    body = given(asked)
    if not body:
        raise UsageError("this changes nothing", hint="see: lox repository change --help")
    show_one(ctx, "repository", client.patch(KIND, uuid, body=body))


@command.command("delete")
@click.argument("repository", metavar="REPOSITORY")
@server_option
@click.pass_context
def delete(ctx: click.Context, /, repository: str, server: str | None) -> None:
    """Remove a repository that no job and no backup names from the list; what is stored in it stays."""
    client = client_of(server)
    one = found(client, KIND, repository)
    client.delete(KIND, one["uuid"])
    output = output_of(ctx)
    output.event("deleted", uuid=one["uuid"], name=one["name"])
    output.line(f"deleted repository {safe(one['name'])}")


def _agent(client: Any, name: str | None) -> str | None:
    """The UUID of an agent."""
    return None if name is None else str(found(client, "agents", name, ("name", "hostname"))["uuid"])
