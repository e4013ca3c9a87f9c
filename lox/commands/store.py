"""``lox store probe``: what the place of a repository really does. ``lox store sync``: the same in another place."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from lox.contents import ID_SHOWN
from lox.engine import limit_options, limits
from lox.escape import safe, shown
from lox.output import Output, output_of, table
from lox.settings import Group, option, settings_of
from lox.types import SizeType
from lox.units import format_rate, format_seconds, format_size, format_time, plural
from model.errors import Interrupted, LoxError, UsageError
from model.exits import ExitCode

if TYPE_CHECKING:
    from repository.mirror import SyncReport
    from repository.repository import Repository
    from repository.store.probe import Finding, ProbeReport

MIB = 1 << 20


@click.group("store", cls=Group, subcommand_metavar="COMMAND [ARGS]...")
def command() -> None:
    """Find out what a store does, or copy a repository to another."""


@command.command("probe")
@click.argument("url", required=False)
@option("--object-size", type=SizeType(), metavar="SIZE", default="8MiB", show_default=True,
        help="Size of the objects that are sent and read to measure.")  # fmt: skip
@option("--objects", type=click.IntRange(1, 10_000), default=8, show_default=True, help="How many of them.")
@option("--lanes", type=click.IntRange(1, 256), default=4, show_default=True, help="How many at once.")
@option("--quick", is_flag=True, help="Measure nothing, only find out what the store does.")
@click.pass_context
def probe_store(ctx: click.Context, /, url: str | None, object_size: int, objects: int, lanes: int, quick: bool) -> int:
    """Find out what a store really does, and how fast.

    URL is where a repository is or shall be, by default --repo. Objects are written to a folder of their own there
    and deleted again; no password is needed. Exit code 1 if a repository cannot live there.
    """
    from lox.opening import store_of
    from repository.store.probe import probe

    settings = settings_of(ctx)
    settings.repo = url or settings.repo
    output = output_of(ctx)
    report = probe(store_of(settings), not quick, object_size, objects, lanes)
    code = ExitCode.OK if report.usable else ExitCode.FAILURE
    for finding in report.findings:
        output.event("finding", **asdict(finding))
    fields = {name: value for name, value in asdict(report).items() if name != "findings"}
    output.event("summary", usable=report.usable, **fields, exit_code=int(code))
    _show(output, report)
    return code


@command.command("sync")
@click.argument("source", metavar="FROM")
@click.argument("target", metavar="TO")
@option("--delete", is_flag=True, help="Also delete what FROM has no more: packs, forgotten snapshots, old passwords.")
@option(
    "--even-lost",
    is_flag=True,
    help="With --delete: also snapshots that FROM lost, and what only they need. Without, nothing is deleted then.",
)
@option("--lanes", type=click.IntRange(1, 64), default=4, show_default=True,
        help="Objects on their way at once; each takes the memory of a pack.")  # fmt: skip
@option("--dry-run", "-n", is_flag=True, help="Show how much would be done.")
@limit_options
@click.pass_context
def sync_stores(
    ctx: click.Context, /, source: str, target: str, delete: bool, even_lost: bool, lanes: int, dry_run: bool,
    limit_upload: str | None, limit_download: str | None,
) -> int:  # fmt: skip
    """Copy a repository object by object to another place.

    What TO lacks is copied as it is, so both hold the same repository, opened by the same passwords. Every object is
    compared with its checksum on the way; no password is needed, except for --delete: then FROM must have all packs
    that its index names, and snapshots that are gone from it must have been purged, not lost. An empty TO is filled,
    an older one brought up to date. Exit code 15 if objects of FROM are damaged, which are not copied, or lost.
    """
    from lox.opening import open_store_with_key, tell_rereads
    from lox.progress import Reporter
    from lox.recording import recorded_steps
    from lox.signals import stopping
    from repository.finding import read_config
    from repository.mirror import require_whole, sync
    from repository.purged import load_purged
    from repository.repository import Repository
    from repository.store import open_store

    ctx.with_resource(limits(limit_upload, limit_download))
    output = output_of(ctx)
    reporter = Reporter(output)
    stores = open_store(source), open_store(target)
    if even_lost and not delete:
        raise UsageError("--even-lost goes with --delete")
    purged, model = None, None
    if delete:
        model = open_store_with_key(stores[0])
        require_whole(model)
        purged = None if even_lost else load_purged(model)
    settings = {"from": safe(stores[0].url), "delete": delete, "dry_run": dry_run, "lanes": lanes}
    with recorded_steps(output, "sync", stores[1], read_config(stores[0]).repo_id, reporter, **settings) as record:
        step = record.stepping(reporter.step)
        with reporter, stopping(reporter.stop, quiet=output.json):
            try:
                report = sync(*stores, delete=delete, purged=purged, dry_run=dry_run, lanes=lanes, progress=step)
            except Interrupted as error:
                raise Interrupted(error.what, hint="the same command goes on where it stopped") from error
        record.of_sync(report)
        code = record.ended(ExitCode.DAMAGE_FOUND if report.findings or report.lost else ExitCode.OK)
    for name, text in report.findings.items():
        output.event("finding", object=name, message=safe(text))
        output.line(f"not copied: {safe(text)}")
    if report.lost and model is not None:
        _tell_lost(output, report, Repository.attach(stores[1], model.credentials()))
    fields = {name: value for name, value in asdict(report).items() if name != "findings"}
    output.event("summary", dry_run=dry_run, **fields, findings=len(report.findings), exit_code=int(code))
    if output.quiet < 2:
        output.line(_sync_line(report, dry_run))
    tell_rereads(output, stores[0].url, report.reread)
    if report.kept and not report.lost:
        output.note(f"note: {plural(report.kept, 'object')} not deleted: somebody is at work on the repository")
    return code


def _tell_lost(output: Output, report: SyncReport, mirror: Repository) -> None:
    """The snapshots that only the mirror has, though nobody purged them."""
    from repository.snapshot import load as load_snapshot

    rows = []
    for snapshot_id in report.lost:
        try:
            snapshot = load_snapshot(mirror, snapshot_id)
        except LoxError as error:
            rows.append((snapshot_id[:ID_SHOWN], "", "", safe(str(error))))
            continue
        paths = ", ".join([shown(path) for path in snapshot.paths])
        rows.append((snapshot_id[:ID_SHOWN], format_time(snapshot.time), safe(snapshot.host), paths))
    output.events("lost", ({"snapshot": snapshot_id} for snapshot_id in report.lost))
    output.lines(table(("SNAPSHOT", "TIME", "HOST", "PATHS"), rows))
    output.note(
        f"lox: {plural(len(report.lost), 'snapshot')} gone from the source though nobody purged them, so nothing was "
        "deleted; bring them back with: lox store sync, the other way round; if they are not wanted: --even-lost"
    )


def _sync_line(report: SyncReport, dry_run: bool) -> str:
    verb = "would copy" if dry_run else "copied"
    deleted = f", {'would delete' if dry_run else 'deleted'} {report.deleted}" if report.deleted else ""
    return (
        f"{verb} {plural(report.copied, 'object')}, {format_size(report.bytes)}, with "
        f"{plural(report.snapshots, 'snapshot')}{deleted}; {report.present} there already"
    )


def _show(output: Output, report: ProbeReport) -> None:
    rows = [(finding.name, _verdict(finding), safe(finding.text)) for finding in report.findings]
    if report.latency is not None and report.upload is not None and report.download is not None:
        rows.append(("latency", "", f"{format_seconds(report.latency)} for a small read"))
        rows.append(("upload", "", format_rate(report.upload)))
        rows.append(("download", "", format_rate(report.download)))
    output.lines(table(("TRAIT", "", "FOUND"), rows))
    if report.left_behind:
        output.line(f"{plural(len(report.left_behind), 'object')} of the probe could not be deleted:")
        output.lines(f"  {safe(name)}" for name in report.left_behind)
    if not report.usable:
        output.line("A repository cannot live here.")


def _verdict(finding: Finding) -> str:
    if finding.good is None:
        return "-"
    return "yes" if finding.good else "NO" if finding.needed else "no"
