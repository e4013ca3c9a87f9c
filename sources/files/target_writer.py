"""Writing content into a target, from any lane in any process: whole small files by the batch, large ones in parts.

A small file is made under its own name, owner, mode and times included, in one call of the kernels. A large file is a
*work file* beside its place, made by the driver (`Target.begin_files`), filled by any lanes in any order and given its
name by the driver. A lane never creates a work file, so a part that arrives after the file was finished (replayed for a
lane that died) finds nothing to spoil.
"""

from __future__ import annotations

import errno
import os
import stat as stat_of
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np

from kernels import WRITE_MODE, WRITE_OWNER, WRITE_TIMES, list_directory, open_beneath, write_files
from model.entries import I64, Bool, Paths, Stats
from model.errors import UsageError
from model.orders import Joined, Written
from sources.files.columns import take
from sources.files.existing import is_exactly_named, lstat_beneath, publish, reason, remove_beneath, work_name
from sources.files.target_plan import WRITE_BESIDE, WRITE_LATER

ALL_METADATA = WRITE_OWNER | WRITE_MODE | WRITE_TIMES
COLLISION = "another entry has this name already: the file system takes both names for the same"

Buffer = bytes | bytearray | memoryview


class TargetWriter:
    """Writes below one directory. Picklable and thread-safe; opens the directory when first used.

    Raises UsageError if the directory is not the one (device, inode) it was made for.
    """

    def __init__(self, path: bytes, identity: tuple[int, int]) -> None:
        self.path = path
        self.identity = identity
        self._fd = -1
        self._lock = threading.Lock()

    @property
    def root_fd(self) -> int:
        if self._fd < 0:
            with self._lock:
                if self._fd < 0:
                    self._fd = open_root(self.path, self.identity)
        return self._fd

    def close(self) -> None:
        """Close the directory; it is opened again if needed."""
        with self._lock:
            if self._fd >= 0:
                os.close(self._fd)
            self._fd = -1

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "identity": self.identity}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["path"], state["identity"])  # type: ignore[misc]

    def write_joined(self, item: Joined) -> Written:
        """Write every part of an order that can be written; whole files with their metadata."""
        order = item.order
        problems = {int(order.rows[file]): text for file, text in item.failed.items()}
        written = np.zeros(len(order.rows), dtype=np.int64)
        finished = np.zeros(len(order.rows), dtype=bool)
        file = order.part_file[item.parts]
        simple = is_simple(order.whole, order.extents)[file]
        for segment in np.unique(order.part_segment[item.parts[simple]]).tolist():
            parts = item.parts[simple & (order.part_segment[item.parts] == segment)]
            files = order.part_file[parts]
            failed = self.write_batch(
                take(order.paths, files),
                item.plain[segment],
                order.part_offset[parts].astype(np.int64),
                order.part_length[parts],
                order.stat[files],
            )
            good = np.ones(len(parts), dtype=bool)
            good[list(failed)] = False
            written[files[good]] = order.part_length[parts[good]]
            finished[files] = good & ((order.stat["flags"][files] & WRITE_LATER) == 0)
            problems.update({int(order.rows[files[at]]): text for at, text in failed.items()})
        for part in item.parts[~simple].tolist():
            self._write_part(item, part, written, problems)
        return Written(order.seq, order.window, order.rows, written, finished, problems, damaged=bool(item.failed))

    def _write_part(self, item: Joined, part: int, written: I64, problems: dict[int, str]) -> None:
        order = item.order
        file = int(order.part_file[part])
        start, length = int(order.part_offset[part]), int(order.part_length[part])
        data = memoryview(item.plain[int(order.part_segment[part])])[start : start + length]
        text = self.write_at(order.paths[file], int(order.part_at[part]), data, order.extents.get(file))
        if text:
            problems[int(order.rows[file])] = text
        else:
            written[file] += length

    def write_batch(self, paths: Paths, body: Buffer, start: I64, length: I64, stat: Stats) -> dict[int, str]:
        """Make n files whole: file i is ``body[start[i] : start[i] + length[i]]`` with owner, mode and times of
        ``stat[i]``. Rows marked WRITE_BESIDE replace what has their name. Returns row → what did not work.
        """
        beside = np.flatnonzero(stat["flags"] & WRITE_BESIDE)
        names = paths
        if len(beside):
            marked = set(beside.tolist())
            names = Paths.of([work_name(path) if row in marked else path for row, path in enumerate(paths)])
        errors = write_files(self.root_fd, names, body, start, length, stat, ALL_METADATA)
        problems = {}
        for row in np.union1d(np.flatnonzero(errors), beside).tolist():
            data = memoryview(body)[int(start[row]) : int(start[row] + length[row])]
            try:
                text = self._complete(paths[row], data, stat[row : row + 1], int(errors[row]))
            except OSError as error:
                text = reason(error.errno or errno.EIO)
            if text:
                problems[row] = text
        return problems

    def _complete(self, path: bytes, data: memoryview, stat: Stats, error: int) -> str:
        """See one file through that takes more than the call that gave `error`: it replaces another, or that failed.

        Returns "" or what did not work. Raises OSError if the file was not written.
        """
        name = work_name(path) if stat["flags"][0] & WRITE_BESIDE else path
        if error == errno.EEXIST and name == path:
            if self._is_finished(path, stat):
                return ""  # by a lane that died before it could tell
            if not is_exactly_named(self.root_fd, path):
                return COLLISION
            name = work_name(path)
            error = self._write_one(name, data, stat, ALL_METADATA)
        if error == errno.EEXIST:  # a work file that an interrupted run has left
            remove_beneath(self.root_fd, name)
            error = self._write_one(name, data, stat, ALL_METADATA)
        trouble = ""
        if error in (errno.EPERM, errno.EINVAL):  # the file system keeps no owners, or not this one
            plain = stat.copy()
            plain["mode"] &= 0o1777
            trouble = f"owner not restored: {os.strerror(error)}"
            error = self._write_one(name, data, plain, WRITE_MODE | WRITE_TIMES)
        if error:
            raise OSError(error, os.strerror(error))
        if name != path:
            publish(self.root_fd, name, path)
        return trouble

    def _write_one(self, path: bytes, data: memoryview, stat: Stats, flags: int) -> int:
        start, length = np.zeros(1, dtype=np.int64), np.array([len(data)], dtype=np.int64)
        return int(write_files(self.root_fd, Paths.of([path]), data, start, length, stat, flags)[0])

    def _is_finished(self, path: bytes, wanted: Stats) -> bool:
        found = lstat_beneath(self.root_fd, path)
        same = (found.st_size, found.st_mtime_ns) == (int(wanted["size"][0]), int(wanted["mtime"][0]))
        return same and stat_of.S_ISREG(found.st_mode)

    def write_at(self, path: bytes, offset: int, data: Buffer, extents: I64 | None = None) -> str:
        """Write a part of the work file of `path`. `offset` counts in content: in the file's bytes, or in its
        `extents` joined if it is sparse. Returns "" or why it was not written.
        """
        try:
            fd = open_work(self.root_fd, path)
        except OSError as error:
            return reason(error.errno or errno.EIO)
        try:
            for place, start, length in ranges(offset, len(data), extents):
                _write_all(fd, memoryview(data)[start : start + length], place)
        except OSError as error:
            return error.strerror or str(error)
        finally:
            os.close(fd)
        return ""


def is_simple(whole: Bool, extents: dict[int, I64]) -> Bool:
    """Files that `write_batch` writes; the others need `Target.begin_files` before and are written in parts."""
    simple = whole.copy()
    simple[list(extents)] = False
    return simple


def open_root(path: bytes, identity: tuple[int, int] | None = None) -> int:
    """A descriptor of the target. Raises OSError; UsageError if it is not the directory (device, inode) expected."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    found = os.fstat(fd)
    if identity not in (None, (found.st_dev, found.st_ino)):
        os.close(fd)
        raise UsageError("the target was moved or replaced while it was written", subject=os.fsdecode(path))
    return fd


def open_work(root_fd: int, path: bytes) -> int:
    """A descriptor of the work file of `path`, open for writing. Raises OSError, ESTALE if it is not ours."""
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
    fd = open_beneath(root_fd, work_name(path), flags)
    found = os.fstat(fd)
    if not stat_of.S_ISREG(found.st_mode) or found.st_nlink != 1 or found.st_uid != os.geteuid():
        os.close(fd)
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
    return fd


def ranges(offset: int, length: int, extents: I64 | None) -> Iterator[tuple[int, int, int]]:
    """(place in the file, start in the data, bytes) of `length` bytes at content `offset`.

    Content is the file itself, or its `extents` (k, 2) joined. Raises OSError (EFBIG) if it goes past the last extent.
    """
    if extents is None:
        yield offset, 0, length
        return
    ends = np.cumsum(extents[:, 1])
    done = 0
    for at in range(int(np.searchsorted(ends, offset, side="right")), len(ends)):
        if done == length:
            return
        inside = offset + done - int(ends[at] - extents[at, 1])
        count = min(length - done, int(extents[at, 1]) - inside)
        yield int(extents[at, 0]) + inside, done, count
        done += count
    if done < length:
        raise OSError(errno.EFBIG, "more content than the file has room for")


def _write_all(fd: int, data: memoryview, place: int) -> None:
    while data:
        count = os.pwrite(fd, data, place)
        data, place = data[count:], place + count


def open_or_make(path: bytes, dry_run: bool) -> tuple[int, bool]:
    """A descriptor of the target (-1 if it does not exist and nothing may be made) and whether it is empty."""
    try:
        if not os.path.lexists(path):
            if dry_run:
                return -1, True
            os.makedirs(path, mode=0o700)
        fd = open_root(path)
        names, _ = list_directory(fd)
    except OSError as error:
        raise UsageError("cannot restore to this place", subject=os.fsdecode(path), why=str(error.strerror)) from error
    return fd, set(names) <= {b"lost+found"}
