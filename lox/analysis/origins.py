"""Where content was already: for some chunks, who else holds them, with a name for each answer.

A chunk gets the first answer that fits: the same path before, an older snapshot of this host, one of another host,
another file of the same snapshot. What none of these explains was not known when the snapshot was made, as far as
the snapshots that are left can tell.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

import kernels
from lox.analysis.history import rows_of_chunks
from model.entries import I32, I64, U8
from repository.index_table import sort_ids
from repository.manifest_reader import ManifestReader
from repository.snapshot import Snapshot
from repository.tables.view import View

SAME, OLDER, HOST, BESIDE, NEW = 0, 1, 2, 3, 4
ORIGINS = ("same path in the parent", "older snapshots of this host", "snapshots of other hosts",
           "other files of this snapshot", "nothing known: new")  # fmt: skip
NAMED = 3  # holders that are named for each origin


@dataclass(frozen=True, slots=True)
class Holder:
    """An entry that holds `bytes` of the content as well."""

    snapshot: str
    host: str
    path: bytes
    bytes: int


@dataclass(slots=True)
class Origin:
    """How many bytes (each chunk once) were already there, and the entries that hold most of them."""

    what: str
    bytes: int
    chunks: int
    holders: list[Holder]


class Wanted:
    """Different chunks in the order of their ids, with the origin and the holder found for each."""

    def __init__(self, ids: U8, length: I64) -> None:
        order = sort_ids(ids)
        ids, length = ids[order], length[order]
        first = np.ones(len(ids), dtype=bool)
        first[1:] = (ids[1:] != ids[:-1]).any(axis=1)
        self.ids = np.ascontiguousarray(ids[first])
        self.length = length[first]
        self.origin = np.full(len(self.ids), NEW, np.uint8)
        self._holder = np.full(len(self.ids), -1, np.int64)
        self._names: list[tuple[Snapshot, bytes]] = []

    def find(self, ids: U8) -> I64:
        """Number of each of these ids here, -1 for others."""
        return kernels.find_ids(self.ids, ids) if len(self.ids) else np.full(len(ids), -1, np.int64)

    def held(self, snapshot: Snapshot, table: pa.Table, row: I32, ids: U8, origin: int) -> None:
        """Entries of `snapshot`: chunk j, of ``ids[m, 32]``, belongs to `row[j]` of `table`."""
        at = self.find(ids)
        hit = np.flatnonzero(at >= 0)
        hit = hit[self.origin[at[hit]] > origin]
        distinct, where = np.unique(at[hit], return_index=True)
        rows, which = np.unique(row[hit[where]], return_inverse=True)
        self.origin[distinct] = origin
        self._holder[distinct] = len(self._names) + which
        paths = table["path"].take(pa.array(rows)).to_pylist()
        self._names += [(snapshot, path) for path in paths]

    def origins(self) -> list[Origin]:
        """The answers, those without bytes left out."""
        found = []
        for number, what in enumerate(ORIGINS):
            mine = np.flatnonzero(self.origin == number)
            if len(mine):
                size = int(self.length[mine].sum())
                found.append(Origin(what, size, len(mine), self._holders(mine)))
        return found

    def _holders(self, chunks: I64) -> list[Holder]:
        named = chunks[self._holder[chunks] >= 0]
        sizes = np.bincount(self._holder[named], weights=self.length[named], minlength=1)
        best = np.argsort(-sizes, kind="stable")[:NAMED]
        return [
            Holder(snapshot.id, snapshot.host, path, int(sizes[number]))
            for number in best.tolist()
            if sizes[number]
            for snapshot, path in (self._names[number],)
        ]


def search(
    view: View,
    snapshot: Snapshot,
    reader: ManifestReader,
    own: bytes,
    wanted: Wanted,
    parent: Snapshot | None,
    snapshots: Iterable[Snapshot],
) -> None:
    """Finds the origins of what `snapshot` holds at `own` and below, in it and in older ones. Reads each part once.

    Raises Damaged.
    """
    if parent is not None:
        before = view.manifest(parent)
        for table in before.subtree(own):
            _look(wanted, parent, before, table, SAME)
    seen: set[bytes] = set()
    for other in sorted(snapshots, key=lambda one: (one.host != snapshot.host, -one.time)):
        if other.time >= snapshot.time or other.id == snapshot.id:
            continue
        if (wanted.origin <= (OLDER if other.host == snapshot.host else HOST)).all():
            break  # nobody further on has a better answer
        older = view.manifest(other)
        for number, part in enumerate(older.parts):
            if part.id not in seen:
                seen.add(part.id)
                _look(wanted, other, older, older.part(number), OLDER if other.host == snapshot.host else HOST)
    for table in reader:
        outside = np.array([not below(path, own) for path in table["path"].to_pylist()], dtype=bool)
        if outside.any():
            _look(wanted, snapshot, reader, table.filter(pa.array(outside)), BESIDE)


def _look(wanted: Wanted, snapshot: Snapshot, reader: ManifestReader, table: pa.Table, origin: int) -> None:
    lists = reader.content(table)
    if len(lists.ids):
        wanted.held(snapshot, table, rows_of_chunks(lists), lists.ids, origin)


def below(path: bytes, folder: bytes) -> bool:
    """Whether `path` is `folder` or lies below it."""
    return not folder or path == folder or path.startswith(folder + b"/")
