"""What is in the target already: compared with what is to be restored, moved out of the way, removed.

Everything goes through directory descriptors opened beneath the root without following links. Nothing that exists is
written to: a file is replaced by a new one under the same name, so other names of the old one keep their content.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterator

import numpy as np

from kernels import list_directory, open_beneath
from model.entries import U8, Kind, Stats, kinds_of
from sources.files.apply import unlock
from sources.files.target_plan import Action

OVERWRITE = ("always", "if-changed", "if-newer", "never")
WORK_PREFIX = b".lox-restore-"
NAME_MAX = 255

MOUNT_POINT, EXCLUDED, NOT_EMPTIED = "a mount point", "excluded from the backup", "something in it is kept"
KEPT = (MOUNT_POINT, EXCLUDED, NOT_EMPTIED)

Keep = Callable[[bytes, bool], bool]  # (path, is it a directory) → must it survive --delete


def work_name(path: bytes) -> bytes:
    """Where a file is written before it gets its name: beside it, a name that fits every file system.

    The same for each run, so that a run finds what an interrupted one has left and starts it afresh.
    """
    directory = path[: len(path) - len(path.rpartition(b"/")[2])]
    return directory + WORK_PREFIX + hashlib.blake2b(path, digest_size=8).hexdigest().encode()


def decide(kinds: U8, wanted: Stats, found: Stats, overwrite: str) -> U8:
    """`Action` for each row by what was found at its path (`found.errno` not 0: nothing).

    A file is the same if size and mtime are (mtime is what a restore sets last, so an unfinished file never is), and if
    it has no more names than it should: content behind a foreign name is nobody's to trust or to change.
    """
    present = found["errno"] == 0
    same_kind = present & (kinds_of(found["mode"]) == kinds)
    same = same_kind.copy()
    files = kinds == Kind.FILE
    same_content = (found["size"] == wanted["size"]) & (found["mtime"] == wanted["mtime"])
    same &= ~files | same_content
    same &= (kinds == Kind.DIRECTORY) | (found["nlink"] <= np.maximum(wanted["nlink"], 1))
    devices = (kinds == Kind.CHAR_DEVICE) | (kinds == Kind.BLOCK_DEVICE)
    same &= ~devices | (found["rdev"] == wanted["rdev"])
    if overwrite == "always":
        same &= ~files
    action = np.where(same, Action.SAME, np.where(present, Action.REPLACE, Action.CREATE)).astype(np.uint8)
    if overwrite == "never":
        action[present] = Action.KEEP
    elif overwrite == "if-newer":
        not_newer = present & (wanted["mtime"] <= found["mtime"]) & (kinds != Kind.DIRECTORY)
        action[not_newer & ~(same & (wanted["mtime"] == found["mtime"]))] = Action.KEEP
    return action


class Clearing:
    """Removes entries below `root_fd` that are in the way or extraneous."""

    def __init__(self, root_fd: int, keep: Keep | None, dry_run: bool = False) -> None:
        self.root_fd = root_fd
        self.keep = keep
        self.dry_run = dry_run

    def make_way(self, path: bytes, whole_trees: bool) -> str:
        """Remove the entry at `path`; a directory that is not empty only if `whole_trees`. "" or why it stays."""
        if self.dry_run:
            return ""
        try:
            found = lstat_beneath(self.root_fd, path)
            if not stat.S_ISDIR(found.st_mode):
                remove_beneath(self.root_fd, path)
                return ""
            if not whole_trees:
                remove_beneath(self.root_fd, path, directory=True)
                return ""
        except FileNotFoundError:
            return ""
        except OSError as error:
            return f"what is there already is in the way: {error.strerror}"
        left = [text for _, text in self.remove_tree(path) if text]
        return f"what is there already is in the way: {left[0]}" if left else ""

    def remove_tree(self, path: bytes) -> Iterator[tuple[bytes, str]]:
        """Remove `path` with everything below, deepest first; yields (path, "" or why it was kept).

        Mount points are left alone, and so is what `keep` wants kept and the directories above that. Raises OSError
        if the directory that holds `path` cannot be read.
        """
        device = lstat_beneath(self.root_fd, path.rpartition(b"/")[0]).st_dev
        pending: list[tuple[bytes, bool]] = [(path, False)]
        kept: set[bytes] = set()  # directories with something left in them
        while pending:
            current, emptied = pending.pop()
            text = self._remove_one(current, device, emptied, pending, kept)
            if text is None:
                continue
            if text:
                kept.add(current.rpartition(b"/")[0])
            yield current, text

    def _remove_one(
        self, path: bytes, device: int, emptied: bool, pending: list[tuple[bytes, bool]], kept: set[bytes]
    ) -> str | None:
        """Remove an entry, or put a directory's content before it (None). Else "" or why it stays."""
        try:
            found = lstat_beneath(self.root_fd, path)
            is_directory = stat.S_ISDIR(found.st_mode)
            if not emptied and self.keep is not None and self.keep(path, is_directory):
                return EXCLUDED
            if is_directory and found.st_dev != device:
                return MOUNT_POINT
            if is_directory and not emptied:
                pending.append((path, True))
                pending.extend((path + b"/" + name, False) for name in names_beneath(self.root_fd, path))
                return None
            if path in kept:
                return NOT_EMPTIED
            if not self.dry_run:
                remove_beneath(self.root_fd, path, directory=is_directory)
        except FileNotFoundError:
            return ""
        except OSError as error:
            return error.strerror or str(error)
        return ""


def parent_fd(root_fd: int, path: bytes) -> tuple[int, bytes]:
    """A descriptor (to be closed) of the directory that holds `path`, and the name in it. Raises OSError."""
    directory, _, name = path.rpartition(b"/")
    return open_beneath(root_fd, directory, os.O_RDONLY | os.O_DIRECTORY), name


def lstat_beneath(root_fd: int, path: bytes) -> os.stat_result:
    """lstat of a path of any length. Raises OSError."""
    fd = open_beneath(root_fd, path, os.O_PATH | os.O_NOFOLLOW)
    try:
        return os.fstat(fd)
    finally:
        os.close(fd)


def names_beneath(root_fd: int, path: bytes) -> list[bytes]:
    """Names in a directory. Raises OSError."""
    fd = open_beneath(root_fd, path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        names, _ = list_directory(fd)
        return list(names)
    finally:
        os.close(fd)


def is_exactly_named(root_fd: int, path: bytes) -> bool:
    """Whether the entry there is listed by this very name; else the file system took another name for the same."""
    directory, _, name = path.rpartition(b"/")
    try:
        return name in names_beneath(root_fd, directory)
    except OSError:
        return False


def remove_beneath(root_fd: int, path: bytes, *, directory: bool = False) -> None:
    """Unlink or rmdir one entry, taking an immutable flag off if that is what keeps it. Raises OSError."""
    fd, name = parent_fd(root_fd, path)
    try:
        remove: Callable[..., None] = os.rmdir if directory else os.unlink
        try:
            remove(name, dir_fd=fd)
        except PermissionError:
            if not _unlock_both(root_fd, path, fd):
                raise
            remove(name, dir_fd=fd)
    finally:
        os.close(fd)


def publish(root_fd: int, work: bytes, path: bytes) -> None:
    """Give a work file its name, replacing what is there (not a directory). Raises OSError."""
    fd, name = parent_fd(root_fd, path)
    try:
        old = work.rpartition(b"/")[2]
        try:
            os.rename(old, name, src_dir_fd=fd, dst_dir_fd=fd)
        except PermissionError:
            if not _unlock_both(root_fd, path, fd):
                raise
            os.rename(old, name, src_dir_fd=fd, dst_dir_fd=fd)
    finally:
        os.close(fd)


def _unlock_both(root_fd: int, path: bytes, directory_fd: int) -> bool:
    """Take immutable and append-only off an entry and its directory; whether that changed anything."""
    changed = unlock(directory_fd) != 0
    try:
        mode = lstat_beneath(root_fd, path).st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # to open a device can act on it
            return changed
        fd = open_beneath(root_fd, path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        return changed
    try:
        return unlock(fd) != 0 or changed
    finally:
        os.close(fd)


def reason(number: int) -> str:
    """An errno as the text of a problem."""
    if number == errno.ENOENT:
        return "its directory is not there"
    if number in (errno.ELOOP, errno.ENOTDIR):
        return "its path leads through something that is not a directory"
    return os.strerror(number)
