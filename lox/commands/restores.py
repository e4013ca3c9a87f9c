"""``lox restores``: restores that a server lets its agents do."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import click

from lox.escape import safe
from lox.output import output_of
from lox.remote.asking import cell, client_of, event_fields, found, server_option, show_list, show_one
from lox.settings import Group, option
from lox.types import BytesType
from lox.units import format_size
from model.errors import UsageError
from model.names import shown

BACKUPS, RESTORES = "machine-backups", "restores"
BACKUP_COLUMNS = (
    ("UUID", "uuid"), ("TIME", "time"), ("SNAPSHOT", "snapshot"), ("FILES", "files"), ("BYTES", "bytes"),
    ("COMPLETE", "complete"),
)  # fmt: skip
LIMIT_MAX = 100_000  # entries that a server lists at a time
RESTORE_COLUMNS = (
    ("UUID", "uuid"), ("STATUS", "status"), ("TYPE", "restore_type"), ("TARGET", "target_path"),
    ("STARTED", "started_at"), ("FINISHED", "finished_at"),
)  # fmt: skip


@click.group("restores", cls=Group, subcommand_metavar="COMMAND [ARGS]...")
def command() -> None:
    """Let agents of a server restore, and look at how it went.

    'lox restore' restores to this host from a repository that it reaches itself. BACKUP is the UUID of a machine
    backup ('lox restores backups' lists them), or the beginning of one.
    """


@command.command("backups")
@option("--agent", metavar="AGENT", help="Only those of this agent.")
@option("--job", metavar="JOB", help="Only those of this job.")
@option("--last", type=click.IntRange(1), default=20, show_default=True, metavar="N", help="How many.")
@server_option
@click.pass_context
def backups(ctx: click.Context, /, agent: str | None, job: str | None, last: int, server: str | None) -> None:
    """List what can be restored, the newest first."""
    client = client_of(server)
    of_agent = found(client, "agents", agent, ("name", "hostname"))["uuid"] if agent else None
    of_job = found(client, "backup-jobs", job)["uuid"] if job else None
    listed = client.pages(BACKUPS, most=last, agent=of_agent, job=of_job)
    show_list(ctx, "machine_backup", listed, BACKUP_COLUMNS, "Nothing was backed up yet.")


@command.command("files")
@click.argument("backup", metavar="BACKUP")
@click.argument("path", metavar="PATH", default="/")
@option("--pattern", metavar="PATTERN", help="All below PATH that match.")
@option("--limit", type=click.IntRange(1, LIMIT_MAX), default=1000, show_default=True, metavar="N", help="How many.")
@server_option
@click.pass_context
def files(ctx: click.Context, /, backup: str, path: str, pattern: str | None, limit: int, server: str | None) -> None:
    """List what a backup holds in a folder. The agent looks, for it has the key."""
    client, output = client_of(server), output_of(ctx)
    uuid = found(client, BACKUPS, backup)["uuid"]
    asked = min(limit + 1, LIMIT_MAX)  # one more tells whether there are more
    for number, entry in enumerate(client.lines(BACKUPS, uuid, "files", path=path, pattern=pattern, limit=asked)):
        if number == limit:
            output.event("more", limit=limit)
            output.note(f"There is more than {limit:,}: see --limit and --pattern.")
            break
        output.event("entry", **event_fields(entry))
        output.line(f"{cell(entry.get('bytes')):>14}  {cell(entry.get('modified_at')):<19}  {cell(entry.get('path'))}")


@command.command("download")
@click.argument("backup", metavar="BACKUP")
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=BytesType())
@option("--output", "-o", metavar="FILE", required=True, help="Write to this new file; '-' is standard output.")
@option("--format", "kind", type=click.Choice(["tar", "zip", "raw"]), default="tar", show_default=True,
        help="raw is the content of one file.")  # fmt: skip
@option("--agent", metavar="AGENT", help="Through this one, which has the key. [default: the one that made the backup]")
@server_option
@click.pass_context
def download(
    ctx: click.Context, /, backup: str, paths: tuple[bytes, ...], output: str, kind: str, agent: str | None,
    server: str | None,
) -> None:  # fmt: skip
    """Fetch files and folders of a backup to this host. The agent reads them, for it has the key."""
    client = client_of(server)
    uuid = found(client, BACKUPS, backup)["uuid"]
    of_agent = found(client, "agents", agent, ("name", "hostname"))["uuid"] if agent else None
    pieces = client.content(BACKUPS, uuid, "download", path=_texts(paths), format=kind, agent_uuid=of_agent)
    if output == "-":
        for piece in pieces:
            sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
        return
    size = _saved(pieces, output)
    output_of(ctx).event("download", file=output, bytes=size)
    output_of(ctx).line(f"wrote {safe(output)}, {format_size(size)}")


@command.command("start")
@click.argument("backup", metavar="BACKUP")
@click.argument("paths", metavar="[PATH]...", nargs=-1, type=BytesType())
@option("--target", metavar="DIR", help="Restore below this folder of the host. [default: where the files were]")
@option("--agent", metavar="AGENT", help="On this host. [default: the one that made the backup]")
@option("--overwrite", "overwrite_existing", is_flag=True, help="Overwrite files that exist.")
@option("--no-permissions", is_flag=True, help="Leave owners and permissions as the host makes them.")
@option("--wait", is_flag=True, help="Wait for its end, and exit as 'lox restore' would.")
@server_option
@click.pass_context
def start(
    ctx: click.Context, /, backup: str, paths: tuple[bytes, ...], agent: str | None, wait: bool, server: str | None,
    **asked: Any,
) -> int:  # fmt: skip
    """Restore a whole backup, or only PATHs, on a host.

    The host has its own say: restoring to where the files were has to be allowed in its configuration.
    """
    client, output = client_of(server), output_of(ctx)
    body = _request(paths, **asked)
    if agent:
        body["agent_uuid"] = found(client, "agents", agent, ("name", "hostname"))["uuid"]
    begun = client.post(BACKUPS, found(client, BACKUPS, backup)["uuid"], "restore", body=body)
    output.event("restore", **event_fields(begun))
    output.line(f"restore {begun['uuid']} is {begun['status']}")
    output.flush()
    if not wait:
        return 0
    from lox.remote import waiting

    return waiting.wait(client, output, RESTORES, begun["uuid"])


@command.command("list")
@option("--last", type=click.IntRange(1), default=20, show_default=True, metavar="N", help="How many.")
@server_option
@click.pass_context
def list_restores(ctx: click.Context, /, last: int, server: str | None) -> None:
    """List restores, the newest first."""
    show_list(ctx, "restore", client_of(server).pages(RESTORES, most=last), RESTORE_COLUMNS, "No restores.")


@command.command("show")
@click.argument("restore", metavar="UUID")
@server_option
@click.pass_context
def show(ctx: click.Context, /, restore: str, server: str | None) -> None:
    """Show one restore. 'lox run watch UUID' follows it, 'lox run cancel UUID' ends it."""
    show_one(ctx, "restore", client_of(server).get(RESTORES, restore))


def _texts(paths: tuple[bytes, ...]) -> list[str]:
    try:
        return [path.decode() for path in paths]
    except UnicodeDecodeError as error:
        hint = "download the folder that holds it, or restore it: lox restores start"
        raise UsageError(
            "a name that is not UTF-8 cannot be asked for", subject=shown(error.object), hint=hint
        ) from error


def _saved(pieces: Iterator[bytes], name: str) -> int:
    """Write a new file, which is there only as a whole. Returns its bytes. Raises UsageError."""
    part = f"{name}.part-{os.getpid()}"
    try:
        if os.path.lexists(name):
            raise UsageError("there is such a file", subject=name, hint="remove it, or choose another name")
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
            for piece in pieces:
                file.write(piece)
            size = file.tell()
        os.rename(part, name)
    except OSError as error:
        raise UsageError("cannot write the file", subject=name, why=(error.strerror or "").lower()) from error
    finally:
        with suppress(OSError):
            os.unlink(part)
    return size


def _request(
    paths: tuple[bytes, ...], target: str | None, overwrite_existing: bool, no_permissions: bool
) -> dict[str, Any]:
    from base64 import b64encode

    body: dict[str, Any] = {
        "restore_type": "file" if paths else "full",
        "overwrite_existing": overwrite_existing,
        "preserve_permissions": not no_permissions,
    }
    if target is not None:
        body["target_path"] = target
    for path in paths:
        try:
            body.setdefault("selected_files", []).append(path.decode())
        except UnicodeDecodeError:
            body.setdefault("selected_files_b64", []).append(b64encode(path).decode())
    return body
