"""Looking at file trees below a root directory, symbolic links never followed: the specification (``tree_*.c``).

Every path is bytes relative to the descriptor `root_fd`, of any length, and canonical: no leading or trailing slash,
no empty, ``.`` or ``..`` component, no NUL; anything else is EINVAL. ``b""`` is the root itself. A symbolic link
in place of a directory is ELOOP. Trouble with one row of many is in the `errno` of that row, never an exception.
"""

from __future__ import annotations

import errno
import os
import stat

import numpy as np

from kernels.buffers import check_ranges, rows_of
from model.entries import I32, STAT, U8, Paths, Stats, order_key

NAME_MAX = 255
SCAN_LIMIT = 4096  # rows of one batch
_TIME_MIN, _TIME_MAX = -(1 << 63), (1 << 63) - 1


def open_beneath(root_fd: int, path: bytes, flags: int, mode: int = 0o600) -> int:
    """A descriptor of `path`, close-on-exec; `mode` counts if the flags create. OSError with the path otherwise."""
    parts = path.split(b"/") if path else []
    if b"\0" in path or any(part in (b"", b".", b"..") for part in parts):
        raise _error(errno.EINVAL, path)
    try:
        if not parts:
            return os.open(b".", flags | os.O_CLOEXEC, mode, dir_fd=root_fd)
        return _walk(root_fd, parts, flags | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    except OSError as error:
        raise _error(error.errno or errno.EIO, path) from None


def _walk(root_fd: int, parts: list[bytes], flags: int, mode: int) -> int:
    at = root_fd
    try:
        for part in parts[:-1]:
            below = _open(at, part, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, 0)
            if at != root_fd:
                os.close(at)
            at = below
        return _open(at, parts[-1], flags, mode)
    finally:
        if at != root_fd:
            os.close(at)


def _open(directory: int, name: bytes, flags: int, mode: int) -> int:
    try:
        return os.open(name, flags, mode, dir_fd=directory)
    except NotADirectoryError as error:
        if stat.S_ISLNK(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP)) from error
        raise


def _error(number: int, path: bytes) -> OSError:
    return OSError(number, os.strerror(number), path)


def list_directory(fd: int) -> tuple[Paths, U8]:
    """All names in the directory but ``.`` and ``..``, sorted bytewise, and the d_type of each (0 if not known).

    `fd` must be open for reading. OSError.
    """
    os.lseek(fd, 0, os.SEEK_SET)
    names = sorted(os.fsencode(name) for name in os.listdir(fd))
    types = [int(lstat_row(fd, name)["mode"][0]) >> 12 for name in names]
    return Paths.of(names), np.array(types, dtype=np.uint8)


def stat_names(dir_fd: int, names: Paths, lo: int, hi: int) -> Stats:
    """lstat of names lo..hi-1 of one directory: STAT[hi - lo]. ValueError unless ``0 <= lo <= hi <= len(names)``."""
    rows = rows_of(names)
    check_ranges(np.array([lo]), np.array([hi - lo]), len(rows))
    return _stats([lstat_row(dir_fd, name) for name in rows[lo:hi]])


def stat_paths(root_fd: int, paths: Paths) -> Stats:
    """lstat of paths below the root: STAT[n]. Cheap where consecutive paths share their directory."""
    return _stats([_lstat_path(root_fd, path) for path in rows_of(paths)])


def scan_directory(root_fd: int, path: bytes, limit: int = SCAN_LIMIT) -> tuple[Paths, Stats]:
    """All names of the directory `path`, sorted bytewise, and lstat of the first `limit` of them.

    So ``len(stats) == min(len(names), limit)``: for the rest of a large directory call `stat_names` in slices. The
    access time of the directory is kept if the caller may keep it. OSError with the path if it cannot be listed.
    """
    if limit < 0:
        raise ValueError("limit must not be negative")
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NONBLOCK
    try:
        fd = open_beneath(root_fd, path, flags | os.O_NOATIME)
    except PermissionError as error:
        if error.errno != errno.EPERM:
            raise
        fd = open_beneath(root_fd, path, flags)
    try:
        names, _ = list_directory(fd)
        return names, stat_names(fd, names, 0, min(len(names), limit))
    except OSError as error:
        raise _error(error.errno or errno.EIO, path) from None
    finally:
        os.close(fd)


def join_sorted(a: Paths, b: Paths) -> tuple[I32, int]:
    """Matches two columns in manifest order: int32[len(a)], the row of b that equals each row of a, or -1; and how
    many rows at the front of b sort up to the last row of a (0 if a is empty).

    One linear merge; columns that are out of order give some matches only. Paths are taken to be canonical: others
    (``/a`` and ``a``) count as equal if they sort equal.
    """
    left = [order_key(path) for path in rows_of(a)]
    right = [order_key(path) for path in rows_of(b)]
    match = np.full(len(left), -1, dtype=np.int32)
    j = 0
    for i, key in enumerate(left):
        while j < len(right) and right[j] < key:
            j += 1
        if j < len(right) and right[j] == key:
            match[i] = j
    while left and j < len(right) and right[j] <= left[-1]:
        j += 1
    return match, j


def parent_of(root_fd: int, path: bytes) -> tuple[int, bytes]:
    """A descriptor of the directory that holds `path`, to be closed by the caller, and the name in it. OSError."""
    directory, slash, name = path.rpartition(b"/")
    if slash and not directory:
        raise _error(errno.EINVAL, path)
    _check_name(name)
    return open_beneath(root_fd, directory, os.O_PATH | os.O_DIRECTORY), name


def _check_name(name: bytes) -> None:
    if len(name) > NAME_MAX:
        raise _error(errno.ENAMETOOLONG, name)
    if name in (b"", b".", b"..") or b"/" in name or b"\0" in name:
        raise _error(errno.EINVAL, name)


def _lstat_path(root_fd: int, path: bytes) -> Stats:
    try:
        if not path:
            return row_of(os.fstat(root_fd))
        directory, name = parent_of(root_fd, path)
    except OSError as error:
        return error_row(error)
    try:
        return lstat_row(directory, name)
    finally:
        os.close(directory)


def lstat_row(directory: int, name: bytes) -> Stats:
    """STAT[1] of a name in an open directory."""
    try:
        _check_name(name)
        return row_of(os.stat(name, dir_fd=directory, follow_symlinks=False))
    except OSError as error:
        return error_row(error)


def row_of(status: os.stat_result) -> Stats:
    """STAT[1] of an lstat; times outside of 1677..2262 are cut to that range."""
    mtime, ctime, atime = (
        min(max(time, _TIME_MIN), _TIME_MAX) for time in (status.st_mtime_ns, status.st_ctime_ns, status.st_atime_ns)
    )
    row = np.zeros(1, dtype=STAT)
    row[0] = (
        *(status.st_mode, status.st_uid, status.st_gid, status.st_nlink, status.st_size, mtime, ctime, atime),
        *(status.st_ino, status.st_dev, status.st_rdev, status.st_blocks, 0, 0),
    )
    return row


def error_row(error: OSError) -> Stats:
    """STAT[1] that says why there is no lstat."""
    row = np.zeros(1, dtype=STAT)
    row["errno"] = error.errno or errno.EIO
    return row


def _stats(rows: list[Stats]) -> Stats:
    return np.concatenate([np.zeros(0, dtype=STAT), *rows])
