"""``lox stats``."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from lox.contents import Catalogue, tell_unreadable
from lox.output import output_of
from lox.settings import command as command_of
from lox.units import format_count, format_share, format_size, plural
from model.exits import ExitCode

if TYPE_CHECKING:
    from repository.query import Stats


@command_of("stats")
@click.pass_context
def command(ctx: click.Context, /) -> ExitCode:
    """Show what the repository holds and saves.

    'protected' is what all snapshots together would take uncompressed, 'unique' what is left of it after
    deduplication, 'stored' what lies in the store after compression.
    """
    catalogue = Catalogue.open(ctx)
    output = output_of(ctx)
    from repository.query import stats

    snapshots = catalogue.snapshots()
    readers = [catalogue.manifest(snapshot) for snapshot in snapshots]
    found = stats(catalogue.repository, catalogue.index, readers, len(snapshots.unreadable))
    output.event("stats", **asdict(found))
    output.lines(_lines(found))
    return tell_unreadable(output, snapshots.unreadable)


def _lines(found: Stats) -> list[str]:
    rows = [
        ("snapshots", format_count(found.snapshots), plural(found.entries, "entry", "entries")),
        ("protected", format_size(found.logical), "in all snapshots together"),
        ("unique", format_size(found.unique), _ratio(found.logical, found.unique, "deduplication")),
        ("manifests", format_size(found.metadata), "names and metadata, before compression"),
        ("stored", format_size(found.stored), _ratio(found.unique + found.metadata, found.stored, "compression")),
        ("", "", f"{format_share(found.stored, found.logical)} of protected"),
        ("packs", format_count(found.packs), plural(found.chunks, "chunk")),
        ("objects", format_count(found.objects), "in the store"),
    ]
    width = max(len(value) for _, value, _ in rows)
    return [f"{name:<11}{value:>{width}}  {about}".rstrip() for name, value, about in rows]


def _ratio(before: int, after: int, by: str) -> str:
    return f"{before / after:,.1f} times smaller by {by}" if after else ""
