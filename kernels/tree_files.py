"""Reading and creating many small files at once: the specification (``tree_read.c``, ``tree_write.c``).

Paths are as in ``tree.py``. Trouble with a row is its errno, never an exception; ValueError is for columns that do
not fit each other.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct

import numpy as np
import numpy.typing as npt

from kernels.buffers import Bytes, bytes_of, check_items, check_ranges, rows_of
from kernels.tree import error_row, lstat_row, parent_of, row_of
from model.entries import I32, I64, READ_CHANGED, READ_HAS_XATTRS, READ_NOT_REGULAR, STAT, U8, U32, Paths, Stats

WRITE_OWNER, WRITE_MODE, WRITE_TIMES = 1, 2, 4  # what of the metadata `write_files` applies
# What chattr(1) may set on any file: s u c S i a d A, t D T. Flags like "has extents" say how a file system stores it.
SETTABLE_FLAGS = 0x000380FF
_GET_FLAGS = 0x80006601 | struct.calcsize("l") << 16  # FS_IOC_GETFLAGS
_NO_XATTRS = frozenset({errno.ENOTSUP, errno.ENODATA, errno.ENOSYS})
_VERSION = ["ino", "dev", "size", "mtime", "ctime"]


def read_files(root_fd: int, paths: Paths, limits: I64, body: bytearray | memoryview | U8) -> tuple[Stats, I64]:
    """Reads n files back to back into `body`, at most `limits` bytes of each: (STAT[n], int64[n] bytes read).

    A limit is the size the caller expects; a negative one asks for metadata alone. Rows are the status from just before
    the read, so a later change differs from them. In their flags: READ_NOT_REGULAR (nothing was read),
    READ_HAS_XATTRS, READ_CHANGED (the file moved while it was read, or its size is not the limit, unless that is
    negative), and the inode flags chattr(1) can set. A row with an errno has length 0; its metadata is there if
    lstat worked. Never waits for FIFOs or devices; access times are kept where that is allowed. ValueError
    if the limits do not fit into the body.
    """
    rows = rows_of(paths)
    check_items(limits, len(rows), "limits")
    room = bytes_of(body).data
    if sum(max(limit, 0) for limit in limits.tolist()) > len(room):
        raise ValueError("the body is too small for the limits")
    stats, lengths = np.zeros(len(rows), dtype=STAT), np.zeros(len(rows), dtype=np.int64)
    at = 0
    for i, (path, limit) in enumerate(zip(rows, limits.tolist(), strict=True)):
        stats[i : i + 1], lengths[i] = _read_row(root_fd, path, limit, room[at : at + max(limit, 0)])
        at += int(lengths[i])
    return stats, lengths


def _read_row(root_fd: int, path: bytes, limit: int, room: memoryview) -> tuple[Stats, int]:
    try:
        directory, name = parent_of(root_fd, path)
    except OSError as error:
        return error_row(error), 0
    try:
        try:
            fd = _open_to_read(directory, name)
        except OSError as error:
            return _unopened(directory, name, error), 0
        try:
            return _read_open(fd, limit, room)
        finally:
            os.close(fd)
    finally:
        os.close(directory)


def _unopened(directory: int, name: bytes, error: OSError) -> Stats:
    """Why it could not be opened, unless it is no file (a link, a socket), which says more."""
    row = lstat_row(directory, name)
    if not row["errno"][0] and not stat.S_ISREG(int(row["mode"][0])):
        row["flags"] |= READ_NOT_REGULAR
    else:
        row["errno"] = error.errno or errno.EIO
    return row


def _read_open(fd: int, limit: int, room: memoryview) -> tuple[Stats, int]:
    row = row_of(os.fstat(fd))
    try:
        if not stat.S_ISREG(int(row["mode"][0])):
            row["flags"] |= READ_NOT_REGULAR
            return row, 0
        row["flags"] |= _attributes_of(fd)
        got = _read_all(fd, room)
        after = row_of(os.fstat(fd))
        if (after[_VERSION] != row[_VERSION])[0] or (limit >= 0 and after["size"][0] != limit):
            row["flags"] |= READ_CHANGED
        return row, got
    except OSError as error:
        row["errno"] = error.errno or errno.EIO
        return row, 0


def _open_to_read(directory: int, name: bytes) -> int:
    # O_NONBLOCK: the name may have become a FIFO or a device since it was looked at.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        return os.open(name, flags | os.O_NOATIME, dir_fd=directory)
    except PermissionError as error:
        if error.errno != errno.EPERM:  # O_NOATIME is for owners
            raise
        return os.open(name, flags, dir_fd=directory)


def _attributes_of(fd: int) -> int:
    flags = 0
    try:
        flags = int.from_bytes(fcntl.ioctl(fd, _GET_FLAGS, b"\0" * 8)[:4], "little") & SETTABLE_FLAGS
    except OSError:
        pass  # a file system without inode flags
    return flags | _xattrs_flag(fd)


def _xattrs_flag(where: int | bytes) -> int:
    try:
        return READ_HAS_XATTRS if os.listxattr(where, follow_symlinks=isinstance(where, int)) else 0
    except OSError as error:
        return 0 if error.errno in _NO_XATTRS else READ_HAS_XATTRS


def _read_all(fd: int, room: memoryview) -> int:
    got = 0
    while got < len(room):
        count = os.readv(fd, [room[got:]])
        if count == 0:
            break
        got += count
    return got


def look_at(root_fd: int, paths: Paths, modes: U32) -> tuple[U32, Paths]:
    """What n entries of the given ``st_mode`` have beside their lstat: flags uint32[n] and the targets of links.

    Flags are the inode flags of directories, and READ_HAS_XATTRS where there are extended attributes or it could not
    be found out, so that whoever looks closer meets the error. A target is empty where there is none, and may be
    where READ_HAS_XATTRS is set. ValueError unless there is a mode for each path.
    """
    rows = rows_of(paths)
    check_items(modes, len(rows), "modes")
    flags, targets = np.zeros(len(rows), dtype=np.uint32), []
    for i, (path, mode) in enumerate(zip(rows, modes.tolist(), strict=True)):
        try:
            flags[i], target = _look_at(root_fd, path, mode)
        except OSError:
            flags[i], target = READ_HAS_XATTRS, b""
        targets.append(target)
    return flags, Paths.of(targets)


def _look_at(root_fd: int, path: bytes, mode: int) -> tuple[int, bytes]:
    directory, name = parent_of(root_fd, path)
    try:
        if stat.S_ISDIR(mode):
            return _directory_flags(directory, name), b""
        target = os.readlink(name, dir_fd=directory) if stat.S_ISLNK(mode) else b""
        return _xattrs_flag(b"/proc/self/fd/%d/%s" % (directory, name)), target
    finally:
        os.close(directory)


def _directory_flags(directory: int, name: bytes) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        fd = os.open(name, flags | os.O_NOATIME, dir_fd=directory)
    except PermissionError as error:
        if error.errno != errno.EPERM:  # O_NOATIME is for owners
            raise
        fd = os.open(name, flags, dir_fd=directory)
    try:
        return _attributes_of(fd)
    finally:
        os.close(fd)


def write_files(root_fd: int, paths: Paths, body: Bytes, start: I64, length: I64, meta: Stats, flags: int = 0) -> I32:
    """Creates n files, row i with ``body[start[i] : start[i] + length[i]]``: int32[n], 0 or an errno.

    Files are new (EEXIST otherwise) and 0600 until the owner, then the mode, then the times of `meta` are applied,
    as WRITE_OWNER, WRITE_MODE and WRITE_TIMES in `flags` ask for. A file that fails halfway is removed again.
    ValueError if the columns do not fit each other or the body.
    """
    rows = rows_of(paths)
    content = bytes_of(body).data
    for column, what in ((start, "start"), (length, "length"), (meta, "meta")):
        check_items(column, len(rows), what)
    check_ranges(start, length, len(content))
    errors = np.zeros(len(rows), dtype=np.int32)
    for i, (path, first, size) in enumerate(zip(rows, start.tolist(), length.tolist(), strict=True)):
        try:
            _write_row(root_fd, path, content[first : first + size], meta[i], flags)
        except OSError as error:
            errors[i] = error.errno or errno.EIO
    return errors


def _write_row(root_fd: int, path: bytes, data: memoryview, meta: np.void, flags: int) -> None:
    directory, name = parent_of(root_fd, path)
    try:
        how = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NOCTTY
        fd = os.open(name, how, 0o600, dir_fd=directory)
        created = os.fstat(fd)
        try:
            try:
                _fill(fd, data, meta, flags)
            finally:
                os.close(fd)
        except OSError:
            _remove_created(directory, name, created)
            raise
    finally:
        os.close(directory)


def _fill(fd: int, data: memoryview, meta: np.void, flags: int) -> None:
    """Owner before mode, because chown takes setuid bits away; times last, because everything else moves them."""
    while data:
        data = data[os.write(fd, data) :]
    if flags & WRITE_OWNER:
        os.fchown(fd, int(meta["uid"]), int(meta["gid"]))
    if flags & WRITE_MODE:
        os.fchmod(fd, int(meta["mode"]) & 0o7777)
    if flags & WRITE_TIMES:
        os.utime(fd, ns=(int(meta["atime"]), int(meta["mtime"])))


def _remove_created(directory: int, name: bytes, created: os.stat_result) -> None:
    """Takes a file of ours away again, but not what somebody else has put in its place meanwhile."""
    try:
        if os.path.samestat(os.stat(name, dir_fd=directory, follow_symlinks=False), created):
            os.unlink(name, dir_fd=directory)
    except OSError:
        pass  # it is gone


def create_directories(root_fd: int, paths: Paths) -> I32:
    """Creates directories, 0700, in the given order (parents first): int32[n], 0 or an errno (EEXIST too)."""
    errors: npt.NDArray[np.int32] = np.zeros(len(paths), dtype=np.int32)
    for i, path in enumerate(rows_of(paths)):
        try:
            directory, name = parent_of(root_fd, path)
            try:
                os.mkdir(name, 0o700, dir_fd=directory)
            finally:
                os.close(directory)
        except OSError as error:
            errors[i] = error.errno or errno.EIO
    return errors
