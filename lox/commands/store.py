"""``lox store probe``: what the place where a repository lies, or shall lie, really does."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from lox.escape import safe
from lox.output import Output, output_of, table
from lox.settings import Group, option, settings_of
from lox.types import SizeType
from lox.units import format_rate, format_seconds, plural
from model.exits import ExitCode

if TYPE_CHECKING:
    from repository.store.probe import Finding, ProbeReport

MIB = 1 << 20


@click.group("store", cls=Group, subcommand_metavar="COMMAND [ARGS]...")
def command() -> None:
    """Find out what the place of a repository does, and how fast."""


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
