"""``lox check``."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from lox.contents import ID_SHOWN
from lox.escape import path_fields, safe, shown_path
from lox.metrics import Metering, metered
from lox.opening import open_repository, store_of, tell_rereads
from lox.output import Output, output_of
from lox.settings import command as command_of
from lox.settings import option, settings_of
from lox.signals import stopping
from lox.types import ShareType
from lox.units import format_size, plural
from model.errors import UsageError
from model.exits import ExitCode

if TYPE_CHECKING:
    from repository.findings import CheckReport, Finding, Progress
    from repository.repository import Repository

FILES_SHOWN = 5  # affected files of one finding, in text; --json has all that are known
HINT = "lox repair shows what can be done"


@command_of("check")
@option("--quick", is_flag=True, help="Only compare the list of packs and their sizes with the index.")
@option("--read-data", is_flag=True, help="Read, open and verify everything, to the last byte.")
@option("--read-data-subset", type=ShareType(), metavar="SHARE", help="The same for a share of the packs: 5%, 1/30.")
@option("--rolling", is_flag=True, help="Of them, those whose last reading is longest ago, not any.")
@option("--restore-sample", type=click.IntRange(1), metavar="N", help="Restore this many random files to nowhere.")
@option("--keyless", is_flag=True, help="Only compare all bytes with their checksums; needs no password.")
@click.pass_context
@metered("check")
def command(
    ctx: click.Context,
    /,
    quick: bool,
    read_data: bool,
    read_data_subset: float | None,
    rolling: bool,
    restore_sample: int | None,
    keyless: bool,
    meter: Metering,
) -> int:
    """Verify that everything stored is there and intact.

    Without an option: that every snapshot can be listed and every chunk it needs is in a pack of the right size. What
    is damaged is named, with the snapshots and files it concerns; exit code 15.

    With --read-data-subset 1/30 --rolling, 30 runs read everything once; one that is broken off is no run lost. When
    which pack was read is remembered in the local cache.
    """
    _refuse_nonsense(quick, read_data, read_data_subset, rolling, restore_sample, keyless)
    output = output_of(ctx)
    if keyless:
        return _keyless(ctx, output, read_data_subset, meter)
    modules = ["repository.check", *(["pipelines.sample"] if restore_sample else [])]
    repository = open_repository(ctx, modules)
    from lox.progress import Reporter
    from lox.recording import recorded_steps
    from repository.cache_dir import default_cache_dir
    from repository.check import check
    from repository.sessions import reading_session
    from repository.verified import VerifiedLog

    reporter = Reporter(output)
    level = "data" if read_data or read_data_subset is not None else "presence" if quick else "structure"
    verified = VerifiedLog.open(repository, default_cache_dir())
    settings = {"level": level, "subset": read_data_subset, "rolling": rolling, "restore_sample": restore_sample}
    with recorded_steps(output, "check", repository.store, repository.id, reporter, **settings) as record:
        step = record.stepping(meter.stepping(reporter))
        with reading_session(repository, "check"), reporter, stopping(reporter.stop, quiet=output.json):
            report = check(repository, level, read_data_subset, step, verified, rolling)
            if restore_sample:
                _sample(repository, restore_sample, report, step)
        record.of_check(report)
        return record.ended(_finish(output, report, meter))


def _refuse_nonsense(
    quick: bool, read_data: bool, subset: float | None, rolling: bool, sample: int | None, keyless: bool
) -> None:
    if read_data and subset is not None:
        raise UsageError("--read-data reads everything", hint="leave out one of the two options")
    if rolling and (subset is None or keyless):
        raise UsageError("--rolling needs to know how much to read", hint="add --read-data-subset 1/30")
    if quick and (read_data or subset is not None or sample or keyless):
        raise UsageError("--quick reads no data", hint="leave it out")
    if keyless and sample:
        raise UsageError("without a key nothing can be restored", hint="leave out --keyless or --restore-sample")


def _keyless(ctx: click.Context, output: Output, subset: float | None, meter: Metering) -> int:
    store = store_of(settings_of(ctx))
    from lox.progress import Reporter
    from lox.recording import recorded_steps
    from repository.finding import read_config
    from repository.keyless import check_keyless
    from repository.rereads import Rereads

    rereads = Rereads()
    ctx.call_on_close(lambda: tell_rereads(output, store.url, rereads.count))
    reporter, repository_id = Reporter(output), read_config(store, rereads).repo_id
    with recorded_steps(output, "check", store, repository_id, reporter, level="keyless", subset=subset) as record:
        with reporter, stopping(reporter.stop, quiet=output.json):
            report = check_keyless(store, subset, record.stepping(meter.stepping(reporter)), rereads)
        record.of_check(report)
        return record.ended(_finish(output, report, meter))


def _sample(repository: Repository, count: int, report: CheckReport, step: Progress) -> None:
    from pipelines.options import EngineOptions
    from pipelines.sample import restore_sample
    from repository.snapshot import load_all

    sampled = restore_sample(repository, load_all(repository), count, EngineOptions(executor="threads"), step)
    report.files_restored, report.bytes_restored = sampled.files, sampled.bytes
    for path, snapshot, why in sampled.failures:
        finding = report.finding(f"snapshots/{snapshot}", f"a file cannot be restored: {why}")
        finding.affect([snapshot], [path] if path else [])


def _finish(output: Output, report: CheckReport, meter: Metering) -> ExitCode:
    """Prints findings, then what was looked at."""
    meter.checked(len(report.findings))
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
        found = plural(len(report.findings), "finding")
        output.line("no damage found" if report.sound else f"damage found: {found}; {HINT}")
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
    if report.level == "keyless":
        checked = f"compared {plural(report.objects - report.packs, 'object')} and {plural(report.packs_read, 'pack')}"
        return f"{checked} with their checksums, {format_size(report.bytes_read)} of packs"
    parts = [plural(report.snapshots, "snapshot"), plural(report.entries, "entry", "entries")]
    parts += [plural(report.chunks, "chunk"), plural(report.packs, "pack")]
    read = (
        f"; {report.packs_read:,} read to the last byte, {format_size(report.bytes_read)}" if report.packs_read else ""
    )
    sample = (
        f"; {plural(report.files_restored, 'file')} restored to nowhere, {format_size(report.bytes_restored)}"
        if report.files_restored
        else ""
    )
    return f"checked {', '.join(parts)}{read}{sample}"
