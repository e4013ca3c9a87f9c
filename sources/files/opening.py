"""Opening what the scan found: never through a link, never waiting, never acting on a device."""

from __future__ import annotations

import errno
import os
import stat

import kernels
from model.entries import Paths, Stats

_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_ITSELF = Paths.of([b""])


class NotRegularError(OSError):
    """There is something else under the name of a file."""


def open_regular(root_fd: int, path: bytes) -> int:
    """A descriptor of a regular file below the root, reading it without moving its access time where allowed.

    OSError; `NotRegularError` if it is none. A device is looked at before it is opened: opening can act on it.
    """
    looked = kernels.stat_paths(root_fd, Paths.of([path]))[0]
    if looked["errno"]:
        raise OSError(int(looked["errno"]), os.strerror(int(looked["errno"])), path)
    if not stat.S_ISREG(int(looked["mode"])):
        raise NotRegularError(errno.EINVAL, "not a regular file", path)
    fd = _open(root_fd, path)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise NotRegularError(errno.EINVAL, "not a regular file", path)
    return fd


def open_directory(root_fd: int, path: bytes) -> int:
    """A descriptor of a directory to be read. OSError."""
    try:
        return kernels.open_beneath(root_fd, path, _FLAGS | os.O_DIRECTORY | os.O_NOATIME)
    except PermissionError as error:
        if error.errno != errno.EPERM:  # O_NOATIME is for owners
            raise
        return kernels.open_beneath(root_fd, path, _FLAGS | os.O_DIRECTORY)


def stat_row(fd: int) -> Stats:
    """STAT[1] of an open file. OSError."""
    row = kernels.stat_paths(fd, _ITSELF)
    if row["errno"][0]:
        raise OSError(int(row["errno"][0]), os.strerror(int(row["errno"][0])))
    return row


def _open(root_fd: int, path: bytes) -> int:
    try:
        return kernels.open_beneath(root_fd, path, _FLAGS | os.O_NOATIME)
    except PermissionError as error:
        if error.errno != errno.EPERM:
            raise
        return kernels.open_beneath(root_fd, path, _FLAGS)
