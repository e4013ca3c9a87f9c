"""``lox analyze dedup``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from lox.analyzing import open_view, step
from lox.escape import safe
from lox.output import Output, output_of, table
from lox.settings import command as command_of
from lox.settings import option
from lox.units import format_count, format_share, format_size
from model.exits import ExitCode

if TYPE_CHECKING:
    import pyarrow as pa

HEADINGS = ("FILES", "LOGICAL", "SNAPSHOTS", "HOSTS", "LINKS", "WITHIN", "FILES", "UNIQUE", "STORED", "")


@command_of("dedup")
@option("--top", type=click.IntRange(1), metavar="N", default=15, show_default=True, help="Extensions that are shown.")
@click.pass_context
def command(ctx: click.Context, /, top: int) -> ExitCode:
    """Show where deduplication comes from.

    Every logical byte of all snapshots is counted once, for the first that holds of: an older snapshot of the host has
    it, another host has it, it is a further name of a hard-linked file, it repeats within its file, another file of the
    snapshot has it; else it is unique and takes stored bytes. The rows add up to all logical bytes, and so do the
    columns of the tables by extension and size. Of each two hosts it is shown how many unique bytes both need.
    """
    view, damage = open_view(ctx, ["lox.analysis.dedup"])
    from lox.analysis.dedup import dedup

    output = output_of(ctx)
    with step(output) as progress:
        found = dedup(view, progress)
    reasons = found.reasons.to_pylist()
    logical, unique = sum(row["logical"] for row in reasons), reasons[-1]["logical"]
    output.events("reason", reasons)
    lines = [
        (format_size(row["logical"]), format_share(row["logical"], logical), _size(row["stored"]), row["reason"])
        for row in reasons
    ]
    lines.append((format_size(logical), "100 %", _size(reasons[-1]["stored"]), "all snapshots together"))
    output.lines(table(("LOGICAL", "SHARE", "STORED", ""), lines, right=range(3)))
    _show_groups(output, "extension", found.extensions, top)
    _show_groups(output, "size", found.sizes, 100)
    _show_hosts(output, found.hosts)
    output.event(
        "summary",
        logical=logical,
        unique=unique,
        stored=reasons[-1]["stored"],
        logical_per_unique=logical / unique if unique else None,
        exit_code=int(damage.code),
    )
    return damage.code


def _size(size: int) -> str:
    return format_size(size) if size else ""


def _show_groups(output: Output, kind: str, groups: pa.Table, top: int) -> None:
    rows = groups.to_pylist()
    output.events(kind, (dict(row) for row in rows))
    shown = rows[:top]
    if rest := rows[top:]:
        sums = {name: sum(row[name] for row in rest) for name in groups.column_names if name != "group"}
        shown.append({"group": f"({len(rest):,} others)", **sums})
    output.line()
    output.lines(table(HEADINGS, [_line(row) for row in shown], right=range(len(HEADINGS) - 1)))


def _line(row: dict[str, Any]) -> tuple[str, ...]:
    names = ("logical", "between_snapshots", "between_hosts", "hard_links", "within_file", "between_files", "unique")
    return format_count(row["files"]), *(_size(row[name]) for name in (*names, "stored")), row["group"]


def _show_hosts(output: Output, hosts: pa.Table) -> None:
    rows = hosts.to_pylist()
    output.events("sharing", rows)
    names = list(dict.fromkeys(row["host"] for row in rows))
    if len(names) < 2:
        return
    unique = {(row["host"], row["other"]): row["unique"] for row in rows}
    lines = [(safe(one), *(_size(unique[one, other]) for other in names)) for one in names]
    output.line()
    output.line("unique bytes that both hosts need; with itself: that the host needs in all")
    output.lines(table(("HOST", *map(safe, names)), lines, right=range(1, len(names) + 1)))
