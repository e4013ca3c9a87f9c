"""What ``lox copy`` chooses, and what it says in the end."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lox.contents import ID_SHOWN, tell_unreadable
from lox.escape import safe, shown
from lox.forgetting import tag_sets
from lox.output import Output, table
from lox.reports import stage_lines, stage_rows
from lox.units import format_count, format_rate, format_seconds, format_size, format_time, plural, rfc3339
from model.errors import LoxError
from model.exits import ExitCode
from repository.annotations import load_annotations
from repository.snapshot import choose, load_all

if TYPE_CHECKING:
    from pipelines.copy import CopyReport, CopyRequest
    from repository.repository import Repository
    from repository.snapshot import Snapshot

Unreadable = list[tuple[str, LoxError]]


def choose_snapshots(
    source: Repository,
    named: Sequence[str],
    hosts: Sequence[str],
    paths: Sequence[bytes],
    tags: Sequence[str],
    latest: int | None,
) -> tuple[tuple[Snapshot, ...], Unreadable]:
    """The snapshots that are meant, and those of which nobody can tell because they cannot be read. Raises NotFound."""
    found = load_all(source)
    if named:
        chosen = {one.id: one for one in (choose(found, reference, source.store.url) for reference in named)}
        return tuple(chosen.values()), []
    wanted, asked = tag_sets(tags), {os.path.abspath(path) for path in paths}
    annotations = load_annotations(source)
    groups: dict[tuple[str, frozenset[bytes]], list[Snapshot]] = defaultdict(list)
    for snapshot in found:
        if (hosts and snapshot.host not in hosts) or not asked <= set(snapshot.paths):
            continue
        if wanted and not any(some <= annotations.of(snapshot).tags for some in wanted):
            continue
        groups[snapshot.host, frozenset(snapshot.paths)].append(snapshot)
    return tuple(one for group in groups.values() for one in group[-latest if latest else 0 :]), found.unreadable


def finish_copy(output: Output, request: CopyRequest, report: CopyReport, unreadable: Unreadable) -> ExitCode:
    """Prints what a copy did and returns its exit code."""
    code = ExitCode.DAMAGE_FOUND if report.failed else ExitCode.OK
    for snapshot, copied in report.copied:
        new = None if request.dry_run else copied.id
        output.event("copied", source=snapshot.id, snapshot=new, host=snapshot.host, time=rfc3339(snapshot.time))
    output.events("failed", [{"source": each, "message": safe(why)} for each, why in report.failed.items()])
    code = tell_unreadable(output, unreadable) or code
    output.event("summary", **_fields(request, report), exit_code=int(code))
    if output.quiet < 2:
        _tell(output, request, report)
    output.flush()
    return code


def _fields(request: CopyRequest, report: CopyReport) -> dict[str, object]:
    counts = report.counts
    return {
        "dry_run": request.dry_run,
        "snapshots_copied": len(report.copied),
        "snapshots_present": report.present,
        "snapshots_trashed": report.trashed,
        "snapshots_failed": len(report.failed),
        "renamed": report.renamed,
        "chunks_needed": report.chunks_needed,
        "bytes_needed": report.bytes_needed,
        "chunks": counts.chunks,
        "bytes": counts.plain,
        "bytes_stored": counts.stored,
        "packs": counts.packs,
        "segments_copied": counts.segments_copied,
        "segments_repacked": counts.segments_repacked,
        "segments_decompressed": counts.segments_decompressed,
        "remarks": [safe(remark) for remark in report.remarks],
        "seconds": round(report.seconds, 3),
        "bottleneck": report.bottleneck,
        "stages": stage_rows(report.trace),
    }


def _tell(output: Output, request: CopyRequest, report: CopyReport) -> None:
    if report.copied and not output.quiet:
        rows = [_row(request, *pair) for pair in report.copied]
        output.lines(table(("SNAPSHOT", "TIME", "HOST", "COPY", "PATHS"), rows))
    for snapshot_id, why in report.failed.items():
        output.line(f"not copied: {snapshot_id[:ID_SHOWN]}: {safe(why)}")
    output.lines(_summary(request, report))
    if report.renamed and report.copied:
        output.note("note: the target names chunks in another way, so everything was decompressed; see lox help init")
    for remark in report.remarks:
        output.note(f"note: {safe(remark)}")
    if report.failed:
        output.note("Hint: lox check --read-data on the source tells what is damaged")
    if output.verbose:
        output.lines(["", *stage_lines(report.trace)])


def _row(request: CopyRequest, snapshot: Snapshot, copied: Snapshot) -> tuple[str, ...]:
    new = "" if request.dry_run else copied.id[:ID_SHOWN]
    paths = ", ".join([shown(path) for path in snapshot.paths])
    return snapshot.id[:ID_SHOWN], format_time(snapshot.time), safe(snapshot.host), new, paths


def _summary(request: CopyRequest, report: CopyReport) -> list[str]:
    counts = report.counts
    verb = "would copy" if request.dry_run else "copied"
    before = [f"{format_count(report.present)} there already"] if report.present else []
    before += [f"{format_count(report.trashed)} in the trash there"] if report.trashed else []
    aside = f" ({', '.join(before)})" if before else ""
    head = f"{verb} {plural(len(report.copied), 'snapshot')}{aside}"
    if request.dry_run:
        return [f"{head}: {plural(report.chunks_needed, 'chunk')}, {format_size(report.bytes_needed)} at most"]
    rate = f", {format_rate(counts.plain / report.seconds)}" if report.seconds > 0 and counts.plain else ""
    how = f"{plural(counts.segments_copied, 'segment')} as they were, {format_count(counts.segments_repacked)} repacked"
    return [
        f"{head}: {format_size(counts.plain)}, stored {format_size(counts.stored)} "
        f"in {format_seconds(report.seconds)}{rate}",
        *([f"{how}, {format_count(counts.segments_decompressed)} decompressed"] if counts.packs else []),
    ]
