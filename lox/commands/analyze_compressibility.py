"""``lox analyze compressibility``."""

from __future__ import annotations

from typing import Any

import click

from lox.analyzing import open_view, step
from lox.commands.backup import absolute_paths
from lox.output import Output, output_of, table
from lox.sampling import sample_options, scan_options
from lox.settings import command as command_of
from lox.settings import option
from lox.types import BytesType, Compression, CompressionType
from lox.units import format_count, format_size
from model.exits import ExitCode

ALL = "(all)"
STORED = ("CODEC", "SEGMENTS", "UNIQUE", "STORED", "STORED/UNIQUE")


@command_of("compressibility")
@click.argument("paths", metavar="[PATH]...", nargs=-1, type=BytesType())
@option("--compression", "codecs", multiple=True, type=CompressionType(), metavar="CODEC[:LEVEL]",
        help="What to try; may be repeated. [default: some of each]")  # fmt: skip
@sample_options("64MiB", 60.0)
@click.pass_context
def command(
    ctx: click.Context, /, paths: tuple[bytes, ...], codecs: tuple[Compression, ...], sample_bytes: int,
    seconds: float, seed: int, excludes: tuple[bytes, ...],
) -> ExitCode:  # fmt: skip
    """Show how well each kind of file compresses.

    With PATH of these files (no repository is needed), else of what the repository holds; then it is shown as well what
    is stored now, by codec. Samples of each extension are compressed with each codec and level: the table has what is
    left of the logical bytes, and for all together the CPU seconds that 10^9 bytes take.
    """
    output = output_of(ctx)
    view = damage = None
    if not paths:
        view, damage = open_view(ctx, ["lox.analysis.compressibility"])
    from lox.analysis.compressibility import CODECS, KINDS, SEGMENT, KindLots, compressibility, stored_by_codec
    from lox.analysis.contents import draw_files, draw_versions, read_files, versions_reader

    lots: KindLots[Any] = KindLots(max(1 << 20, sample_bytes // (KINDS + 1)), lambda thing: thing.path, seed)
    with step(output) as progress:
        if view is None:
            draw_files(lots, absolute_paths(paths, output), scan_options(excludes), progress, region=SEGMENT)
            reader: Any = read_files
        else:
            _show_stored(output, stored_by_codec(view).to_pylist())
            draw_versions(lots, view, progress, SEGMENT)
            reader = versions_reader(view)
        asked = [(one.codec, one.level) for one in codecs]
        rows = compressibility(lots, reader, asked or CODECS, seconds or None, progress, seed).to_pylist()
    output.events("sample", rows)
    code = ExitCode.OK if damage is None else damage.code
    logical = sum({row["group"]: row["logical"] for row in rows if row["group"] != ALL}.values())
    left = lots.offered_bytes - logical
    output.event("summary", groups=len({row["group"] for row in rows}) - 1, logical_left_out=left, exit_code=int(code))
    _show_sample(output, rows)
    if left:
        output.note(f"{format_size(left)} of logical bytes are of kinds that were not read: see --time")
    return code


def _show_stored(output: Output, rows: list[dict[str, Any]]) -> None:
    output.events("stored", rows)
    lines = [
        (
            row["codec"],
            format_count(row["segments"]),
            format_size(row["unique"]),
            format_size(row["stored"]),
            f"{row['stored'] / row['unique']:.3f}" if row["unique"] else "",
        )
        for row in rows
    ]
    output.lines(table(STORED, lines, right=range(1, len(STORED))))
    output.line()


def _show_sample(output: Output, rows: list[dict[str, Any]]) -> None:
    names = list(dict.fromkeys(f"{row['codec']}:{row['level']}" for row in rows))
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(row["group"], []).append(row)
    lines = [
        (
            group,
            format_size(some[0]["logical"]),
            format_size(some[0]["sampled"]),
            *(f"{row['compressed_per_logical']:.3f}" for row in some),
        )
        for group, some in groups.items()
    ]
    cpu = [f"{row['cpu_seconds_per_gb']:.2f}" for row in groups[ALL]]
    lines.append(("CPU s/GB", "", "", *cpu))
    output.lines(table(("KIND", "LOGICAL", "LOGICAL READ", *names), lines, right=range(1, len(names) + 3)))
