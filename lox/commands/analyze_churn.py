"""``lox analyze churn``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from lox.analyzing import open_view, step
from lox.escape import path_fields, shown, shown_path
from lox.output import output_of, table
from lox.settings import command as command_of
from lox.settings import option
from lox.types import PercentType
from lox.units import format_count, format_size, plural
from model.exits import ExitCode

if TYPE_CHECKING:
    from lox.analysis.churn import HotSpot

HEADINGS = ("LOGICAL ADDED", "LOGICAL REMOVED", "UNIQUE ADDED", "STORED ADDED", "NEW", "GONE", "CHANGED", "OFTEN", "")


@command_of("churn")
@option("--share", type=PercentType(), metavar="PERCENT", default="5%", show_default=True,
        help="A folder with that much of all churn is a hot spot.")  # fmt: skip
@click.pass_context
def command(ctx: click.Context, /, share: float) -> ExitCode:
    """Show in which folders content comes and goes.

    Compares each snapshot with the one before it of the same host and paths. LOGICAL are bytes of file content that a
    file did not have before, or has no more; UNIQUE those added that no older snapshot held anywhere; STORED what they
    take in the store. A folder has what is below it, unless that is a hot spot itself: the rows add up. OFTEN says in
    how many comparisons something changed. Folders whose content is soon gone again, or that are named like caches,
    are suggested as excludes: look before you leave something out.
    """
    view, damage = open_view(ctx, ["lox.analysis.churn"])
    from lox.analysis.churn import churn, hot_spots

    output = output_of(ctx)
    with step(output) as progress:
        found = churn(view, progress)
    spots = hot_spots(found, share)
    output.events("hot-spot", (_fields(spot) for spot in spots))
    suggested = [spot for spot in spots if spot.exclude is not None]
    output.event(
        "summary",
        comparisons=found.comparisons,
        folders=found.folders.num_rows,
        suggested_excludes=len(suggested),
        exit_code=int(damage.code),
    )
    if not found.comparisons:
        output.note("no two snapshots of the same host and paths: nothing to compare")
        return damage.code
    lines = [_line(spot, found.comparisons) for spot in spots]
    output.lines(table(HEADINGS, lines, right=range(len(HEADINGS) - 1)))
    output.line(f"{plural(found.comparisons, 'comparison')}, changes in {plural(found.folders.num_rows, 'folder')}")
    for spot in suggested:
        assert spot.exclude is not None
        output.line(f"worth a thought: --exclude '{shown(spot.exclude)}'  ({spot.reason})")
    return damage.code


def _fields(spot: HotSpot) -> dict[str, object]:
    exclude = {} if spot.exclude is None else path_fields(spot.exclude, "suggested_exclude")
    return {**path_fields(b"/" + spot.folder, "folder"), **spot.counts, **exclude, "reason": spot.reason}


def _line(spot: HotSpot, comparisons: int) -> tuple[str, ...]:
    counts = spot.counts
    sizes = [format_size(counts[name]) for name in ("logical_added", "logical_removed", "unique_added", "stored_added")]
    files = [format_count(counts[name]) for name in ("files_added", "files_removed", "files_changed")]
    often = f"{counts['comparisons']}/{comparisons}"
    return *sizes, *files, often, shown_path(spot.folder) if spot.folder else "all other folders"
