"""Where the data of a sparse file lies. Holes are neither read nor stored."""

from __future__ import annotations

import errno
import os

import numpy as np

from model.entries import I64, Bool, Stats

SPARSE_MIN = 4096  # bytes; a hole in a smaller file is no page long
EXTENTS_MAX = 65_536  # of one file; of more the smallest holes are taken for data


def may_be_sparse(stat: Stats) -> Bool:
    """Which rows occupy less than their size: files with holes, and those a file system compresses."""
    found: Bool = (stat["blocks"] * 512 < stat["size"]) & (stat["size"] >= SPARSE_MIN)
    return found


def data_extents(fd: int, size: int, at_most: int = EXTENTS_MAX) -> I64 | None:
    """(k, 2) offset and length of the data in the first `size` bytes, or None if there are no holes. OSError."""
    found: list[tuple[int, int]] = []
    end = 0
    gap = 1
    while end < size:
        try:
            start = os.lseek(fd, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # a hole up to the end
                break
            if error.errno in (errno.EINVAL, errno.EOPNOTSUPP):  # a file system that cannot tell
                return None
            raise
        if start >= size:
            break
        end = min(os.lseek(fd, start, os.SEEK_HOLE), size)
        if end <= start:
            break  # cut short meanwhile
        if found and start - sum(found[-1]) < gap:
            found[-1] = (found[-1][0], end - found[-1][0])
        else:
            found.append((start, end - start))
        while len(found) > at_most:
            gap *= 2
            found = _joined(found, gap)
    if found == [(0, size)] or size == 0:
        return None
    return np.array(found, dtype=np.int64).reshape(-1, 2)


def ranges_of(extents: I64, offset: int, length: int) -> list[tuple[int, int]]:
    """Where ``[offset, offset + length)`` of the data joined lies in the file: (offset, length) each."""
    ends = np.cumsum(extents[:, 1])
    first = int(np.searchsorted(ends, offset, side="right"))
    found = []
    while length > 0 and first < len(extents):
        skip = offset - (int(ends[first]) - int(extents[first, 1]))
        count = min(length, int(extents[first, 1]) - skip)
        found.append((int(extents[first, 0]) + skip, count))
        offset, length, first = offset + count, length - count, first + 1
    return found


def _joined(extents: list[tuple[int, int]], gap: int) -> list[tuple[int, int]]:
    """Extents with less than `gap` bytes between them as one."""
    joined = extents[:1]
    for start, length in extents[1:]:
        first, before = joined[-1]
        if start - (first + before) < gap:
            joined[-1] = (first, start + length - first)
        else:
            joined.append((start, length))
    return joined
