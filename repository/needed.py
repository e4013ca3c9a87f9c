"""Which chunks of a repository are needed, a byte for each row of its index; and what they are called elsewhere.

Memory grows with the index (4 MiB for 4 million chunks), not with the entries that need them. Names in another
repository lie in a file beside the cache, mapped, so that they take no memory that must stay.
"""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from model.entries import I64, U8, U32, Bool
from repository.index_table import IndexTable
from repository.reading_index import ReadingIndex

WINDOW_ROWS = 1 << 18  # chunks handled at once
COPIES_MAX = 64  # copies of one chunk in one table that are found


@dataclass(slots=True, eq=False)
class NeededChunks:
    """m needed chunks, ascending by the row of their segment in the index and their offset in it."""

    ids: U8
    segment: I64
    offset: U32
    length: U32


class Needed:
    """The needed chunks of `index`. Of a chunk that lies in several places every place is needed."""

    def __init__(self, index: ReadingIndex) -> None:
        self._index = index
        self._marks: list[Bool] = []

    def mark(self, ids: U8) -> Bool:
        """``ids[m, 32]`` are needed; which of them the index knows."""
        found = self._index.lookup(ids).found  # may ask packs, and so know more tables after it
        for table, marks in self._tables():
            rows = table.find(ids)
            marks[rows[rows >= 0]] = True
        return found

    def drop(self, stored: Callable[[U8], Bool]) -> None:
        """Chunks for which ``stored(ids)`` is true are not needed any more."""
        for table, marks in self._tables():
            for rows in _windows(np.flatnonzero(marks)):
                marks[rows[stored(table.ids[rows])]] = False

    def missing(self, stored: Callable[[U8], Bool]) -> bool:
        """Whether there is a needed chunk for which ``stored(ids)`` is false."""
        return any(
            not stored(table.ids[rows]).all()
            for table, marks in self._tables()
            for rows in _windows(np.flatnonzero(marks))
        )

    def total(self) -> tuple[int, int]:
        """How many chunks are needed, and their plain bytes; copies of one count once in each table."""
        chunks = size = 0
        for table, marks in self._tables():
            rows = np.flatnonzero(marks)
            chunks, size = chunks + len(rows), size + int(table.length[rows].sum(dtype=np.int64))
        return chunks, size

    def spread(self) -> None:
        """Mark the other copies of needed chunks in the same table: one may open where another does not."""
        for table, marks in self._tables():
            for begin in range(0, len(table) - 1, WINDOW_ROWS):
                rows = np.arange(begin, min(begin + WINDOW_ROWS, len(table) - 1))
                first = table.ids[rows].view(np.uint64)
                same = rows[(first == table.ids[rows + 1].view(np.uint64)).all(axis=1)]
                for _ in range(COPIES_MAX if len(same) else 0):
                    either = marks[same] | marks[same + 1]
                    if (either == (marks[same] & marks[same + 1])).all():
                        break
                    marks[same] |= either
                    marks[same + 1] |= either

    def chunks(self, segments: Bool) -> Iterator[NeededChunks]:
        """The needed chunks in these segments (by row of the index), some at a time, in the order they lie in."""
        base = 0
        for table, marks in self._tables():
            end = base + len(table.segments)
            chosen = np.flatnonzero(segments[base:end])
            counts = np.bincount(table.segment[np.flatnonzero(marks)], minlength=end - base)[chosen]
            for some in _groups(chosen, counts):
                yield self._of(table, marks, some, base)
            base = end

    def _of(self, table: IndexTable, marks: Bool, segments: I64, base: int) -> NeededChunks:
        inside = np.zeros(len(table.segments), dtype=bool)
        inside[segments] = True
        rows = np.flatnonzero(marks)
        rows = rows[inside[table.segment[rows]]]
        rows = rows[np.lexsort((table.offset[rows], table.segment[rows]))]
        place = table.segment[rows].astype(np.int64) + base
        return NeededChunks(table.ids[rows], place, table.offset[rows], table.length[rows])

    def _tables(self) -> Iterator[tuple[IndexTable, Bool]]:
        tables = self._index.known.tables
        self._marks += [np.zeros(len(table), dtype=bool) for table in tables[len(self._marks) :]]
        yield from zip(tables, self._marks, strict=True)


class Renames:
    """What the chunks of one repository, known to `index`, are called in another. For one thread."""

    def __init__(self, index: ReadingIndex, folder: Path | None) -> None:
        self._index = index
        self._folder = folder
        self._columns: list[tuple[Bool, U8]] = []  # of each table: which names are known, and they

    def add(self, old: U8, new: U8) -> None:
        """``old[m, 32]`` are called ``new[m, 32]``."""
        for table, known, names in self._tables():
            rows = table.find(old)
            names[rows[rows >= 0]] = new[rows >= 0]
            known[rows[rows >= 0]] = True

    def of(self, old: U8) -> tuple[U8, Bool]:
        """What ``old[m, 32]`` are called, and for which of them that is known."""
        new, found = np.zeros((len(old), 32), np.uint8), np.zeros(len(old), dtype=bool)
        for table, known, names in self._tables():
            rows = table.find(old)
            here = np.flatnonzero(rows >= 0)
            here = here[known[rows[here]]]
            new[here], found[here] = names[rows[here]], True
        return new, found

    def _tables(self) -> Iterator[tuple[IndexTable, Bool, U8]]:
        tables = self._index.known.tables
        for table in tables[len(self._columns) :]:
            self._columns.append((np.zeros(len(table), dtype=bool), _mapped(len(table), self._folder)))
        for table, (known, names) in zip(tables, self._columns, strict=True):
            yield table, known, names


def _mapped(rows: int, folder: Path | None) -> U8:
    """Room for ids in a file that is gone when nobody uses it any more."""
    if folder is not None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        file.truncate(max(1, rows) * 32)
        room = mmap.mmap(file.fileno(), 0)
    return np.frombuffer(room, np.uint8)[: rows * 32].reshape(rows, 32)


def _windows(rows: I64) -> Iterator[I64]:
    for begin in range(0, len(rows), WINDOW_ROWS):
        yield rows[begin : begin + WINDOW_ROWS]


def _groups(segments: I64, counts: I64) -> Iterator[I64]:
    """`segments` that hold something, as many at a time as have `WINDOW_ROWS` chunks together, at least one."""
    segments, counts = segments[counts > 0], counts[counts > 0]
    ends = np.cumsum(counts)
    begin = 0
    while begin < len(segments):
        before = int(ends[begin - 1]) if begin else 0
        end = max(begin + 1, int(np.searchsorted(ends, before + WINDOW_ROWS, side="right")))
        yield segments[begin:end]
        begin = end
