"""read: the content of the fresh rows of a listing, and what was true of each file when it was read.

Ordinary files are read by one kernel call for the whole listing. Files that may have holes, and files that moved
while they were read, are read one by one; a file that keeps moving is kept as far as it was read, with a problem.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

import kernels
from model.batches import OVERREAD, Blocks, Listing, Piece
from model.chunking import WINDOW
from model.entries import I64, READ_CHANGED, READ_HAS_XATTRS, READ_NOT_REGULAR, Fresh, Kind, Stats
from sources.files import columns
from sources.files.attributes import complete, inode_flags
from sources.files.extents import data_extents, may_be_sparse, ranges_of
from sources.files.opening import NotRegularError, open_regular, stat_row
from sources.files.trouble import CHANGED, REPLACED, describe

AGAIN = 3  # times a file is read by itself until it stands still, unless told otherwise
_VERSION = ("size", "mtime", "ctime", "ino")


def read_listing(root_fd: int, listing: Listing, body: bytearray, again: int = AGAIN) -> Blocks:
    """Read what `listing` asks for into `body`, which must have room for ``BODY_MAX + OVERREAD + WINDOW`` bytes.

    A file that moves meanwhile is read by itself, up to so often `again`.
    The answer holds a listing of its own, whose fresh rows tell what was read; `listing` stays as it is. Trouble
    with a file is its row's problem; nothing is raised for it.
    """
    fresh = _own(listing.fresh)
    reading = _Reading(root_fd, fresh, memoryview(body), again)
    if listing.piece is not None:
        after = reading.piece(listing.piece)
    else:
        after = 0
        reading.files()
    if listing.piece is None or listing.piece.index == 0:
        complete(root_fd, fresh)
    return Blocks(replace(listing, fresh=fresh), reading.view, reading.start, reading.length, after)


def read_range(root: bytes | int, path: bytes, piece: Piece, offset: int, length: int) -> bytes:
    """Up to `length` bytes of the content of a large file from `offset` on; shorter at its end or if it is cut short.

    `root` is the root directory or a descriptor of it. OSError.
    """
    root_fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) if isinstance(root, bytes) else root
    try:
        fd = open_regular(root_fd, path)
    finally:
        if isinstance(root, bytes):
            os.close(root_fd)
    try:
        room = memoryview(bytearray(length))
        return bytes(room[: _read_ranges(fd, _ranges(piece.extents, offset, length), room)])
    finally:
        os.close(fd)


@dataclass(slots=True, eq=False)
class _Whole:
    """A file read by itself: the row it had, bytes read, extents if it has holes, and whether it stood still."""

    row: Stats
    length: int
    extents: I64 | None
    steady: bool


class _Reading:
    """The rows of one listing while they are read: where in the body each lies, and how much of the body is used."""

    def __init__(self, root_fd: int, fresh: Fresh, view: memoryview, again: int) -> None:
        self._root_fd = root_fd
        self._again = again
        self._fresh = fresh
        self.view = view
        self.start = np.zeros(len(fresh), dtype=np.int64)
        self.length = np.zeros(len(fresh), dtype=np.int64)
        self._listed: I64 = fresh.stat["size"].copy()
        self._used = 0

    def files(self) -> None:
        """Read all regular files that are to be read."""
        fresh = self._fresh
        readable = (fresh.kinds == Kind.FILE) & ~fresh.same_as
        readable[list(fresh.problems)] = False
        sparse = may_be_sparse(fresh.stat)
        changed = self._read_at_once(np.flatnonzero(readable & ~sparse))
        for row in np.flatnonzero(readable & sparse).tolist():
            self._read_alone(row)
        for row in changed:
            if self._again:
                self._read_alone(row)
            else:
                fresh.problems[row] = CHANGED
                fresh.stat["size"][row] = self.length[row]

    def _read_at_once(self, rows: I64) -> list[int]:
        """Read `rows` in one call; those that changed meanwhile are the answer."""
        if not len(rows):
            return []
        fresh = self._fresh
        paths = fresh.paths if len(rows) == len(fresh) else columns.take(fresh.paths, rows)
        stat, length = kernels.read_files(self._root_fd, paths, fresh.stat["size"][rows], self.view)
        self.length[rows] = length
        self.start[rows] = np.cumsum(length) - length
        self._used = int(length.sum())
        flags = stat["flags"]
        other = (flags & np.uint32(READ_NOT_REGULAR)) != 0
        changed = ((flags & np.uint32(READ_CHANGED)) != 0) & ~other
        failed = stat["errno"] != 0
        for at in np.flatnonzero(other | failed).tolist():
            text = describe(int(stat["errno"][at])) if failed[at] else REPLACED
            fresh.problems[int(rows[at])] = text
        good = ~(other | failed)
        self._note(rows[good], stat[good])
        again: list[int] = rows[changed & good].tolist()
        return again

    def _read_alone(self, row: int) -> None:
        """Read one file until it stands still; what is kept in the end replaces what was read of it before."""
        fresh = self._fresh
        path = fresh.paths[row]
        room = self.view[self._used :]
        limit = int(self._listed[row])
        try:
            whole = _read_whole(self._root_fd, path, room, limit)
            for _ in range(self._again - 1):
                if whole.steady:
                    break
                whole = _read_whole(self._root_fd, path, room, limit)
        except NotRegularError:
            self._lost(row, REPLACED)
            return
        except OSError as error:
            self._lost(row, describe(error.errno or errno.EIO))
            return
        self._note(np.array([row]), whole.row)
        if whole.length < self.length[row] and not whole.steady:  # more of it was read before
            fresh.problems[row] = CHANGED
            fresh.stat["size"][row] = self.length[row]
            return
        self.start[row], self.length[row] = self._used, whole.length
        self._used += whole.length
        if whole.extents is not None:
            fresh.extents[row] = whole.extents
        if not whole.steady:
            fresh.problems[row] = CHANGED
            if whole.extents is None:
                fresh.stat["size"][row] = whole.length

    def _lost(self, row: int, text: str) -> None:
        self._fresh.problems[row] = text
        self.length[row] = 0

    def _note(self, rows: I64, stat: Stats) -> None:
        """What was true when the files were read replaces what the scan saw; reading may have moved the atime."""
        atime = self._fresh.stat["atime"][rows]
        self._fresh.stat[rows] = stat
        self._fresh.stat["atime"][rows] = atime

    def piece(self, piece: Piece) -> int:
        """Read a piece of a large file and some bytes around it; how many lie after it."""
        fresh = self._fresh
        extents = piece.extents
        content = int(fresh.stat["size"][0]) if extents is None else int(extents[:, 1].sum())
        context = min(WINDOW - 1, piece.offset)
        want = min(context + piece.length + OVERREAD, content - piece.offset + context)
        try:
            fd = open_regular(self._root_fd, fresh.paths[0])
        except NotRegularError:
            fresh.problems[0] = REPLACED
            return 0
        except OSError as error:
            fresh.problems[0] = describe(error.errno or errno.EIO)
            return 0
        try:
            got = _read_ranges(fd, _ranges(extents, piece.offset - context, want), self.view)
            now = stat_row(fd)
            now["flags"] = _flags(fd)
        except OSError as error:
            fresh.problems[0] = describe(error.errno or errno.EIO)
            return 0
        finally:
            os.close(fd)
        if got < want or not _same_version(now, fresh.stat):
            fresh.problems[0] = CHANGED
        fresh.stat["flags"] = now["flags"]
        self.start[0] = min(context, got)
        self.length[0] = max(0, min(piece.length, got - context))
        return max(0, got - context - int(self.length[0]))


def _read_whole(root_fd: int, path: bytes, room: memoryview, limit: int) -> _Whole:
    """Read a file from its start; if it does not fit into `room` any more, its first `limit` bytes. OSError."""
    fd = open_regular(root_fd, path)
    try:
        row = stat_row(fd)
        size = int(row["size"][0])
        extents = data_extents(fd, size) if may_be_sparse(row)[0] else None
        ranges = _ranges(extents, 0, size)
        wanted = sum(length for _, length in ranges)
        fits = wanted <= len(room)
        if not fits:
            extents, ranges = None, [(0, min(limit, len(room)))]
        got = _read_ranges(fd, ranges, room)
        steady = fits and got == wanted and _same_version(stat_row(fd), row)
        if extents is not None and got < wanted:
            extents = np.array(ranges_of(extents, 0, got), dtype=np.int64).reshape(-1, 2)
        row["flags"] = _flags(fd)
        return _Whole(row, got, extents, steady)
    finally:
        os.close(fd)


def _ranges(extents: I64 | None, offset: int, length: int) -> list[tuple[int, int]]:
    return [(offset, length)] if extents is None else ranges_of(extents, offset, length)


def _read_ranges(fd: int, ranges: Iterable[tuple[int, int]], room: memoryview) -> int:
    """Read ranges of a file back to back; bytes read, fewer if the file ends within one. OSError."""
    at = 0
    for offset, length in ranges:
        end = at + length
        while at < end:
            got = os.preadv(fd, [room[at:end]], offset + length - (end - at))
            if got == 0:
                return at
            at += got
    return at


def _same_version(one: Stats, other: Stats) -> bool:
    return all(one[name][0] == other[name][0] for name in _VERSION)


def _flags(fd: int) -> int:
    try:
        has_xattrs = bool(os.listxattr(fd))
    except OSError:
        has_xattrs = False
    return inode_flags(fd) | (READ_HAS_XATTRS if has_xattrs else 0)


def _own(fresh: Fresh) -> Fresh:
    """A copy whose columns may be filled; paths are shared."""
    return replace(
        fresh,
        stat=fresh.stat.copy(),
        targets=dict(fresh.targets),
        xattrs=dict(fresh.xattrs),
        extents=dict(fresh.extents),
        problems=dict(fresh.problems),
    )
