"""``lox repository``: where jobs of a server store."""

from __future__ import annotations

from typing import Any

import click

from lox.escape import safe
from lox.output import output_of
from lox.remote.asking import NONE, client_of, event_fields, found, given, server_option, show_list, show_one
from lox.settings import Group, option
from lox.types import SizeType
from model.errors import UsageError

KIND = "repositories"
COLUMNS = (
    ("UUID", "uuid"),
    ("NAME", "name"),
    ("URL", "url"),
    ("ENCRYPTION", "encryption"),
    ("DEFAULT", "default"),
    ("QUOTA", "quota_bytes"),
)
REMOVED_COLUMNS = (("UUID", "uuid"), ("NAME", "name"), ("REMOVED", "removed_at"), ("KEPT UNTIL", "purged_after"))
_CRON = "When it prunes, as '30 4 * * *', or none: after its own backups. [server: 30 4 * * *]"  # fmt: skip


@click.group("repository", cls=Group, subcommand_metavar="COMMAND [ARGS]...")
def command() -> None:
    """List, add, change and remove repositories of a server.

    REPOSITORY is a UUID, the beginning of one, or a name.
    """


@command.command("list")
@option("--removed", is_flag=True, help="Those that were removed and can still be brought back.")
@server_option
@click.pass_context
def list_repositories(ctx: click.Context, /, server: str | None, removed: bool) -> None:
    """List the repositories that jobs may name."""
    if removed:
        found = client_of(server).pages(KIND, removed="true")
        show_list(ctx, "repository", found, REMOVED_COLUMNS, "No removed repositories.")
        return
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
@option("--maintenance", "maintenance_cron", metavar="CRON|none", help=_CRON)
@option("--timezone", "maintenance_timezone", metavar="ZONE", help="Of that, as Europe/Berlin. [server: UTC]")
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
    when = given({name: asked[name] for name in ("maintenance_cron", "maintenance_timezone")})
    made = client.post(KIND, body={name: value for name, value in body.items() if value is not None} | when)
    show_one(ctx, "repository", made)
    if made["vault"] and made["maintenance_agent_uuid"] is None:
        output_of(ctx).note("No backup in it is let go until it has a maintainer: lox repository change --maintainer")


@command.command("change")
@click.argument("repository", metavar="REPOSITORY")
@option("--name", metavar="TEXT", help="Another name.")
@option("--quota", "quota_bytes", metavar="SIZE|none", help="How much the vault takes; none: no limit.")
@option("--maintainer", metavar="AGENT|none", help="The agent that lets old backups go and prunes.")
@option("--maintenance", "maintenance_cron", metavar="CRON|none", help=_CRON)
@option("--timezone", "maintenance_timezone", metavar="ZONE", help="Of that, as Europe/Berlin.")
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


@command.command("maintain")
@click.argument("repository", metavar="REPOSITORY")
@option("--wait", is_flag=True, help="Wait for its end, and exit as 'lox prune' would.")
@server_option
@click.pass_context
def maintain(ctx: click.Context, /, repository: str, wait: bool, server: str | None) -> int:
    """Have the maintainer let old backups go and prune, now."""
    from lox.remote import waiting

    client, output = client_of(server), output_of(ctx)
    begun = client.post(KIND, found(client, KIND, repository)["uuid"], "maintain")
    output.event("run", **event_fields(begun))
    output.line(f"run {begun['uuid']} is {begun['status']}")
    output.flush()
    return waiting.wait(client, output, "runs", begun["uuid"]) if wait else 0


@command.command("delete")
@click.argument("repository", metavar="REPOSITORY")
@option("--force", is_flag=True, help="Although jobs use it, which are turned off, or backups lie in it.")
@server_option
@click.pass_context
def delete(ctx: click.Context, /, repository: str, force: bool, server: str | None) -> None:
    """Remove a repository; what it holds in the vault is deleted some days later. Elsewhere what is stored stays."""
    client = client_of(server)
    one = found(client, KIND, repository)
    client.delete(KIND, one["uuid"], force="true" if force else None)
    output = output_of(ctx)
    output.event("deleted", uuid=one["uuid"], name=one["name"])
    output.line(f"deleted repository {safe(one['name'])}")


@command.command("recover")
@click.argument("repository", metavar="UUID")
@server_option
@click.pass_context
def recover(ctx: click.Context, /, repository: str, server: str | None) -> None:
    """Bring back a repository that was removed lately, with its backups."""
    show_one(ctx, "repository", client_of(server).post(KIND, repository, "recover"))


def _agent(client: Any, name: str | None) -> str | None:
    """The UUID of an agent."""
    return None if name is None else str(found(client, "agents", name, ("name", "hostname"))["uuid"])
