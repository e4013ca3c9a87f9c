"""The last lines of a backup, a restore and a check: what was done, how fast, and what limited it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from lox.escape import path_fields, safe, shown_path
from lox.output import Output, table
from lox.units import format_count, format_rate, format_seconds, format_share, format_size, plural
from model.exits import ExitCode

if TYPE_CHECKING:
    from pipelines.backup import BackupReport, BackupRequest
    from pipelines.mirrors import MirrorReport
    from pipelines.restore import RestoreReport, RestoreRequest

PROBLEMS_LISTED = 10
SHORT = 1.0  # seconds


def finish_backup(
    output: Output, request: BackupRequest, report: BackupReport, mirrors: Sequence[MirrorReport] = ()
) -> ExitCode:
    """Prints what a backup did and returns its exit code."""
    behind = any(mirror.trouble for mirror in mirrors)
    code = ExitCode.PARTIAL if report.problems or behind else ExitCode.OK
    snapshot = report.snapshot.id if report.snapshot is not None else None
    output.event(
        "summary",
        snapshot=snapshot,
        dry_run=request.dry_run,
        deduplicated=report.deduplicated,
        files=report.files,
        directories=report.directories,
        files_new=report.files_new,
        files_changed=report.files_changed,
        files_unchanged=report.files_unchanged,
        bytes_total=report.bytes_total,
        bytes_read=report.bytes_read,
        bytes_new=report.bytes_new,
        bytes_stored=report.bytes_stored,
        problems=len(report.problems),
        mirrors=[_mirror_fields(mirror) for mirror in mirrors],
        hosts=[{"host": host, **numbers} for host, numbers in report.hosts.items()],
        seconds=round(report.seconds, 3),
        bottleneck=report.bottleneck,
        stages=stage_rows(report.trace),
        lanes=[{"lane": lane, "host": safe(host)} for lane, host in report.trace.placed],
        exit_code=int(code),
    )
    if output.quiet < 2:
        output.lines(_backup_lines(output, request, report, snapshot))
        output.lines(_host_line(host, numbers) for host, numbers in report.hosts.items())
        output.lines(_mirror_line(mirror) for mirror in mirrors)
        if output.verbose:
            output.lines(["", *stage_lines(report.trace)])
            output.lines(f"lane {lane} on {safe(host)}" for lane, host in report.trace.placed)
        _list_problems(output, report.problems)
    output.flush()
    return code


def _backup_lines(output: Output, request: BackupRequest, report: BackupReport, snapshot: str | None) -> list[str]:
    head = "nothing was stored (dry run)" if snapshot is None else f"snapshot {snapshot[:8]}"
    files = plural(report.files, "file")
    kinds = [
        f"{format_count(number)} {what}"
        for number, what in (
            (report.files_new, "new"),
            (report.files_changed, "changed"),
            (report.files_unchanged, "unchanged"),
        )
        if number
    ]
    detail = f" ({', '.join(kinds)})" if kinds else ""
    verb = "would be stored" if request.dry_run else "stored"
    rate = format_rate(report.bytes_read / report.seconds) if report.seconds > 0 and report.bytes_read else ""
    new = f"new {format_size(report.bytes_new)}" if report.deduplicated else "not deduplicated"
    lines = [
        f"{head}: {files}{detail}, {plural(report.directories, 'folder')}, {format_size(report.bytes_total)}",
        f"read {format_size(report.bytes_read)}, {new}, "
        f"{verb} {format_size(report.bytes_stored)} in {format_seconds(report.seconds)}{f', {rate}' if rate else ''}",
    ]
    if _worth_telling(output, report):
        lines.append(safe(report.bottleneck))
    return lines


def _host_line(host: str, numbers: Mapping[str, int]) -> str:
    kinds = ("files_new", "new"), ("files_changed", "changed"), ("files_unchanged", "unchanged")
    parts = [plural(numbers["files"], "file")]
    parts += [f"{format_count(numbers[name])} {what}" for name, what in kinds if numbers[name]]
    parts += [f"read {format_size(numbers['bytes_read'])}", f"new {format_size(numbers['bytes_new'])}"]
    parts += [plural(numbers["problems"], "problem")] if numbers["problems"] else []
    return f"  {safe(host)}: {', '.join(parts)}"


def _mirror_fields(mirror: MirrorReport) -> dict[str, object]:
    done = mirror.sync
    later = {"objects_later": done.copied, "bytes_later": done.bytes} if done is not None else {}
    return {"url": mirror.url, "behind": bool(mirror.trouble), "message": safe(mirror.trouble), **later}


def _mirror_line(mirror: MirrorReport) -> str:
    if mirror.trouble:
        return f"mirror {safe(mirror.url)} is behind: {safe(mirror.trouble)}; the next backup brings what it lacks"
    assert mirror.sync is not None, "what is not behind was brought up"
    last = f"{plural(mirror.sync.copied, 'object')}, {format_size(mirror.sync.bytes)}"
    return f"mirror {safe(mirror.url)} has it too; sent in the end: {last}"


def _worth_telling(output: Output, report: BackupReport | RestoreReport) -> bool:
    """Whether to tell what limited a run: of a short one nobody asks, and chance has too much of a say."""
    return bool(report.bottleneck) and (report.seconds >= SHORT or output.verbose > 0)


def finish_restore(output: Output, request: RestoreRequest, report: RestoreReport, told: int = 0) -> ExitCode:
    """Prints what a restore did and returns its exit code. The first `told` problems were told when they happened."""
    output.events("problem", [problem_fields(path, text) for path, text in report.problems[told:]])
    code = ExitCode.DAMAGE_FOUND if report.damaged else ExitCode.PARTIAL if report.problems else ExitCode.OK
    output.event(
        "summary",
        snapshot=request.snapshot.id,
        notes=report.notes,
        dry_run=request.dry_run,
        files=report.files,
        bytes=report.bytes,
        skipped=report.skipped,
        problems=len(report.problems),
        seconds=round(report.seconds, 3),
        bottleneck=report.bottleneck,
        stages=stage_rows(report.trace),
        exit_code=int(code),
    )
    if output.quiet < 2:
        output.lines(_restore_lines(output, request, report))
        for text, count in report.notes.items():
            output.note(f"note: {safe(text)} ({format_count(count)} times)" if count > 1 else f"note: {safe(text)}")
        if report.damaged:
            output.note("Hint: the repository is damaged; lox check --read-data tells what else it concerns")
        if output.verbose:
            output.lines(["", *stage_lines(report.trace)])
        _list_problems(output, report.problems)
    output.flush()
    return code


def _restore_lines(output: Output, request: RestoreRequest, report: RestoreReport) -> list[str]:
    verb = "would restore" if request.dry_run else "restored and verified" if request.verify else "restored"
    rate = f", {format_rate(report.bytes / report.seconds)}" if report.seconds > 0 and report.bytes else ""
    skipped = f", {format_count(report.skipped)} already there" if report.skipped else ""
    lines = [
        f"{verb} {plural(report.files, 'file')}, {format_size(report.bytes)}{skipped} "
        f"in {format_seconds(report.seconds)}{rate}"
    ]
    if _worth_telling(output, report):
        lines.append(safe(report.bottleneck))
    return lines


def _list_problems(output: Output, problems: list[tuple[bytes, str]]) -> None:
    """A last reminder; each was told when it happened, but that may have scrolled away."""
    if not problems:
        return
    output.line()
    output.line(f"{plural(len(problems), 'item')} with a problem:")
    output.lines([f"  {shown_path(path)}: {safe(text)}" for path, text in problems[:PROBLEMS_LISTED]])
    if len(problems) > PROBLEMS_LISTED:
        output.line(f"  and {format_count(len(problems) - PROBLEMS_LISTED)} more; --json lists all of them")


def problem_fields(path: bytes, text: str) -> dict[str, object]:
    """A problem for JSON."""
    return {**path_fields(b"/" + path), "message": text}


def stage_rows(trace: object) -> list[dict[str, object]]:
    """Items, bytes and seconds of every stage of a run, for JSON; empty if nothing ran."""
    rows: list[dict[str, object]] = []
    for stage in getattr(trace, "stages", ()):
        rows.append(
            {
                "stage": stage.name,
                "lanes": stage.lanes,
                "items": stage.items_in,
                "bytes_in": stage.bytes_in,
                "bytes_out": stage.bytes_out,
                "busy": round(stage.busy, 3),
                "starved": round(stage.starved, 3),
                "blocked": round(stage.blocked, 3),
            }
        )
    return rows


def stage_lines(trace: object) -> list[str]:
    """The same as a table; shares are of wall time × lanes."""
    rows = []
    for stage in getattr(trace, "stages", ()):
        whole = stage.busy + stage.starved + stage.blocked
        shares = [format_share(part, whole) for part in (stage.busy, stage.starved, stage.blocked)]
        rows.append(
            (stage.name, str(stage.lanes), format_count(stage.items_in), format_size(stage.bytes_in),
             format_size(stage.bytes_out), f"{stage.busy:.2f} s", *shares)
        )  # fmt: skip
    headings = ("STAGE", "LANES", "ITEMS", "IN", "OUT", "BUSY", "BUSY %", "STARVED", "BLOCKED")
    return table(headings, rows, right=range(1, 9)) if rows else []
