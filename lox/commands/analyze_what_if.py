"""``lox analyze what-if``."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import click

from lox.analyzing import open_view, step
from lox.commands.backup import absolute_paths
from lox.output import output_of, table
from lox.sampling import sample_options, scan_options
from lox.settings import command as command_of
from lox.settings import option
from lox.types import BytesType, SizeType
from lox.units import format_count, format_share, format_size, plural
from model.chunking import ChunkerParams
from model.errors import ConfigError, UsageError
from model.exits import ExitCode
from model.sizes import parse_size

if TYPE_CHECKING:
    from lox.analysis.what_if import WhatIf

HEADINGS = ("CHUNKS OF", "UNIQUE", "±", "LOGICAL/UNIQUE", "CHUNKS", "±", "INDEX STORED", "INDEX MEMORY", "LISTS",
            "STORED", "±", "PACKS", "REQUESTS", "JUMPS/GiB")  # fmt: skip


FEW = 20  # clusters, below which their spread is itself a guess


@command_of("what-if")
@click.argument("paths", metavar="[PATH]...", nargs=-1, type=BytesType())
@option("--chunks", multiple=True, metavar="MIN/AVG/MAX", help="Sizes to try, as 4KiB/64KiB/4MiB; may be repeated.")
@option("--fixed", multiple=True, type=SizeType(64), metavar="SIZE", help="Chunks of this size; may be repeated.")
@option("--pack-size", type=SizeType(1 << 20), default="64MiB", show_default=True, metavar="SIZE",
        help="Of the packs that are counted.")  # fmt: skip
@sample_options("1GiB", 60.0)
@click.pass_context
def command(
    ctx: click.Context, /, paths: tuple[bytes, ...], chunks: tuple[str, ...], fixed: tuple[int, ...], pack_size: int,
    sample_bytes: int, seconds: float, seed: int, excludes: tuple[bytes, ...],
) -> ExitCode:  # fmt: skip
    """Estimate what other chunk sizes would give.

    With PATH for a first backup of these files (no repository is needed), else for all that the repository holds. A
    sample is cut with each of the sizes: UNIQUE bytes are what is left of the logical ones after deduplication, STORED
    what they take, compressed. INDEX STORED and LISTS are bytes of metadata for them, INDEX MEMORY what looking them up
    takes. JUMPS count how often reading all files in order has to go to another place of the store. ± is half of an
    interval of four standard deviations, and of what large files of one length that were not read may have in common.
    """
    parameters = [*map(_parse, chunks), *(_fixed(size) for size in fixed)]
    output = output_of(ctx)
    code = ExitCode.OK
    view = damage = None
    if not paths:
        view, damage = open_view(ctx, ["lox.analysis.what_if"])
    from lox.analysis.contents import draw_files, draw_versions, read_files, versions_reader
    from lox.analysis.copies import Copies
    from lox.analysis.estimates import RUNS_BYTES, compression_of, stored_now
    from lox.analysis.lots import Lot
    from lox.analysis.what_if import DEFAULTS, what_if

    lot: Lot[Any] = Lot(sample_bytes, seed)
    with step(output) as progress:
        more: dict[str, Any] = {"parameters": parameters or DEFAULTS, "seconds": seconds or None, "seed": seed}
        more |= {"pack_bytes": pack_size, "progress": progress}
        if view is None or damage is None:
            runs: Lot[Any] = Lot(RUNS_BYTES, seed)
            files = draw_files(
                lot, absolute_paths(paths, output), scan_options(excludes), progress, runs, copies=Copies()
            )
            found = what_if(lot, files, read_files, compression=compression_of(runs, read_files), **more)
        else:
            files, logical = draw_versions(lot, view, progress)
            found = what_if(lot, files, versions_reader(view), logical=logical, compression=stored_now(view), **more)
            code = damage.code
    rows = found.table.to_pylist()
    output.events("what-if", rows)
    output.event("summary", **_summary(found), exit_code=int(code))
    output.line(_head(found))
    if found.fraction < 1 and found.clusters < FEW:
        output.note(f"only {plural(found.clusters, 'cluster')} of files were read: ± says little; draw more of them")
    output.lines(table(HEADINGS, map(_line, rows), right=range(1, len(HEADINGS))))
    return code


def _parse(text: str) -> ChunkerParams:
    parts = text.split("/")
    if len(parts) != 3:
        raise UsageError("not chunk sizes", subject=text, hint="write minimum/average/maximum: 4KiB/64KiB/4MiB")
    try:
        minimum, average, maximum = map(parse_size, parts)
        return ChunkerParams("gear", minimum, average, maximum)
    except (ValueError, ConfigError) as error:
        raise UsageError("not chunk sizes", subject=text, why=str(error)) from error


def _fixed(size: int) -> ChunkerParams:
    try:
        return ChunkerParams("fixed", min(size, 4096), size, max(size, 4096))
    except ConfigError as error:
        raise UsageError("not a chunk size", subject=str(size), why=str(error)) from error


def _summary(found: WhatIf) -> dict[str, object]:
    return {
        "files": found.files,
        "logical": found.logical,
        "sampled": found.sampled,
        "fraction": found.fraction,
        "clusters": found.clusters,
        "copies": found.copies,
        "compression": found.compression.value,
        "compression_low": found.compression.low,
        "compression_high": found.compression.high,
    }


def _head(found: WhatIf) -> str:
    copies = f"{format_size(found.copies)} are copies of large files; " if found.copies else ""
    return (
        f"{plural(found.files, 'file')}, {format_size(found.logical)} logical; "
        f"{copies}{format_size(found.sampled)} were read, "
        f"{format_share(found.fraction, 1.0)} by lot; plain bytes compress to {found.compression.value:.3f}"
    )


def _line(row: dict[str, Any]) -> tuple[str, ...]:
    if row["kind"] == "fixed":
        sizes = f"{format_size(row['average'])} fixed"
    else:
        sizes = "/".join(format_size(row[name]).replace(".00", "") for name in ("minimum", "average", "maximum"))

    def spread(name: str) -> float:
        return float(row[f"{name}_high"] - row[f"{name}_low"]) / 2

    return (
        sizes,
        format_size(row["unique"]),
        format_size(spread("unique")),
        f"{row['logical_per_unique']:.3f}",
        format_count(round(row["chunks"])),
        format_count(round(spread("chunks"))),
        *(format_size(row[name]) for name in ("index_stored", "index_memory", "lists", "stored")),
        format_size(spread("stored")),
        format_count(math.ceil(row["packs"])),
        format_count(row["requests"]),
        format_count(round(row["jumps_per_gib"])),
    )
