"""``lox diff``."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING

import click

from lox.contents import Catalogue
from lox.escape import path_fields, shown_path
from lox.output import output_of
from lox.settings import command as command_of
from lox.units import format_count

if TYPE_CHECKING:
    from repository.diff import Change

TOGETHER = 2000  # lines printed at once
SIGNS = {"added": "+", "removed": "-", "changed-content": "M", "changed-metadata": "m", "type": "T"}
WORDS = {
    "added": "added",
    "removed": "removed",
    "changed-content": "with other content",
    "changed-metadata": "with other metadata only",
    "type": "of another kind",
}


@command_of("diff")
@click.argument("before", metavar="A")
@click.argument("after", metavar="B")
@click.pass_context
def command(ctx: click.Context, /, before: str, after: str) -> None:
    """Show what changed between two snapshots.

    A and B are ids, beginnings of ids, or 'latest'. Signs: + added, - removed, M content changed, m only metadata
    changed, T became another kind of entry.
    """
    catalogue = Catalogue.open(ctx)
    output = output_of(ctx)
    from repository.diff import ChangeKind, diff

    first, second = catalogue.snapshot(before), catalogue.snapshot(after)
    counts: Counter[ChangeKind] = Counter()
    found = diff(catalogue.manifest(first), catalogue.manifest(second))
    while some := list(islice(found, TOGETHER)):
        counts.update(change.kind for change in some)
        if output.json:
            output.events("change", map(_fields, some))
        else:
            output.lines(f"{SIGNS[change.kind]}  {shown_path(change.path)}" for change in some)
    totals = {kind.value: counts[kind] for kind in ChangeKind}
    output.event("summary", before=first.id, after=second.id, counts=totals, exit_code=0)
    words = [f"{format_count(counts[kind])} {WORDS[kind]}" for kind in ChangeKind if counts[kind]]
    output.note(", ".join(words) or "no difference")


def _fields(change: Change) -> dict[str, object]:
    sizes = {"size_before": change.old_size, "size_after": change.new_size}
    return {"action": change.kind.value, **path_fields(b"/" + change.path), **sizes}
