"""What changed between two snapshots: both manifests are walked side by side, parts they share are skipped."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt
import pyarrow as pa

import kernels
from model.entries import I64, Bool, order_key
from repository.entry_table import ENTRY_SCHEMA, ChunkLists, chunks_of, column, paths_of
from repository.manifest_reader import ManifestReader

_NUMBERS = ("mode", "uid", "gid", "mtime", "flags", "rdev")  # ctime, atime, inode: nothing a user changed
_VALUES = ("user", "group", "target", "xattrs")
_EMPTY = ENTRY_SCHEMA.empty_table()


class ChangeKind(StrEnum):
    """How an entry differs; `TYPE` means it became another kind of entry."""

    ADDED = "added"
    REMOVED = "removed"
    CONTENT = "changed-content"
    METADATA = "changed-metadata"
    TYPE = "type"


@dataclass(frozen=True, slots=True)
class Change:
    """One entry that differs; `old_size` and `new_size` are 0 where there is none."""

    path: bytes
    kind: ChangeKind
    old_size: int = 0
    new_size: int = 0


class _Cursor:
    """The rows of a manifest, part by part; knows which part comes next before it reads it."""

    def __init__(self, reader: ManifestReader) -> None:
        self._reader = reader
        self._next = 0
        self._rows: pa.Table | None = None

    @property
    def next_id(self) -> bytes | None:
        """Id of the part that comes next, if the cursor stands before one."""
        if self._rows is not None or self._next == len(self._reader.parts):
            return None
        return self._reader.parts[self._next].id

    def skip(self) -> None:
        """Pass over the part that comes next."""
        self._next += 1

    def rows(self) -> pa.Table | None:
        """Rows not taken yet of the current part; None at the end."""
        if self._rows is None and self._next < len(self._reader.parts):
            self._rows = self._reader.part(self._next)
            self._next += 1
        return self._rows

    def take(self, count: int) -> None:
        """Pass over `count` rows."""
        assert self._rows is not None
        self._rows = self._rows.slice(count) if count < self._rows.num_rows else None


def diff(old: ManifestReader, new: ManifestReader) -> Iterator[Change]:
    """Changes from `old` to `new` in manifest order. Raises Damaged."""
    for a, b in windows(old, new):
        yield from _compare(a, b)


def windows(old: ManifestReader, new: ManifestReader) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Rows of both between the same two paths, window after window; parts that both have are left out. Raises Damaged.

    A path that both have is in both tables of one window; a table may be empty.
    """
    left, right = _Cursor(old), _Cursor(new)
    while True:
        if left.next_id is not None and left.next_id == right.next_id:
            left.skip()
            right.skip()
            continue
        a, b = left.rows(), right.rows()
        if a is None or b is None:
            if a is None and b is None:
                return
            yield a if a is not None else _EMPTY, b if b is not None else _EMPTY
            for cursor, rows in ((left, a), (right, b)):
                if rows is not None:
                    cursor.take(rows.num_rows)
            continue
        taken_a, taken_b = _common(a, b)
        yield a.slice(0, taken_a), b.slice(0, taken_b)
        if taken_a:
            left.take(taken_a)
        if taken_b:
            right.take(taken_b)


def _one_sided(a: pa.Table, b: pa.Table) -> Iterator[Change]:
    for path, size in zip(a["path"].to_pylist(), a["size"].to_pylist(), strict=True):
        yield Change(path, ChangeKind.REMOVED, old_size=size)
    for path, size in zip(b["path"].to_pylist(), b["size"].to_pylist(), strict=True):
        yield Change(path, ChangeKind.ADDED, new_size=size)


def _common(a: pa.Table, b: pa.Table) -> tuple[int, int]:
    """Rows of each up to the lesser of both last paths: beyond it the other side may yet bring the same path."""
    a_last, b_last = a["path"][a.num_rows - 1].as_py(), b["path"][b.num_rows - 1].as_py()
    if order_key(a_last) <= order_key(b_last):
        return a.num_rows, _rows_up_to(b, a_last)
    return _rows_up_to(a, b_last), b.num_rows


def _rows_up_to(table: pa.Table, path: bytes) -> int:
    limit, low, high = order_key(path), 0, table.num_rows
    paths = table["path"]
    while low < high:
        middle = (low + high) // 2
        if order_key(paths[middle].as_py()) <= limit:
            low = middle + 1
        else:
            high = middle
    return low


def matched(a: pa.Table, b: pa.Table) -> I64:
    """For each row of `a` the row of `b` with the same path, -1 if there is none."""
    if a.num_rows and b.num_rows:
        return kernels.join_sorted(paths_of(a["path"]), paths_of(b["path"]))[0].astype(np.int64)
    return np.full(a.num_rows, -1, np.int64)


def _compare(a: pa.Table, b: pa.Table) -> Iterator[Change]:
    match = matched(a, b)
    in_both = np.flatnonzero(match >= 0)
    added = np.ones(b.num_rows, dtype=bool)
    added[match[in_both]] = False
    changes = list(_one_sided(a.take(np.flatnonzero(match < 0)), b.take(np.flatnonzero(added))))
    changes += _changed(a.take(in_both), b.take(match[in_both]))
    yield from sorted(changes, key=lambda change: order_key(change.path))


def _changed(a: pa.Table, b: pa.Table) -> Iterator[Change]:
    """Changes between tables with the same paths row by row."""
    if not a.num_rows:
        return
    kind = column(a, "kind") != column(b, "kind")
    content = content_differs(a, b)
    metadata = np.zeros(a.num_rows, dtype=bool)
    for name in _NUMBERS:
        metadata |= column(a, name) != column(b, name)
    for name in _VALUES:
        metadata |= _values_differ(a[name], b[name])
    for row in np.flatnonzero(kind | content | metadata).tolist():
        how = ChangeKind.TYPE if kind[row] else ChangeKind.CONTENT if content[row] else ChangeKind.METADATA
        yield Change(a["path"][row].as_py(), how, a["size"][row].as_py(), b["size"][row].as_py())


def content_differs(a: pa.Table, b: pa.Table) -> Bool:
    """Rows with other chunks, size, or places of them, in tables with the same paths row by row."""
    one, other = chunks_of(a), chunks_of(b)
    counts, others = np.diff(one.offsets), np.diff(other.offsets)
    differs: Bool = (counts != others) | (one.depth != other.depth)
    differs |= (column(a, "size") != column(b, "size")) & (column(a, "kind") == 0)
    equal = ~differs
    mine, theirs = _chunk_rows(one, equal), _chunk_rows(other, equal)
    row = np.repeat(np.flatnonzero(equal), counts[equal])
    differs[row[(one.ids[mine] != other.ids[theirs]).any(axis=1)]] = True
    return differs | _values_differ(a["extents"], b["extents"])


def _chunk_rows(lists: ChunkLists, rows: Bool) -> I64:
    """Places of the chunks of `rows`."""
    return np.flatnonzero(np.repeat(rows, np.diff(lists.offsets)))


def _values_differ(a: pa.ChunkedArray, b: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    if a.null_count == len(a) and b.null_count == len(b):
        return np.zeros(len(a), dtype=bool)
    if a.combine_chunks().equals(b.combine_chunks()):
        return np.zeros(len(a), dtype=bool)
    return np.array([one != other for one, other in zip(a.to_pylist(), b.to_pylist(), strict=True)], dtype=bool)
