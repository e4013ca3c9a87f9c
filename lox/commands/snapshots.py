"""``lox snapshots``."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import click

from lox.contents import ID_SHOWN, Catalogue, tell_unreadable
from lox.escape import path_fields, safe, shown
from lox.noting import annotation_fields, marks_text
from lox.output import output_of, table
from lox.settings import command as command_of
from lox.units import format_count, format_size, format_time, plural, rfc3339, units
from model.exits import ExitCode

if TYPE_CHECKING:
    from repository.annotations import Annotation
    from repository.snapshot import Snapshot


@command_of("snapshots")
@click.pass_context
def command(ctx: click.Context, /) -> ExitCode:
    """List the snapshots.

    The newest comes last. Every command that wants a snapshot takes its id, the beginning of it, or 'latest'.
    """
    catalogue = Catalogue.open(ctx, ["repository.annotations", "repository.snapshot_columns"], ["snapshots/", "notes/"])
    output = output_of(ctx)
    snapshots = catalogue.snapshots()
    annotations = catalogue.annotations()
    states = [annotations.of(snapshot) for snapshot in snapshots]
    noted = list(zip(snapshots, states, strict=True))
    output.events("snapshot", (snapshot_fields(*both) for both in noted))
    headings = ("SNAPSHOT", "TIME", "HOST", "MODE", "FILES", "SIZE", "NEW", "TAGS", "PATHS")
    if snapshots:
        system = units()
        output.lines(table(headings, [_row(*both, system) for both in noted], right=(4, 5, 6)))
    output.note(plural(len(snapshots), "snapshot"))
    return tell_unreadable(output, snapshots.unreadable)


def _row(snapshot: Snapshot, state: Annotation, system: str) -> tuple[str, ...]:
    stats = snapshot.stats
    remarks = ["written by a write-only machine"] if _is_written(snapshot) else []
    if snapshot.problems:
        remarks.append(plural(snapshot.problems, "problem"))
    if state.pin or state.holds or state.comment or state.unreadable:
        remarks += [text for text in (marks_text(state), safe(state.comment)) if text]
    marks = f"  ({'; '.join(remarks)})" if remarks else ""
    return (
        snapshot.id[:ID_SHOWN],
        format_time(snapshot.time),
        _safe(snapshot.host),
        _safe(snapshot.mode),
        format_count(stats.get("files", 0)),
        format_size(stats.get("bytes_total", 0), system),
        format_size(stats.get("bytes_stored", 0), system),
        _tags_text(state.tags),
        _paths_text(snapshot.paths) + marks,
    )


def _is_written(snapshot: Snapshot) -> bool:
    """Whether a machine made it, or what it is a copy of, whose word nobody else takes."""
    return bool(snapshot.writer or snapshot.extra.get("written_by"))


@lru_cache(maxsize=1024)  # thousands of snapshots have them in common
def _paths_text(paths: tuple[bytes, ...]) -> str:
    return ", ".join([shown(path) for path in paths])


@lru_cache(maxsize=1024)
def _tags_text(tags: frozenset[str]) -> str:
    return safe(",".join(sorted(tags)))


_safe = lru_cache(maxsize=1024)(safe)


def snapshot_fields(snapshot: Snapshot, state: Annotation) -> dict[str, object]:
    """A snapshot for JSON."""
    return {
        "id": snapshot.id,
        "time": rfc3339(snapshot.time),
        "host": snapshot.host,
        "hosts": list(snapshot.hosts),
        "user": snapshot.user,
        "mode": snapshot.mode,
        "parent": snapshot.parent,
        "writer": snapshot.writer or None,
        "original": _original_fields(snapshot),
        "paths": [path_fields(path) for path in snapshot.paths],
        "problems": snapshot.problems,
        "stats": dict(snapshot.stats),
        **annotation_fields(state),
    }


def _original_fields(snapshot: Snapshot) -> dict[str, str] | None:
    if snapshot.original is None:
        return None
    return {"repository": snapshot.original[0].hex(), "snapshot": snapshot.original[1]}
