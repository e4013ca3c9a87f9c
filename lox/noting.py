"""What the commands that write notes on snapshots share: tag, pin, unpin, comment."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import click

from lox.contents import ID_SHOWN
from lox.escape import safe
from lox.opening import open_repository
from lox.output import output_of
from lox.units import plural, rfc3339

if TYPE_CHECKING:
    from repository.annotations import Annotation, Changes


def note(ctx: click.Context, references: Sequence[str], make: Callable[[], Changes]) -> None:
    """Write a note of the changes that `make` gives on each snapshot that is meant, and tell what holds now.

    All snapshots are found before the first note is written. Raises NotFound, StoreError.
    """
    repository = open_repository(ctx, ["repository.annotations"])
    from repository.annotations import annotate, load_annotations
    from repository.cache_dir import default_cache_dir
    from repository.snapshot import choose, load_all

    output = output_of(ctx)
    snapshots = load_all(repository, default_cache_dir())
    meant = {found.id: found for found in (choose(snapshots, one, repository.store.url) for one in references)}
    changes = make()
    for snapshot in meant.values():
        annotate(repository, snapshot.id, changes, time.time_ns())
        state = load_annotations(repository, snapshot.id).of(snapshot)
        output.event("snapshot", id=snapshot.id, **annotation_fields(state))
        if not output.quiet:
            output.line(f"{snapshot.id[:ID_SHOWN]}  {annotation_text(state) or 'no tags, no pin, no comment'}")
    output.event("summary", snapshots=len(meant), exit_code=0)
    output.note(plural(len(meant), "snapshot"))


def annotation_fields(state: Annotation) -> dict[str, object]:
    """For JSON. ``pinned_until`` is null for a pin without end and for none."""
    until = state.pin.until if state.pin is not None else None
    return {
        "tags": sorted(state.tags),
        "pinned": state.pin is not None,
        "pinned_until": None if until is None else rfc3339(until),
        "holds": sorted(state.holds),
        "comment": state.comment,
        "unreadable_notes": list(state.unreadable),
    }


def marks_text(state: Annotation) -> str:
    """Pins, holds and trouble with notes, in words."""
    marks = []
    if state.pin is not None:
        marks.append("pinned" if state.pin.until is None else f"pinned until {day(state.pin.until)}")
    marks += [f"held: {name}" for name in sorted(state.holds)]
    marks += ["notes unreadable"] if state.unreadable else []
    return safe(", ".join(marks))


def annotation_text(state: Annotation) -> str:
    """One line of all of it."""
    tags = f"tags {safe(','.join(sorted(state.tags)))}" if state.tags else ""
    comment = f'"{safe(state.comment)}"' if state.comment else ""
    return "; ".join([part for part in (tags, marks_text(state), comment) if part])


def day(time_ns: int) -> str:
    """``2027-01-31``, with the time of day if it is not midnight."""
    from lox.units import format_time

    return format_time(time_ns).removesuffix(" 00:00:00")
