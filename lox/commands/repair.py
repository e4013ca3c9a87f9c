"""``lox repair``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from lox.contents import ID_SHOWN
from lox.escape import path_fields, safe, shown_path
from lox.opening import open_repository
from lox.output import Output, output_of
from lox.settings import command as command_of
from lox.settings import option
from lox.signals import stopping
from lox.types import ShareType
from lox.units import format_size, plural
from model.errors import Interrupted, UsageError
from model.exits import ExitCode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from repository.affected import Wound
    from repository.repair import RepairReport

SHOWN = 10  # items of a kind, in text; --json has all


@command_of("repair")
@option("--dry-run", is_flag=True, help="Only print the plan; the default.")
@option("--apply", is_flag=True, help="Carry the plan out.")
@option("--read-data", is_flag=True, help="Read every pack to find damage.")
@option("--read-data-subset", type=ShareType(), metavar="SHARE", help="Read this share of the packs: 5%, 1/30.")
@click.pass_context
def command(ctx: click.Context, /, dry_run: bool, apply: bool, read_data: bool, read_data_subset: float | None) -> int:
    """Make a damaged repository usable again.

    Prints a plan; --apply carries it out. It only adds objects and moves aside what does not open: no pack and no
    snapshot is deleted. Of damaged packs it saves what can still be read. Packs that an earlier check found damaged are
    read again; --read-data looks for more. What is damaged is stored again by the next backup of the same source, if
    it is still there. Exit code 15 as long as something is left to do or cannot be brought back.
    """
    if dry_run and apply:
        raise UsageError("--dry-run and --apply contradict each other")
    if read_data and read_data_subset is not None:
        raise UsageError("--read-data reads everything", hint="leave out one of the two options")
    repository = open_repository(ctx, ["repository.repair"])
    from lox.progress import Reporter
    from lox.recording import recorded_steps
    from repository.cache_dir import default_cache_dir
    from repository.repair import repair
    from repository.verified import VerifiedLog

    output = output_of(ctx)
    reporter = Reporter(output)
    level = "data" if read_data or read_data_subset is not None else "structure"
    verified = VerifiedLog.open(repository, default_cache_dir())
    settings = {"level": level, "subset": read_data_subset, "dry_run": not apply}
    with recorded_steps(output, "repair", repository.store, repository.id, reporter, **settings) as record:
        with reporter, stopping(reporter.stop, quiet=output.json):
            try:
                step = record.stepping(reporter.step)
                report = repair(repository, apply, level, read_data_subset, step, verified)
            except Interrupted as error:
                hint = "lox repair --apply goes on where it stopped" if apply else error.hint
                raise Interrupted(error.what, hint=hint) from error
        record.of_repair(report)
        return record.ended(_finish(output, report))


def _finish(output: Output, report: RepairReport) -> ExitCode:
    left = not report.outlook.whole or bool(report.check.snapshots_unreadable)
    todo = not report.nothing_to_do and not report.applied
    code = ExitCode.DAMAGE_FOUND if left or todo else ExitCode.OK
    _tell_plan(output, report)
    _tell_outlook(output, report)
    output.event(
        "summary",
        applied=report.applied,
        set_aside=len(report.set_aside),
        epochs_mended=len(report.twins),
        leftovers=len(report.leftovers),
        leftover_bytes=sum(each.size for each in report.leftovers),
        packs_listed=len(report.unlisted),
        packs_condemned=len(report.condemned),
        chunks_salvaged=report.chunks_salvaged,
        bytes_salvaged=report.bytes_salvaged,
        files_curable=len(report.outlook.curable),
        files_unsure=len(report.outlook.unsure),
        files_lost=len(report.outlook.lost),
        exit_code=int(code),
    )
    if output.quiet < 2:
        output.line(_last_line(report, left))
    return code


def _last_line(report: RepairReport, left: bool) -> str:
    if not report.applied and not (report.nothing_to_do and not report.leftovers):
        return "nothing was changed; --apply does it"
    if left:
        return "done; what is listed above stays damaged" if report.applied else "nothing to do here"
    return "repaired; every snapshot can be restored" if report.applied else "nothing to repair was found"


def _tell_plan(output: Output, report: RepairReport) -> None:
    """What there is to do or was done, in the order in which it is done."""
    verbs = ("copied", "condemned", "named", "moved") if report.applied else ("copy", "condemn", "name", "move")
    for pack in report.condemned:
        output.event("condemn", pack=pack.pack_id.hex(), what=safe(pack.what), chunks_needed=pack.chunks)
    for pack_id in report.unlisted:
        output.event("list", pack=pack_id.hex())
    for twin in report.twins:
        output.event("mend_epoch", object=twin.name, sound=twin.sound, what=safe(str(twin.trouble)))
    for error in report.set_aside:
        output.event("set_aside", object=error.subject, what=safe(str(error)))
    lines = []
    if report.chunks_salvaged:
        size = format_size(report.bytes_salvaged)
        lines.append(f"{verbs[0]} {plural(report.chunks_salvaged, 'chunk')}, {size}, out of damaged packs")
    for pack in report.condemned[:SHOWN]:
        need = f"; snapshots need {plural(pack.chunks, 'chunk')} of it" if pack.chunks else ""
        lines.append(
            f"{verbs[1]} damaged pack {pack.pack_id.hex()[:ID_SHOWN]}: {safe(pack.what.partition('; ')[0])}{need}"
        )
    if len(report.condemned) > SHOWN:
        lines.append(f"and {len(report.condemned) - SHOWN:,} more packs")
    if report.unlisted:
        lines.append(f"{verbs[2]} {plural(len(report.unlisted), 'pack')} in a new index object")
    lines += [f"{verbs[3]} aside {safe(error.subject)}: {safe(error.what)}" for error in report.set_aside]
    wrote, removed = ("wrote", "removed") if report.applied else ("write", "remove")
    lines += [
        f"{wrote} {safe(twin.name)} anew from {safe(twin.sound)}: {safe(twin.trouble.what)}" for twin in report.twins
    ]
    if report.leftovers:
        size = format_size(sum(each.size for each in report.leftovers))
        lines.append(f"{removed} {plural(len(report.leftovers), 'file')} of writers that were killed, {size}")
    output.lines(lines)


def _tell_outlook(output: Output, report: RepairReport) -> None:
    outlook = report.outlook
    for kind, wounds in (("curable", outlook.curable), ("unsure", outlook.unsure), ("lost", outlook.lost)):
        for wound in wounds:
            output.event(f"file_{kind}", **path_fields(b"/" + wound.path), snapshots=list(wound.snapshots))
    for snapshot in outlook.unlisted:
        output.event("snapshot_incomplete", snapshot=snapshot)
    if output.json:
        return
    lines: list[str] = []
    named = [(safe(host), [shown_path(path.strip(b"/")) for path in paths]) for host, paths in outlook.sources]
    sources = "; ".join(f"{host}: {' '.join(paths)}" for host, paths in named)
    if outlook.curable:
        lines.append(
            f"{_files(outlook.curable)} damaged, to be healed by the next backup of {sources}, if unchanged there:"
        )
        lines += _shown(outlook.curable)
    if outlook.unsure:
        lines.append(f"{_files(outlook.unsure)} damaged, perhaps to be healed by the next backup of {sources}:")
        lines += _shown(outlook.unsure)
    if outlook.lost:
        lines.append(f"{_files(outlook.lost)} damaged beyond repair from here:")
        lines += _shown(outlook.lost)
    if outlook.unlisted:
        lines.append(f"not all entries can be listed of {', '.join(each[:ID_SHOWN] for each in outlook.unlisted)}")
    lines += [f"damaged for good: {name}" for name in report.check.snapshots_unreadable]
    if lines:
        print("\n".join(lines), file=sys.stderr)


def _files(wounds: Sequence[Wound]) -> str:
    return f"{plural(len(wounds), 'file')} {'is' if len(wounds) == 1 else 'are'}"


def _shown(wounds: Sequence[Wound]) -> list[str]:
    lines = [
        f"    {shown_path(wound.path)} in {', '.join(each[:ID_SHOWN] for each in wound.snapshots)}"
        for wound in wounds[:SHOWN]
    ]
    return lines + ([f"    and {len(wounds) - SHOWN:,} more"] if len(wounds) > SHOWN else [])
