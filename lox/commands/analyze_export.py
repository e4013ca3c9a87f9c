"""``lox analyze export``."""

from __future__ import annotations

from pathlib import Path

import click

from lox.analyzing import open_view, step
from lox.output import output_of
from lox.settings import command as command_of
from lox.settings import option
from lox.units import format_count, format_size, plural
from model.exits import ExitCode

NAMES = ("snapshots", "entries", "entry_chunks", "chunks", "packs")


@command_of("export")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@option("--table", "names", multiple=True, type=click.Choice(NAMES), help="Only this table; may be repeated.")
@option("--snapshot", "references", multiple=True, metavar="SNAP",
        help="Only the entries of this snapshot; may be repeated.")  # fmt: skip
@option("--hash-paths", is_flag=True, help="Replace paths by keyed hashes that nobody can guess.")
@click.pass_context
def command(
    ctx: click.Context, /, folder: Path, names: tuple[str, ...], references: tuple[str, ...], hash_paths: bool
) -> ExitCode:
    """Write the repository as Parquet files, for DuckDB, pandas and the like.

    The files lie in folders of DIR by table, those of entries by snapshot as well. A second export to the same DIR adds
    what is new, and goes on where an interrupted one stopped; export.json there says what was asked for, and whether
    all of it is there. --hash-paths leaves hosts, owners, tags, times and extensions of up to 8 letters and digits as
    they are, and keeps back comments, targets of links and the wording of problems.
    """
    view, damage = open_view(ctx, ["lox.analysis.export"])
    from lox.analysis.export import export
    from lox.tables import Tables

    output = output_of(ctx)
    chosen = [view.snapshot(reference) for reference in references] if references else None
    with step(output) as progress:
        done = export(Tables(view), folder, names or NAMES, chosen, hash_paths, progress)
    for error in done.damaged:
        damage.note(error)
    output.event(
        "summary", rows=done.rows, written=done.written, kept=done.kept, bytes=done.bytes, damaged=damage.count,
        exit_code=int(damage.code),
    )  # fmt: skip
    if output.quiet < 2:
        output.lines(f"{name:<13}{format_count(count):>12} rows" for name, count in done.rows.items())
        kept = f", {format_count(done.kept)} left as they were" if done.kept else ""
        output.line(f"{plural(done.written, 'file')} written, {format_size(done.bytes)}{kept}")
    return damage.code
