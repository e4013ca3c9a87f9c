"""From rows to listings: cut so that the content of each fits a body, large files in pieces."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from model.batches import BODY_MAX, Listing, Piece
from model.entries import I32, I64, U32, Bool, Fresh, Kind, Paths, Stats, kinds_of
from sources.files import columns
from sources.files.extents import data_extents, may_be_sparse
from sources.files.opening import open_regular
from sources.files.trouble import describe


@dataclass(slots=True, eq=False)
class Batch:
    """Some neighbouring rows of the scan, at most `ROWS_MAX`, compared with the parent."""

    paths: Paths
    stat: Stats
    device: U32
    borders: I32
    carried: pa.Table | None
    carried_at: I32
    known: Bool  # the parent has an entry of this path


class Lister:
    """Makes listings; counts them, the large files and the hard links that were met.

    Files are gathered up to `batch_bytes`; one that is longer, but not as long as to be cut in pieces, is alone.
    """

    def __init__(self, root_fd: int, batch_bytes: int = BODY_MAX) -> None:
        self._root_fd = root_fd
        self._batch_bytes = batch_bytes
        self._listings = 0
        self._large_files = 0
        self._links = LinkGroups()

    def listings(self, batch: Batch) -> Iterator[Listing]:
        """The rows of `batch` in order. Only large files are opened."""
        rows = len(batch.stat)
        is_fresh = np.ones(rows, dtype=np.bool_)
        is_fresh[batch.carried_at] = False
        at = np.flatnonzero(is_fresh).astype(np.int32)
        fresh = self._fresh(batch, at)
        cost = read_cost(fresh)
        large = np.flatnonzero(cost > BODY_MAX)
        cost[large] = 0
        ends = np.cumsum(cost)
        begin = first = 0  # of what is not listed yet: row, and row among the fresh ones
        while begin < rows:
            before = int(ends[first - 1]) if first else 0
            last = int(np.searchsorted(ends, before + self._batch_bytes, side="right"))  # the first that has no room
            last = min(max(last, first + 1), len(at))
            next_large = int(large[large >= first][0]) if len(large) and large[-1] >= first else len(at)
            last = min(last, next_large)
            end = int(at[last]) if last < len(at) else rows
            if end > begin:
                yield self._listing(batch, begin, end, _part(fresh, first, last), at[first:last])
            begin, first = end, last
            if first == next_large and begin < rows:
                yield from self._pieces(batch, begin, _part(fresh, first, first + 1))
                begin, first = begin + 1, first + 1

    def _fresh(self, batch: Batch, at: I32) -> Fresh:
        everything = len(at) == len(batch.stat)
        stat = batch.stat if everything else batch.stat[at]
        device = batch.device if everything else batch.device[at]
        paths = batch.paths if everything else columns.take(batch.paths, at)
        known = batch.known if everything else batch.known[at]
        fresh = Fresh(paths, stat, device, self._links.later_members(stat, device), known=known)
        for row in np.flatnonzero(stat["errno"]).tolist():
            fresh.problems[row] = describe(int(stat["errno"][row]))
        return fresh

    def _listing(self, batch: Batch, begin: int, end: int, fresh: Fresh, at: I32) -> Listing:
        low, high = np.searchsorted(batch.carried_at, (begin, end)).tolist()
        carried = batch.carried.slice(low, high - low) if batch.carried is not None and high > low else None
        borders = batch.borders[(batch.borders >= begin) & (batch.borders < end)] - np.int32(begin)
        seq = self._number()
        return Listing(seq, fresh, at - np.int32(begin), carried, batch.carried_at[low:high] - np.int32(begin), borders)

    def _pieces(self, batch: Batch, row: int, fresh: Fresh) -> Iterator[Listing]:
        try:
            extents = self._extents(fresh)
        except OSError as error:
            fresh.problems[0] = describe(error.errno or errno.EIO)
            yield self._listing(batch, row, row + 1, fresh, np.array([row], dtype=np.int32))
            return
        content = int(fresh.stat["size"][0]) if extents is None else int(extents[:, 1].sum())
        file = self._large_files
        self._large_files += 1
        count = max(1, -(-content // BODY_MAX))
        borders = np.zeros(int(row in batch.borders), dtype=np.int32)
        for index in range(count):
            offset = index * BODY_MAX
            piece = Piece(file, index, count, offset, min(BODY_MAX, content - offset), extents)
            own = Fresh(fresh.paths, fresh.stat.copy(), fresh.device, fresh.same_as, known=fresh.known)
            if extents is not None:
                own.extents[0] = extents
            at = np.zeros(1, dtype=np.int32)
            yield Listing(self._number(), own, at, borders=borders if index == 0 else borders[:0], piece=piece)

    def _extents(self, fresh: Fresh) -> I64 | None:
        """Where the data of a large file lies, None if it has no holes. OSError if it cannot be read at all: a file
        may claim to be so large that its pieces cannot even be counted out."""
        fd = open_regular(self._root_fd, fresh.paths[0])
        try:
            return data_extents(fd, int(fresh.stat["size"][0])) if may_be_sparse(fresh.stat)[0] else None
        finally:
            os.close(fd)

    def _number(self) -> int:
        self._listings += 1
        return self._listings - 1


class LinkGroups:
    """Hard links among the fresh rows: of each group the first member is read. Forgets a group once it is complete."""

    def __init__(self) -> None:
        self._groups: dict[tuple[int, int], tuple[int, tuple[int, int, int]]] = {}

    def later_members(self, stat: Stats, device: U32) -> Bool:
        """Which rows have the content of an earlier one."""
        later = np.zeros(len(stat), dtype=np.bool_)
        linked = (stat["nlink"] > 1) & (kinds_of(stat["mode"]) == Kind.FILE)
        for row in np.flatnonzero(linked).tolist():
            key = (int(device[row]), int(stat["ino"][row]))
            version = (int(stat["size"][row]), int(stat["mtime"][row]), int(stat["ctime"][row]))
            left, first = self._groups.pop(key, (int(stat["nlink"][row]), version))
            # Another version is another file: the inode number was used again, or the file changed meanwhile.
            later[row] = left < int(stat["nlink"][row]) and first == version
            left = left - 1 if first == version else int(stat["nlink"][row]) - 1
            if left > 0:
                self._groups[key] = (left, version)
        return later


def read_cost(fresh: Fresh) -> I64:
    """Bytes to be read for each row. Sparse files count whole: what a file system compresses looks sparse too."""
    readable = (fresh.kinds == Kind.FILE) & ~fresh.same_as & (fresh.stat["errno"] == 0)
    cost: I64 = np.where(readable, np.maximum(fresh.stat["size"], 0), 0)
    return cost


def _part(fresh: Fresh, first: int, last: int) -> Fresh:
    """Rows first..last-1."""
    if first == 0 and last == len(fresh):
        return fresh
    part = Fresh(
        fresh.paths.slice(first, last),
        fresh.stat[first:last],
        fresh.device[first:last],
        fresh.same_as[first:last],
        known=None if fresh.known is None else fresh.known[first:last],
    )
    part.problems = {row - first: text for row, text in fresh.problems.items() if first <= row < last}
    return part
