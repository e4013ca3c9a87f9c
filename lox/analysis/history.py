"""When each chunk came, and what it takes: what churn, dedup and forecast count from.

Three kinds of bytes are told apart everywhere: *logical* bytes are content as users see it, *unique* bytes what is
left of it after deduplication, *stored* bytes what that takes in the store. Chunks share compressed segments, so stored
bytes of single chunks are shared out by their length: they add up to what the segments take.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from model.entries import I32, I64, U8, Bool
from model.errors import NotFound
from repository.entry_table import ChunkLists, chunks_of
from repository.snapshot import Snapshot
from repository.tables.parts import Part, Parts
from repository.tables.view import View

F64 = npt.NDArray[np.float64]
Source = tuple[str, tuple[bytes, ...], str]
"""Host, paths, and the write-only machine that made it: snapshots of one source follow each other."""


@dataclass(slots=True, eq=False)
class Placed:
    """Of m chunks: number in the index (-1: in none), length in bytes, and stored bytes."""

    row: I64
    length: I64
    stored: F64

    def take(self, which: I64 | Bool) -> Placed:
        """Some of them."""
        return Placed(self.row[which], self.length[which], self.stored[which])


class Places:
    """Where chunks are in the index of a view, and what they take in the store."""

    def __init__(self, view: View) -> None:
        self._view = view
        segments = view.index.segments
        self._share = segments.stored / np.maximum(segments.plain, 1)

    @property
    def rows(self) -> int:
        """Chunks in the index."""
        return int(self._view.bases[-1])

    def of(self, ids: U8) -> Placed:
        """What the index says of ``ids[m, 32]``."""
        number, row = self._view.index.find(ids)
        where = self._view.index.locations(number, row)
        share = self._share[where.segment] if len(self._share) else np.zeros(len(ids))
        stored = np.where(where.found, where.length * share, 0.0)
        rows = np.where(where.found, self._view.bases[number] + row, -1)
        return Placed(rows, where.length.astype(np.int64), stored)

    def weights(self) -> tuple[I64, F64]:
        """Of every chunk of the index its length and its stored bytes."""
        bases = np.cumsum([0, *(len(table.segments) for table in self._view.index.tables)]).tolist()
        tables = list(zip(self._view.index.tables, bases, strict=False))
        length = np.concatenate([np.zeros(0, np.int64), *(table.length.astype(np.int64) for table, _ in tables)])
        segment = np.concatenate([np.zeros(0, np.int64), *(table.segment + np.int64(base) for table, base in tables)])
        return length, length * self._share[segment] if len(segment) else np.zeros(0)


def source_of(snapshot: Snapshot) -> Source:
    """What a snapshot is a backup of."""
    return snapshot.host, tuple(sorted(snapshot.paths)), snapshot.writer


def by_time(view: View) -> list[Snapshot]:
    """The snapshots, oldest first. Raises NotFound if there is none."""
    snapshots = sorted(view.snapshots, key=lambda one: (one.time, one.id))
    if not snapshots:
        raise NotFound("there is no snapshot yet", subject=view.repository.store.url, hint="lox backup makes one")
    return snapshots


def rows_of_chunks(lists: ChunkLists) -> I32:
    """For each chunk the row it belongs to."""
    return np.repeat(np.arange(len(lists), dtype=np.int32), np.diff(lists.offsets))


def ids_of(part: Part) -> U8:
    """All chunks that a part needs: of content, with its long lists, and its own."""
    lists = chunks_of(part.rows)
    deep = np.repeat(lists.depth == 1, np.diff(lists.offsets))
    return np.concatenate([part.lists.ids, lists.ids[deep], np.frombuffer(part.ref.id, np.uint8).reshape(1, 32)])


class Spans:
    """For each chunk of the index the first and the last of some snapshots that need it, by number; -1: none does.

    Takes 8 bytes for each chunk.
    """

    def __init__(self, chunks: int) -> None:
        self.first: I32 = np.full(chunks, -1, np.int32)
        self.last: I32 = np.full(chunks, -1, np.int32)

    def add(self, rows: I64, first: int, last: int) -> None:
        """Snapshots `first` to `last` need the chunks `rows`."""
        rows = rows[rows >= 0]
        known = self.first[rows]
        self.first[rows] = np.where(known < 0, first, np.minimum(known, first))
        self.last[rows] = np.maximum(self.last[rows], last)


def spans_of(places: Places, parts: Parts) -> Spans:
    """The spans of all chunks that `parts` need. Raises Damaged."""
    spans = Spans(places.rows)
    for part in parts:
        spans.add(places.of(ids_of(part)).row, int(part.snapshots[0]), int(part.snapshots[-1]))
    for number, snapshot in enumerate(parts.snapshots):
        roots = np.frombuffer(b"".join(snapshot.root.chunks), np.uint8).reshape(-1, 32)
        spans.add(places.of(roots).row, number, number)
    return spans


def first_places(values: I64) -> Bool:
    """Which of `values` are the first of their kind."""
    first = np.zeros(len(values), dtype=bool)
    first[np.unique(values, return_index=True)[1]] = True
    return first
