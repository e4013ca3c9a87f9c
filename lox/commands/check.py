"""``lox check``."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from lox.contents import ID_SHOWN
from lox.escape import path_fields, safe, shown_path
from lox.opening import open_repository
from lox.output import Output, output_of
from lox.settings import command as command_of
from lox.settings import option
from lox.signals import stopping
from lox.types import PercentType
from lox.units import format_size, plural
from model.errors import UsageError
from model.exits import ExitCode

if TYPE_CHECKING:
    from repository.findings import CheckReport, Finding

FILES_SHOWN = 5  # affected files of one finding, in text; --json has all that are known


@command_of("check")
@option("--read-data", is_flag=True, help="Read, open and verify everything, to the last byte.")
@option("--read-data-subset", type=PercentType(), metavar="PERCENT", help="The same for this share of the packs.")
@click.pass_context
def command(ctx: click.Context, /, read_data: bool, read_data_subset: float | None) -> int:
    """Verify that everything stored is there and intact.

    Without an option: that every snapshot can be listed and every chunk it needs is in a pack of the right size. What
    is damaged is named, with the snapshots and files it concerns; exit code 15.
    """
    if read_data and read_data_subset is not None:
        raise UsageError("--read-data reads everything", hint="leave out one of the two options")
    repository = open_repository(ctx, ["repository.check"])
    from lox.progress import Reporter
    from repository.check import check

    output = output_of(ctx)
    reporter = Reporter(output)
    level = "data" if read_data or read_data_subset is not None else "structure"
    with reporter, stopping(reporter.stop, quiet=output.json):
        report = check(repository, level, read_data_subset, reporter.step)
    return _finish(output, report)


def _finish(output: Output, report: CheckReport) -> ExitCode:
    """Prints findings, then what was looked at."""
    code = ExitCode.OK if report.sound else ExitCode.DAMAGE_FOUND
    for finding in report.findings:
        output.event(
            "finding",
            object=finding.subject,
            what=safe(finding.what),
            snapshots=finding.snapshots,
            files=[path_fields(b"/" + path) for path in finding.files],
            files_total=finding.files_total,
        )
        if not output.json:
            print("\n".join(_finding_lines(finding)), file=sys.stderr)
    for note in report.notes:
        output.event("note", message=safe(note))
        output.note(f"note: {safe(note)}")
    counts = asdict(report)
    del counts["findings"], counts["notes"]
    output.event("summary", sound=report.sound, findings=len(report.findings), **counts, exit_code=int(code))
    if output.quiet < 2:
        output.line(_looked_at(report))
        output.line("no damage found" if report.sound else f"damage found: {plural(len(report.findings), 'finding')}")
    return code


def _finding_lines(finding: Finding) -> list[str]:
    lines = [f"lox: {safe(finding.subject)}: {safe(finding.what)}"]
    if finding.files_total:
        snapshots = ", ".join([snapshot[:ID_SHOWN] for snapshot in finding.snapshots])
        lines.append(f"  concerns {plural(finding.files_total, 'file')} in {snapshots}:")
        lines += [f"    {shown_path(path)}" for path in finding.files[:FILES_SHOWN]]
        if finding.files_total > FILES_SHOWN:
            lines.append(f"    and {finding.files_total - FILES_SHOWN:,} more")
    elif finding.snapshots:
        lines.append(f"  concerns {', '.join([snapshot[:ID_SHOWN] for snapshot in finding.snapshots])}")
    return lines


def _looked_at(report: CheckReport) -> str:
    parts = [plural(report.snapshots, "snapshot"), plural(report.entries, "entry", "entries")]
    parts += [plural(report.chunks, "chunk"), plural(report.packs, "pack")]
    read = (
        f"; {report.packs_read:,} read to the last byte, {format_size(report.bytes_read)}" if report.packs_read else ""
    )
    return f"checked {', '.join(parts)}{read}"
