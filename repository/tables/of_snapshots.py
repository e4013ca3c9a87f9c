"""The table of snapshots."""

from __future__ import annotations

import time

import pyarrow as pa

from repository.annotations import Annotation
from repository.snapshot import Snapshot
from repository.tables.schemas import SNAPSHOTS
from repository.tables.view import View


def snapshots_table(view: View) -> pa.Table:
    """A row for each snapshot that can be read, oldest first, in `SNAPSHOTS`."""
    now = time.time_ns()
    return pa.Table.from_pylist(
        [_row(snapshot, view.annotations.of(snapshot), now) for snapshot in view.snapshots], SNAPSHOTS
    )


def _row(snapshot: Snapshot, state: Annotation, now: int) -> dict[str, object]:
    return {
        "snapshot": snapshot.id,
        "time": snapshot.time,
        "started": snapshot.started,
        "finished": snapshot.finished,
        "host": snapshot.host,
        "user": snapshot.user,
        "mode": snapshot.mode,
        "parent": snapshot.parent,
        "paths": snapshot.paths,
        "hosts": snapshot.hosts,
        "tags": sorted(state.tags),
        "comment": state.comment,
        "pinned": bool(state.protections(now)),
        "writer": snapshot.writer or None,
        "original": None if snapshot.original is None else snapshot.original[1],
        "program": snapshot.program,
        "problems": snapshot.problems,
        "entries": snapshot.root.rows,
        "parts": snapshot.root.parts,
        "manifest_bytes": snapshot.root.bytes,
        "files": snapshot.stats.get("files"),
        "length_bytes": snapshot.stats.get("bytes_total"),
        "new_bytes": snapshot.stats.get("bytes_new"),
        "stored_bytes": snapshot.stats.get("bytes_stored"),
    }
