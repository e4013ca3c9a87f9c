"""``lox prune``."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from lox.engine import limit_options, limits
from lox.escape import safe
from lox.metrics import Metering, metered
from lox.opening import open_repository
from lox.output import Output, output_of
from lox.settings import command as command_of
from lox.settings import option
from lox.signals import stopping
from lox.types import SizeType, SpanType, UpToType
from lox.units import format_share, format_size, plural
from model.errors import Interrupted
from model.exits import ExitCode

if TYPE_CHECKING:
    from repository.prune import PruneReport


@command_of("prune")
@option("-n", "--dry-run", is_flag=True, help="Show what a run would do; change nothing.")
@option(
    "--trash",
    type=SpanType(),
    default="7d",
    show_default=True,
    metavar="SPAN",
    help="How long forgotten snapshots can be brought back; 0d empties the trash now.",
)
@option(
    "--max-unused",
    type=UpToType(),
    default="5%",
    show_default=True,
    metavar="SHARE",
    help="How much of the packs may be of no use before they are rewritten; 0% frees all that can be.",
)
@option("--max-rewrite", type=SizeType(), metavar="SIZE", help="Copy at most so much in this run; the next goes on.")
@option(
    "--unfinished",
    type=SpanType(),
    default="1d",
    show_default=True,
    metavar="SPAN",
    help="How long to keep what interrupted backups stored, for the next to use.",
)
@option("--reencrypt", is_flag=True, help="Store anew what is sealed under keys from before the last lox key rotate.")
@limit_options
@click.pass_context
@metered("prune")
def command(
    ctx: click.Context,
    /,
    dry_run: bool,
    trash: int,
    max_unused: float,
    max_rewrite: int | None,
    unfinished: int,
    reencrypt: bool,
    limit_upload: str | None,
    limit_download: str | None,
    meter: Metering,
) -> ExitCode:
    """Give back the room of what no snapshot needs.

    Forgotten snapshots leave the trash after a while; then packs that nobody needs are deleted, and those that are
    mostly of no use are rewritten. May run beside backups and restores: what somebody may still rely on is deleted by
    the next run. Interrupted anywhere, it loses nothing.
    """
    ctx.with_resource(limits(limit_upload, limit_download))
    repository = open_repository(ctx, ["repository.prune"])
    from lox.progress import Reporter
    from lox.recording import recorded_steps
    from repository.prune import PrunePolicy, prune
    from repository.reserve import hold_reserve

    output = output_of(ctx)
    reporter = Reporter(output)
    policy = PrunePolicy(max_unused, max_rewrite, trash, unfinished)
    settings = {"dry_run": dry_run, "max_unused": max_unused, "max_rewrite": max_rewrite, "reencrypt": reencrypt}
    with recorded_steps(output, "prune", repository.store, repository.id, reporter, **settings) as record:
        with reporter, stopping(reporter.stop, quiet=output.json):
            try:
                report = prune(repository, policy, dry_run, record.stepping(meter.stepping(reporter)), reencrypt)
                if not dry_run:
                    hold_reserve(repository.store)
                    if reencrypt:
                        output.note("note: mirrors keep what is under older keys until: lox store sync --delete")
            except Interrupted as error:
                raise Interrupted(error.what, hint="nothing is lost; lox prune goes on where it stopped") from error
        record.of_prune(report)
        code = _finish(output, report)
        record.ended(code)
        return code


def _finish(output: Output, report: PruneReport) -> ExitCode:
    code = ExitCode.DAMAGE_FOUND if report.damaged else ExitCode.OK
    for error in report.damaged:
        output.event("damaged", object=error.subject, what=safe(str(error)))
        output.note(f"lox: {safe(str(error))}; the pack stays as it is, lox check --read-data tells more")
    fields = asdict(report)
    del fields["damaged"]
    fields["purged"] = len(report.purged)
    output.event("summary", **fields, bytes_after=report.bytes_after, exit_code=int(code))
    output.lines(_lines(report))
    return code


_LEFT = {
    "index": "of packs that are left too; the next run goes on",
    "gc/condemned": "they go once what they condemn is deleted",
    "gc/quarantine": "what repair moved aside; delete it if nothing is to be learned from it any more",
}


def _left(folder: str) -> str:
    """Why objects of a folder were not sealed anew, and what to do."""
    return _LEFT.get(folder, "they do not open; lox check tells more")


def _deleted(report: PruneReport, would: str) -> list[str]:
    size = format_size(report.bytes_deleted)
    freed = "" if report.kept_deleted else f" {would}freed"
    lines = [f"{plural(report.deleted, 'pack')} {would}deleted, {size}{freed}"]
    if report.kept_deleted:
        lines.append("the bucket keeps deleted objects until its lifecycle rule removes them: nothing is freed before")
    if report.locked:
        lines.append(f"{plural(report.locked, 'pack')} the store refuses to delete yet: are they locked?")
    return lines


def _lines(report: PruneReport) -> list[str]:
    """What was done, in the order in which it was."""
    would = "would be " if report.dry_run else ""
    lines = []
    if report.purged:
        lines.append(f"{plural(len(report.purged), 'snapshot')} {would}removed from the trash for good")
    if report.in_trash:
        lines.append(f"{plural(report.in_trash, 'snapshot')} in the trash, whose data stays; --trash 0d gives it up")
    if report.rewritten:
        lines.append(
            f"{plural(report.rewritten, 'pack')} {would}rewritten, {format_size(report.bytes_read)} of them read"
            f" and {format_size(report.bytes_written)} written"
        )
    if report.resealed:
        lines.append(f"{plural(report.resealed, 'snapshot')} sealed anew")
    if report.resealed_others:
        lines.append(f"{plural(report.resealed_others, 'note')} and the like sealed anew")
    if report.left_old:
        lines.append("left under older keys:")
        lines += [
            f"    {plural(count, 'object')} in {safe(folder)}/: {_left(folder)}"
            for folder, count in report.left_old.items()
        ]
    if report.old_keys:
        lines.append(f"{plural(report.old_keys, 'pack')} left under older keys; the next run goes on")
    if report.rescued:
        lines.append(f"{plural(report.rescued, 'condemned pack')} needed after all")
    lines += _deleted(report, would)
    if report.leftovers:
        what = f"{plural(report.leftovers, 'file')} of writers that were killed {would}removed"
        lines.append(f"{what}, {format_size(report.leftover_bytes)}")
    if report.waiting:
        lines.append(
            f"{plural(report.waiting, 'condemned pack')} left, {format_size(report.waiting_bytes)}: "
            "to be deleted once nobody can rely on them"
        )
    lines += [f"    {safe(who)}" for who in report.waiting_for]
    if report.unfinished:
        size = format_size(report.unfinished_bytes)
        lines.append(f"{plural(report.unfinished, 'pack')} kept for backups that are not finished, {size}")
    if not report.dry_run:
        unused = format_share(report.left_unused, report.bytes_after)
        lines.append(f"packs have {format_size(report.bytes_after)}, {unused} of it of no use")
    return lines
