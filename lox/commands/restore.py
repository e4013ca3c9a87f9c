"""``lox restore``."""

from __future__ import annotations

import os
from typing import Any

import click

from lox.engine import Asked, announce, applied, engine_options, limit_options
from lox.escape import safe, shown
from lox.metrics import Metering, metered
from lox.opening import open_repository
from lox.output import output_of
from lox.settings import command as command_of
from lox.settings import option, settings_of
from lox.signals import stopping
from lox.types import BytesType
from model.errors import UsageError

IN_PLACE = b"/"


@command_of("restore")
@click.argument("snapshot", metavar="SNAP")
@click.argument("paths", metavar="[PATH]...", nargs=-1, type=BytesType())
@option("--target", "-t", metavar="DIR", type=BytesType(), help="Restore below this folder; it is created if missing.")
@option("--in-place", is_flag=True, help="Restore to where the files came from.")
@option("--of-host", default="", metavar="NAME",
        help="Of a snapshot of many hosts the part of this one; PATHs are those it has there.")  # fmt: skip
@option("--overwrite", type=click.Choice(["always", "if-changed", "if-newer", "never"]), default="if-changed",
        show_default=True,
        help="What to do with files that exist: if-changed leaves those of equal size and time alone.")  # fmt: skip
@option("--delete", is_flag=True, help="Delete what is in restored folders but not in the snapshot.")
@option("--dry-run", "-n", is_flag=True, help="Show what would be done, change nothing.")
@option("--verify", is_flag=True, help="Read everything again after it was written, and compare.")
@option("--no-permissions", is_flag=True,
        help="Make files as if you had made them: no recorded owners, ACLs and attributes.")  # fmt: skip
@option("--yes", is_flag=True, help="Do not ask before --in-place with --delete.")
@engine_options
@limit_options
@click.pass_context
@metered("restore")
def command(
    ctx: click.Context, /, asked_engine: Asked, meter: Metering, **asked: Any
) -> int:  # fmt: skip
    """Restore a snapshot or some of its files.

    SNAP is the id of a snapshot, the beginning of one, or 'latest'. PATHs are as 'lox ls' shows them. An interrupted
    restore is taken up where it stopped by the same command.
    """
    output = output_of(ctx, needed=False)
    target = _target(asked["target"], asked["in_place"])
    paths = tuple(snapshot_path(path) for path in asked["paths"])
    profile = asked_engine.resolved()
    ctx.with_resource(applied(profile))
    repository = open_repository(ctx, ["pipelines.restore"])
    from lox.progress import Reporter
    from lox.recording import recorded
    from lox.reports import finish_restore
    from pipelines.profile import engine_of
    from pipelines.restore import RestoreRequest, restore
    from repository.cache_dir import default_cache_dir
    from repository.snapshot import resolve

    found = resolve(repository, asked["snapshot"], default_cache_dir())
    if target == IN_PLACE and found.hosts and not asked["of_host"]:
        hint = f"name the host: --of-host {safe(found.hosts[0])}"
        raise UsageError("the files came from several hosts", subject=", ".join(map(safe, found.hosts)), hint=hint)
    if target == IN_PLACE and asked["delete"] and not (asked["yes"] or asked["dry_run"]):
        _confirm(ctx, found.id, paths)
    request = RestoreRequest(
        snapshot=found,
        target=target,
        paths=paths,
        overwrite=asked["overwrite"],
        delete=asked["delete"],
        dry_run=asked["dry_run"],
        verify=asked["verify"],
        permissions=not asked["no_permissions"],
        of_host=asked["of_host"],
    )
    engine = engine_of(profile)
    reporter = Reporter(output, frozenset({"skipped", "unchanged"}))
    announce(output, engine.executor)
    settings = {name: asked[name] for name in ("overwrite", "delete", "dry_run", "verify", "of_host")}
    with recorded(output, "restore", repository, engine, reporter, (target,), profile.name, **settings) as record:
        with reporter, stopping(reporter.stop, quiet=output.json):
            report = restore(repository, request, engine, meter.watching(reporter))
        record.of_restore(report, found.id)
        meter.restored(report)
        return record.ended(finish_restore(output, request, report, reporter.problems_seen))


def _target(target: bytes | None, in_place: bool) -> bytes:
    if in_place == (target is not None):
        raise UsageError("where to restore?", hint="name --target DIR, or --in-place to put files where they came from")
    if target is None:
        return IN_PLACE
    if not target:
        raise UsageError("the target is empty", hint="write --target . for the folder you are in")
    whole = os.path.realpath(target)
    if whole == IN_PLACE:
        raise UsageError("the target is /", hint="use --in-place if that is what you want")
    return whole


def snapshot_path(path: bytes) -> bytes:
    """A path as `lox ls` shows it, as snapshots hold it: ``/etc/`` and ``etc`` → ``etc``; ``/`` → empty."""
    parts = [part for part in path.split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise UsageError("a path with ..", subject=os.fsdecode(path), hint="write it as 'lox ls' shows it")
    return b"/".join(parts)


def _confirm(ctx: click.Context, snapshot: str, paths: tuple[bytes, ...]) -> None:
    """Deleting from the live system is asked for by name, because nothing brings those files back."""
    what = ", ".join([f"/{shown(path)}" for path in paths]) or "all restored folders"
    settings = settings_of(ctx)
    question = f"This deletes from {what} whatever is not in snapshot {snapshot[:8]}. Type 'delete' to go on"
    from lox.passwords import can_prompt

    if settings.json or not can_prompt():
        raise UsageError("--in-place with --delete needs --yes", why="there is nobody to ask")
    if click.prompt(question, err=True, default="", show_default=False) != "delete":
        raise UsageError("nothing was changed", why="not confirmed")
