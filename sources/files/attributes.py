"""What an entry has beside its lstat and content: link targets, extended attributes, inode flags.

Entries are reached through a descriptor of their directory and never followed. POSIX ACLs and file capabilities are
extended attributes and need nothing of their own.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct

import numpy as np

import kernels
from model.entries import I64, READ_HAS_XATTRS, Fresh, Kind
from sources.files import columns
from sources.files.opening import open_directory
from sources.files.trouble import describe

_GET_FLAGS = 0x80006601 | struct.calcsize("l") << 16  # FS_IOC_GETFLAGS
XATTRS_MAX = 4 << 20  # bytes of one entry's attributes: any user may set as many as XFS will hold
_NO_XATTRS = frozenset({errno.ENOTSUP, errno.ENODATA, errno.ENOSYS})


def complete(root_fd: int, fresh: Fresh) -> None:
    """Fill targets, xattrs, problems and the inode flags of directories in `fresh`, which must be the caller's own.

    Regular files are looked at only if their flags say READ_HAS_XATTRS; rows with a problem are left alone.
    """
    kinds = fresh.kinds
    others = (kinds != Kind.FILE) & (kinds != Kind.UNKNOWN)
    others[list(fresh.problems)] = False
    _look_at(root_fd, fresh, np.flatnonzero(others))
    parent = _Parent(root_fd)
    try:
        for row in np.flatnonzero(fresh.stat["flags"] & np.uint32(READ_HAS_XATTRS)).tolist():
            if row in fresh.problems:
                continue
            path = fresh.paths[row]
            try:
                _complete_row(root_fd, parent, path, Kind(int(kinds[row])), row, fresh)
            except OSError as error:
                fresh.problems[row] = describe(error.errno or errno.EIO)
    finally:
        parent.close()


def _look_at(root_fd: int, fresh: Fresh, rows: I64) -> None:
    """Fill targets and flags of `rows` all at once; READ_HAS_XATTRS remains where one has to look closer."""
    if not len(rows):
        return
    flags, targets = kernels.look_at(root_fd, columns.take(fresh.paths, rows), fresh.stat["mode"][rows])
    fresh.stat["flags"][rows] |= flags
    for at in np.flatnonzero(np.diff(targets.offsets)).tolist():
        fresh.targets[int(rows[at])] = targets[at]


def inode_flags(fd: int) -> int:
    """The flags of chattr(1) that can be set on any file, or 0 where there are none."""
    try:
        answer = fcntl.ioctl(fd, _GET_FLAGS, b"\0" * 8)
    except OSError:
        return 0
    return int.from_bytes(answer[:4], "little") & kernels.SETTABLE_FLAGS


def read_xattrs(where: int | bytes) -> tuple[list[tuple[bytes, bytes]], str]:
    """Extended attributes of an open file or of a path whose last component is not followed, sorted by name; and
    what went wrong with one of them, or ``""``. OSError if they cannot even be listed."""
    follow = isinstance(where, int)
    found: list[tuple[bytes, bytes]] = []
    problem, size = "", 0
    for name in _listed(where, follow):
        try:
            value = os.getxattr(where, name, follow_symlinks=follow)
            size += len(name) + len(value)
            if size > XATTRS_MAX:
                return sorted(found), f"more than {XATTRS_MAX >> 20} MiB of extended attributes: only some were kept"
            found.append((os.fsencode(name), value))
        except OSError as error:
            if error.errno not in _NO_XATTRS:
                problem = f"extended attribute {name!r}: {describe(error.errno or errno.EIO)}"
    return sorted(found), problem


def _listed(where: int | bytes, follow: bool) -> list[str]:
    try:
        return os.listxattr(where, follow_symlinks=follow)
    except OSError as error:
        if error.errno in _NO_XATTRS:
            return []
        raise


class _Parent:
    """The directory of the row at hand, open while consecutive rows lie in it."""

    def __init__(self, root_fd: int) -> None:
        self._root_fd = root_fd
        self._path: bytes | None = None
        self.fd = -1

    def enter(self, path: bytes) -> None:
        if path == self._path:
            return
        self.close()
        self.fd = kernels.open_beneath(self._root_fd, path, os.O_PATH | os.O_DIRECTORY)
        self._path = path

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
        self._path, self.fd = None, -1


def _complete_row(root_fd: int, parent: _Parent, path: bytes, kind: Kind, row: int, fresh: Fresh) -> None:
    directory, _, name = path.rpartition(b"/")
    parent.enter(directory)
    if kind == Kind.DIRECTORY:
        fd = open_directory(parent.fd, name)
        try:
            fresh.stat["flags"][row] |= inode_flags(fd)
            xattrs, problem = read_xattrs(fd)
        finally:
            os.close(fd)
    else:
        if kind == Kind.SYMLINK:
            fresh.targets[row] = os.readlink(name, dir_fd=parent.fd)
        xattrs, problem = read_xattrs(b"/proc/self/fd/%d/%s" % (parent.fd, name))
    if xattrs:
        fresh.xattrs[row] = xattrs
    if problem:
        fresh.problems[row] = problem
