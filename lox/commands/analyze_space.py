"""``lox analyze space``."""

from __future__ import annotations

from typing import Any

import click

from lox.analyzing import open_view, step
from lox.output import output_of, table
from lox.settings import command as command_of
from lox.settings import option
from lox.units import format_count, format_size, plural
from model.exits import ExitCode

WAYS = ("path", "owner", "ext", "age", "host", "tag")
HEADINGS = ("FILES", "LOGICAL", "UNIQUE", "STORED", "= EXCLUSIVE", "+ SHARED", "FREED IF DELETED", "")
SUMMED = ("logical", "stored", "stored_exclusive", "stored_shared")
SIZES = ("logical", "unique", "stored", "stored_exclusive", "stored_shared", "stored_freed")


@command_of("space")
@option("--by", type=click.Choice(WAYS), default="path", show_default=True, help="How files are grouped.")
@option("--depth", type=click.IntRange(0, 255), default=2, show_default=True,
        help="With --by path: names below / that count.")  # fmt: skip
@option("--top", type=click.IntRange(1), metavar="N", default=30, show_default=True,
        help="Show the largest N rows, and all others as one.")  # fmt: skip
@click.pass_context
def command(ctx: click.Context, /, by: str, depth: int, top: int) -> ExitCode:
    """Show where space goes.

    FILES and LOGICAL count files and their content in all snapshots together, UNIQUE is that content after
    deduplication. The other columns are bytes in the store: STORED is EXCLUSIVE, what no other row needs, and SHARED, a
    row's part of what several need; FREED IF DELETED is what 'lox prune' gives back if all files of the row are deleted
    from all snapshots (and from the trash). The rows of STORED, with what is no content, add up to the size of the
    store. A snapshot with several tags is in several rows. How chunks share compressed segments is estimated by their
    length.
    """
    view, damage = open_view(ctx, ["lox.analysis.space"])
    from lox.analysis.space import OVERHEAD, space, total_stored

    output = output_of(ctx)
    with step(output) as progress:
        found = space(view, by, depth, on_damage=damage.note, progress=progress)
    rows = found.to_pylist()
    files = [row for row in rows if row["kind"] != OVERHEAD]
    shown = [*files[:top], *_others(files[top:])]
    overheads = [row for row in rows if row["kind"] == OVERHEAD and row["stored"]]
    output.events("space", (_fields(row) for row in [*shown, *overheads]))
    total = total_stored(found)
    output.event("summary", by=by, rows=len(files), stored=total, damaged=damage.count, exit_code=int(damage.code))
    lines = [_line(row) for row in [*shown, *overheads]]
    lines.append(("", "", "", format_size(total), "", "", "", "all objects in the store"))
    output.lines(table(HEADINGS, lines, right=range(len(HEADINGS) - 1)))
    return damage.code


def _others(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Many rows as one; what deleting them all would free is not the sum of what deleting each would."""
    if not rows:
        return []
    sums = {key: sum(row[key] for row in rows) for key in ("files", *SUMMED)}
    return [{"name": f"({plural(len(rows), 'other')})", "kind": "others", **sums, "unique": None, "stored_freed": None}]


def _fields(row: dict[str, Any]) -> dict[str, object]:
    return {"what" if key == "kind" else key: value for key, value in row.items()}


def _line(row: dict[str, Any]) -> tuple[str, ...]:
    sizes = ["" if row[key] is None else format_size(row[key]) for key in SIZES]
    return ("" if row["files"] is None else format_count(row["files"]), *sizes, row["name"])
