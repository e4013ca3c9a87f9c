"""Entries without content of their own: symbolic links, FIFOs, sockets, devices, and further names of a file."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from kernels import open_beneath
from model.entries import Kind
from sources.files.apply import Applier, Entry, opened, relock, unlock
from sources.files.existing import is_exactly_named, lstat_beneath, parent_fd, publish, remove_beneath, work_name
from sources.files.target_plan import Action, WindowPlan
from sources.files.target_writer import COLLISION

Make = Callable[[bytes, int], None]  # (name, directory descriptor)


class Name(NamedTuple):
    """A further name of the entry at `first`."""

    path: bytes
    first: bytes


class Links:
    """Groups of entries that are one inode: the first that is restored is made, the others become its further names.

    A group is known by device, inode, kind, size and mtime, so that a number used twice joins nothing that differs.
    """

    def __init__(self) -> None:
        self.names: list[Name] = []
        self._groups: dict[tuple[int, ...], tuple[bytes, int]] = {}  # → path of the first, names still to come

    def join(self, plan: WindowPlan) -> None:
        """Set `Action.LINK` on further names."""
        several = (plan.stat["nlink"] > 1) & (plan.kinds != Kind.DIRECTORY)
        for row in np.flatnonzero(several & ~np.isin(plan.action, (Action.FAIL, Action.KEEP))).tolist():
            stat = plan.stat[row]
            key = (int(plan.kinds[row]), *(int(stat[name]) for name in ("dev", "ino", "size", "mtime")))
            path = plan.paths[row]
            first, left = self._groups.get(key, (path, int(stat["nlink"])))
            if first != path:
                plan.action[row] = Action.LINK
                self.names.append(Name(path, first))
            if left > 1:
                self._groups[key] = first, left - 1
            else:
                self._groups.pop(key, None)


def make_node(root_fd: int, entry: Entry, action: Action, applier: Applier) -> list[str]:
    """Make a symbolic link, FIFO, socket or device with its metadata; what is the same already only gets metadata.

    Returns what did not work; raises OSError if the entry could not be made.
    """
    if action == Action.SAME and stat.S_ISLNK(entry.mode) and _target_of(root_fd, entry.path) != entry.target:
        action = Action.REPLACE
    if action == Action.SAME:
        return _finish(root_fd, entry.path, entry, applier)
    if action == Action.CREATE:
        try:
            _make_at(root_fd, entry.path, _maker(entry))
            return _finish(root_fd, entry.path, entry, applier)
        except FileExistsError:
            if not is_exactly_named(root_fd, entry.path):
                return [COLLISION]
    work = work_name(entry.path)
    try:
        _make_at(root_fd, work, _maker(entry))
    except FileExistsError:
        remove_beneath(root_fd, work)
        _make_at(root_fd, work, _maker(entry))
    troubles = _finish(root_fd, work, entry, applier)
    publish(root_fd, work, entry.path)
    return troubles


def make_name(root_fd: int, name: Name) -> str:
    """Link `name.path` to what is at `name.first`, replacing another file there. Returns "" or what did not work.

    Raises OSError. A link is made to the entry itself: never to what a symbolic link at `first` points to.
    """
    found = lstat_beneath(root_fd, name.first)
    if stat.S_ISDIR(found.st_mode):
        return "the entry it is another name of is now a directory"
    try:
        present = lstat_beneath(root_fd, name.path)
    except FileNotFoundError:
        _unlocked(root_fd, name.first, found, lambda: _link(root_fd, name.first, name.path))
        return ""
    if not is_exactly_named(root_fd, name.path):
        return COLLISION
    if (present.st_dev, present.st_ino) != (found.st_dev, found.st_ino):
        _unlocked(root_fd, name.first, found, lambda: _replace(root_fd, name))
    return ""


def _replace(root_fd: int, name: Name) -> None:
    work = work_name(name.path)
    try:
        _link(root_fd, name.first, work)
    except FileExistsError:
        remove_beneath(root_fd, work)
        _link(root_fd, name.first, work)
    publish(root_fd, work, name.path)


def _link(root_fd: int, first: bytes, path: bytes) -> None:
    source, old = parent_fd(root_fd, first)
    try:
        directory, new = parent_fd(root_fd, path)
        try:
            os.link(old, new, src_dir_fd=source, dst_dir_fd=directory, follow_symlinks=False)
        finally:
            os.close(directory)
    finally:
        os.close(source)


def _unlocked(root_fd: int, path: bytes, found: os.stat_result, link: Callable[[], None]) -> None:
    """Do something to the names of an inode that an immutable one does not allow: take that off for the moment."""
    try:
        link()
        return
    except PermissionError:
        if not stat.S_ISREG(found.st_mode):
            raise
    fd = open_beneath(root_fd, path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        flags = unlock(fd)
        link()
        if flags:
            relock(fd, flags)
    finally:
        os.close(fd)


def _maker(entry: Entry) -> Make:
    if stat.S_ISLNK(entry.mode):
        return lambda name, directory: os.symlink(entry.target, name, dir_fd=directory)
    private = stat.S_IFMT(entry.mode) | 0o600
    return lambda name, directory: os.mknod(name, private, entry.rdev, dir_fd=directory)


def _make_at(root_fd: int, path: bytes, make: Make) -> None:
    fd, name = parent_fd(root_fd, path)
    try:
        make(name, fd)
    finally:
        os.close(fd)


def _finish(root_fd: int, path: bytes, entry: Entry, applier: Applier) -> list[str]:
    with opened(root_fd, path, entry.mode, entry.nlink) as there:
        return applier.apply(there, entry)


def _target_of(root_fd: int, path: bytes) -> bytes:
    fd, name = parent_fd(root_fd, path)
    try:
        return os.readlink(name, dir_fd=fd)
    finally:
        os.close(fd)
