"""``lox find``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import click

from lox.contents import ID_SHOWN, Catalogue, tell_unreadable
from lox.output import Output, output_of, table
from lox.settings import command as command_of
from lox.settings import option
from lox.types import BytesType
from lox.units import format_size, format_time, plural
from model.entries import Kind, order_key
from model.exits import ExitCode

if TYPE_CHECKING:
    from repository.query import Entry
    from repository.snapshot import Snapshot


@dataclass(slots=True)
class Version:
    """One state of one path, and the snapshots that hold it, oldest first."""

    entry: Entry
    snapshots: list[Snapshot] = field(default_factory=list)


@command_of("find")
@click.argument("globs", metavar="GLOB...", nargs=-1, required=True, type=BytesType())
@option("--snapshot", "references", multiple=True, metavar="SNAP", help="Look only there; may be repeated.")
@option("--newest", is_flag=True, help="Show only the newest version of each path.")
@click.pass_context
def command(ctx: click.Context, /, globs: tuple[bytes, ...], references: tuple[str, ...], newest: bool) -> ExitCode:
    """Find files by name in all snapshots.

    Every state of a file is one line, with the snapshots that hold it. A GLOB without a slash is compared with names
    (*.log), one with a slash with whole paths (/etc/*.conf); ** goes through folders. Quote it from the shell.
    """
    catalogue = Catalogue.open(ctx)
    output = output_of(ctx)
    everything = catalogue.snapshots()
    chosen = {found.id: found for found in map(catalogue.snapshot, references)}
    snapshots = [one for one in everything if one.id in chosen] if references else list(everything)
    versions = _versions(catalogue, snapshots, globs)
    if newest:
        versions = list({version.entry.path: version for version in versions}.values())
    _show(output, sorted(versions, key=lambda version: order_key(version.entry.path)), len(snapshots))
    return tell_unreadable(output, [] if references else everything.unreadable)


def _versions(catalogue: Catalogue, snapshots: list[Snapshot], globs: tuple[bytes, ...]) -> list[Version]:
    """All versions that match, oldest first: snapshots are searched in order of time."""
    from repository.query import find

    versions: dict[tuple[bytes, int, int, int], Version] = {}
    readers = ((snapshot, catalogue.manifest(snapshot)) for snapshot in snapshots)
    for snapshot, entry in find(readers, globs):
        key = (entry.path, entry.kind, entry.size, entry.mtime)
        versions.setdefault(key, Version(entry)).snapshots.append(snapshot)
    return list(versions.values())


def _show(output: Output, versions: list[Version], searched: int) -> None:
    from lox.rows import entry_fields

    for version in versions if output.json else ():
        output.event("match", **entry_fields(version.entry), snapshots=[one.id for one in version.snapshots])
    if versions:
        output.lines(table(("MODIFIED", "SIZE", "SNAPSHOTS", "PATH"), [_row(one) for one in versions], right=[1]))
    output.note(f"{plural(len(versions), 'match', 'matches')} in {plural(searched, 'snapshot')}")


def _row(version: Version) -> tuple[str, ...]:
    from lox.rows import entry_path

    entry, snapshots = version.entry, version.snapshots
    ids = snapshots[-1].id[:ID_SHOWN]
    if len(snapshots) > 1:
        ids = f"{snapshots[0].id[:ID_SHOWN]}..{ids} ({len(snapshots)})"
    size = "-" if entry.kind == Kind.DIRECTORY else format_size(entry.size)
    return format_time(entry.mtime), size, ids, entry_path(entry)
