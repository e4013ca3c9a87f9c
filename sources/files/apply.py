"""Metadata of restored entries, in the one order that keeps it: owner, mode, ACLs and xattrs, times, inode flags.

chown takes set-id bits and file capabilities away, so it comes first. Everything moves times, so they come late; the
immutable flag stops everything, so it comes last. What a user without privileges cannot set is a *note* (counted),
anything else that fails is a *problem* (a text for the report). Neither ends a run.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from kernels import SETTABLE_FLAGS, open_beneath

LOCKED_FLAGS = 0x00000030  # immutable, append-only: nothing of the inode can be changed while they are set
_LONG = struct.calcsize("l")
_GET_FLAGS = 0x80006601 | _LONG << 16  # FS_IOC_GETFLAGS; its size is that of a long, its argument an int
_SET_FLAGS = 0x40006602 | _LONG << 16
_UNSUPPORTED = (errno.ENOTTY, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
_REMOVABLE = ("user.", "trusted.", "system.posix_acl_", "security.capability")  # others belong to the system
_PRIVILEGED = ("security.", "trusted.")

Handle = int | bytes  # a descriptor, or /proc/self/fd/N of an O_PATH descriptor


class Entry(NamedTuple):
    """One entry with the metadata it is to have. `mode` has its format bits, times are nanoseconds since the epoch."""

    path: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    atime: int
    rdev: int = 0
    flags: int = 0
    nlink: int = 1
    xattrs: Sequence[tuple[bytes, bytes]] = ()
    target: bytes = b""

    @property
    def name(self) -> bytes:
        return self.path.rpartition(b"/")[2]


class Opened(NamedTuple):
    """An open entry: `handle` takes metadata, `found` is what it really is."""

    handle: Handle
    found: os.stat_result


class Applier:
    """Gives entries their metadata. `privileges`: also set-id bits (cut elsewhere), security.* and trusted.* xattrs."""

    def __init__(self, notes: Counter[str], *, privileges: bool = True) -> None:
        self.notes = notes
        self.privileges = privileges
        self._root = os.geteuid() == 0

    def apply(self, there: Opened, entry: Entry, *, keep_unlocked: bool = False) -> list[str]:
        """Make the inode that is open look like `entry`; what is right already is left. Returns what did not work.

        With `keep_unlocked` inode flags are left for `lock`: an immutable file cannot be renamed.
        """
        troubles: list[str] = []
        handle, found = there
        flags = inode_flags(handle)
        if flags is not None and flags & LOCKED_FLAGS:
            self._set_flags(handle, flags & ~LOCKED_FLAGS, troubles)
            flags &= ~LOCKED_FLAGS
        same_owner = (found.st_uid, found.st_gid) == (entry.uid, entry.gid)
        if not same_owner:
            with self._reporting("owner", troubles):
                os.chown(handle, entry.uid, entry.gid)
        if not stat.S_ISLNK(entry.mode) and not (same_owner and found.st_mode == entry.mode):
            with self._reporting("mode", troubles):
                os.chmod(handle, stat.S_IMODE(entry.mode))
        self._set_xattrs(handle, entry.xattrs, troubles)
        same_mtime = found.st_mtime_ns == entry.mtime  # of a link enough: to compare its target has moved its atime
        if not same_mtime or (found.st_atime_ns != entry.atime and not stat.S_ISLNK(entry.mode)):
            with self._reporting("times", troubles):
                os.utime(handle, ns=(entry.atime, entry.mtime))
        if not keep_unlocked:
            self._finish_flags(handle, flags, entry, troubles)
        return troubles

    def lock(self, fd: int, entry: Entry, troubles: list[str]) -> None:
        """Set the inode flags; nothing of the inode can be changed afterwards if immutable is among them."""
        self._finish_flags(fd, inode_flags(fd), entry, troubles)

    def _finish_flags(self, handle: Handle, flags: int | None, entry: Entry, troubles: list[str]) -> None:
        wanted = entry.flags & SETTABLE_FLAGS
        if flags is None:
            if wanted:
                self.notes["inode flags not restored: not supported here"] += 1
        elif wanted != flags & SETTABLE_FLAGS:
            self._set_flags(handle, flags & ~SETTABLE_FLAGS | wanted, troubles)

    def _set_xattrs(self, handle: Handle, wanted: Sequence[tuple[bytes, bytes]], troubles: list[str]) -> None:
        names = {os.fsdecode(name): value for name, value in wanted}
        try:
            present = os.listxattr(handle)
        except OSError:
            present = []
        for name in present:
            if name not in names and name.startswith(_REMOVABLE):
                with self._reporting(f"removal of xattr {name!r}", troubles, name):
                    os.removexattr(handle, name)
        for name, value in names.items():
            if name.startswith(_PRIVILEGED) and not self.privileges:
                self.notes["privileged xattrs left out"] += 1
            elif name not in present or not self._has(handle, name, value):
                with self._reporting(f"xattr {name!r}", troubles, name):
                    os.setxattr(handle, name, value)

    @staticmethod
    def _has(handle: Handle, name: str, value: bytes) -> bool:
        try:
            return os.getxattr(handle, name) == value
        except OSError:
            return False

    def _set_flags(self, handle: Handle, flags: int, troubles: list[str]) -> None:
        try:
            _flags_ioctl(handle, _SET_FLAGS, flags)
        except OSError as error:
            if error.errno in _UNSUPPORTED:
                self.notes["inode flags not restored: not supported here"] += 1
            elif not self._root and error.errno in (errno.EPERM, errno.EACCES):
                self.notes["inode flags not restored: not root"] += 1
            else:
                troubles.append(f"inode flags not restored: {error.strerror}")

    @contextlib.contextmanager
    def _reporting(self, what: str, troubles: list[str], xattr: str = "") -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if xattr.startswith(_PRIVILEGED) and not self._root:
                self.notes["privileged xattrs not restored: not root"] += 1
            else:
                troubles.append(f"{what} not restored: {error.strerror}")


def inode_flags(handle: Handle) -> int | None:
    """Flags as of lsattr(1); None where the file system, or this kind of entry, has none."""
    try:
        return _flags_ioctl(handle, _GET_FLAGS, 0)
    except OSError:
        return None


def _flags_ioctl(handle: Handle, request: int, flags: int) -> int:
    if isinstance(handle, bytes):
        raise OSError(errno.ENOTTY, os.strerror(errno.ENOTTY))
    # Room for a long: some file systems write one.
    answer = fcntl.ioctl(handle, request, struct.pack("=Iq", flags, 0))
    return int(struct.unpack_from("=I", answer)[0])


def unlock(fd: int) -> int:
    """Take immutable and append-only off an inode that is in the way. The flags it had; 0 if nothing was changed."""
    flags = inode_flags(fd)
    if flags is None or not flags & LOCKED_FLAGS:
        return 0
    try:
        _flags_ioctl(fd, _SET_FLAGS, flags & ~LOCKED_FLAGS)
    except OSError:
        return 0
    return flags


def relock(fd: int, flags: int) -> None:
    """Put flags that `unlock` returned back. Raises OSError."""
    _flags_ioctl(fd, _SET_FLAGS, flags)


@contextlib.contextmanager
def opened(root_fd: int, path: bytes, mode: int, nlink: int = 1) -> Iterator[Opened]:
    """Open the entry at `path` for metadata, whatever its kind; never through a symbolic link.

    Raises OSError, ESTALE if the entry is of another kind than `mode` says or has more names than `nlink`: then
    somebody has swapped it, perhaps for a file outside the target.
    """
    fd, handle = _open(root_fd, path, mode)
    try:
        found = os.fstat(fd)
        swapped = stat.S_IFMT(found.st_mode) != stat.S_IFMT(mode)
        if swapped or (not stat.S_ISDIR(mode) and found.st_nlink > max(nlink, 1)):
            raise OSError(errno.ESTALE, "changed by somebody else")
        yield Opened(handle, found)
    finally:
        os.close(fd)


def _open(root_fd: int, path: bytes, mode: int) -> tuple[int, Handle]:
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
        try:
            fd = open_beneath(root_fd, path, flags | (os.O_DIRECTORY if stat.S_ISDIR(mode) else 0))
            return fd, fd
        except PermissionError:
            pass  # our own file, but we may not read it: its metadata can be set all the same
    fd = open_beneath(root_fd, path, os.O_PATH | os.O_NOFOLLOW)
    return fd, b"/proc/self/fd/%d" % fd
