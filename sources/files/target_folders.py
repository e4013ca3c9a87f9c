"""Directories of a target: made before what lies in them, given their metadata after everything else, deepest first.

Also the one who knows which names belong into each directory, for ``--delete``.
"""

from __future__ import annotations

import errno
import os
import stat
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from kernels import create_directories, open_beneath
from model.entries import I32, Kind, Paths, Stats
from sources.files.apply import Applier, Entry, opened, unlock
from sources.files.columns import take
from sources.files.existing import Clearing, is_exactly_named, lstat_beneath, names_beneath, reason
from sources.files.target_plan import WRITE_LATER, Action, WindowPlan, parent_of
from sources.files.target_writer import COLLISION

LOST_PARENT = "its directory could not be restored"
_ACLS = ("system.posix_acl_default", "system.posix_acl_access")


@dataclass(slots=True, eq=False)
class _Pending:
    """Directories of one window that still need their metadata."""

    paths: Paths
    stat: Stats
    special: dict[int, Entry] = field(default_factory=dict)  # those with more than owner, mode and times


class Folders:
    """The directories below `root_fd` that this restore knows."""

    def __init__(self, root_fd: int, *, top: bool, dry_run: bool) -> None:
        self.root_fd = root_fd
        self._top = top  # whether the top itself takes the metadata of the entry b""
        self._dry_run = dry_run
        self._known: set[bytes] = {b""}
        self._blocked: set[bytes] = set()
        self._inheriting: set[bytes] = set()  # have a default ACL that new entries would take over
        self._pending: list[_Pending] = []
        if root_fd >= 0 and self._has_default_acl(root_fd):
            self._inheriting.add(b"")

    def make(self, plan: WindowPlan, runs: list[tuple[bytes, int, int]], clearing: Clearing) -> None:
        """Make the directories of a window and whatever is missing above; fail the rows that cannot have theirs."""
        rows = plan.rows(Kind.DIRECTORY, Action.CREATE, Action.REPLACE, Action.SAME, Action.KEEP)
        own = {plan.paths[row] for row in rows.tolist()}
        for directory, _, _ in runs:
            if directory not in self._known and directory not in self._blocked and directory not in own:
                self._make_ancestor(directory)
        self._make_rows(plan, clearing)
        self._spread_blocks(plan, runs)
        for directory, first, end in runs if self._inheriting else ():
            if directory in self._inheriting:
                plan.stat["flags"][first:end] |= WRITE_LATER

    def knows(self, directory: bytes) -> bool:
        """Whether the directory is there and ours to write to."""
        return directory in self._known and directory not in self._blocked

    def defer(self, plan: WindowPlan, existing: bool = True) -> None:
        """Remember the metadata of a window's directories for `finish`; of `existing` ones only if wanted."""
        rows = plan.rows(Kind.DIRECTORY, Action.CREATE, *([Action.SAME] if existing else []))
        if not self._top:
            rows = rows[np.diff(plan.paths.offsets)[rows] > 0]
        special = plan.stat["flags"][rows] != 0
        special |= (plan.action[rows] == Action.SAME) | np.isin(rows, list(plan.xattrs))
        entries = {int(at): plan.entry(int(rows[at])) for at in np.flatnonzero(special)}
        self._pending.append(_Pending(take(plan.paths, rows), plan.stat[rows], entries))

    def finish(self, applier: Applier) -> Iterator[tuple[bytes, str]]:
        """Give every directory its metadata, deepest first; yields (path, "" or what did not work)."""
        while self._pending:
            pending = self._pending.pop()
            paths = list(pending.paths)
            owners = pending.stat[["uid", "gid"]].tolist()
            modes = (pending.stat["mode"] & 0o7777).tolist()
            times = pending.stat[["atime", "mtime"]].tolist()
            for row in range(len(paths) - 1, -1, -1):
                text = ""
                try:
                    if self._dry_run:
                        pass
                    elif row in pending.special:
                        text = self._finish_special(pending.special[row], applier)
                    else:
                        text = self._finish_plain(paths[row], owners[row], modes[row], times[row])
                except OSError as error:
                    text = reason(error.errno or errno.EIO)
                yield paths[row], text

    def _finish_plain(self, path: bytes, owner: tuple[int, int], mode: int, times: tuple[int, int]) -> str:
        fd = open_beneath(self.root_fd, path, os.O_RDONLY | os.O_DIRECTORY)
        text = ""
        try:
            try:
                os.fchown(fd, *owner)
            except OSError as error:
                text = f"owner not restored: {error.strerror}"
            os.fchmod(fd, mode)
            os.utime(fd, ns=times)
        finally:
            os.close(fd)
        return text

    def _finish_special(self, entry: Entry, applier: Applier) -> str:
        with opened(self.root_fd, entry.path, entry.mode) as there:
            return "; ".join(applier.apply(there, entry))

    def _make_rows(self, plan: WindowPlan, clearing: Clearing) -> None:
        for row in plan.rows(Kind.DIRECTORY, Action.REPLACE).tolist():
            text = clearing.make_way(plan.paths[row], whole_trees=False)
            if text:
                self._block(plan, row, text)
            else:
                plan.action[row] = Action.CREATE
        for row in plan.rows(Kind.DIRECTORY, Action.SAME, Action.KEEP).tolist():
            self._enter(plan, row, touch=not self._dry_run and plan.action[row] == Action.SAME)
        rows = plan.rows(Kind.DIRECTORY, Action.CREATE)
        rows = self._without_top(plan, rows)
        paths = take(plan.paths, rows)
        self._known.update(paths)
        if self._dry_run:
            return
        errors = create_directories(self.root_fd, paths)
        for at in np.flatnonzero(errors).tolist():
            self._was_not_made(plan, int(rows[at]), int(errors[at]))
        if self._inheriting:
            for row in rows.tolist():
                if parent_of(plan.paths[row]) in self._inheriting:
                    self._disinherit(plan.paths[row])

    def _without_top(self, plan: WindowPlan, rows: I32) -> I32:
        """The top is there, however the plan found that out."""
        tops = np.diff(plan.paths.offsets)[rows] == 0
        plan.action[rows[tops]] = Action.SAME
        others: I32 = rows[~tops]
        return others

    def _was_not_made(self, plan: WindowPlan, row: int, error: int) -> None:
        path = plan.paths[row]
        text = reason(error)
        if error == errno.EEXIST:
            try:
                is_directory = stat.S_ISDIR(lstat_beneath(self.root_fd, path).st_mode)
            except OSError:
                is_directory = False
            if not is_exactly_named(self.root_fd, path):
                text = COLLISION
            elif is_directory:
                plan.action[row] = Action.SAME
                self._enter(plan, row, touch=True)
                return
        self._block(plan, row, text)

    def _enter(self, plan: WindowPlan, row: int, touch: bool) -> None:
        """An existing directory: see to it that things can be made in it (if we may `touch` it)."""
        path = plan.paths[row]
        try:
            with opened(self.root_fd, path, stat.S_IFDIR) as (handle, found):
                if touch and os.geteuid() != 0 and found.st_mode & 0o700 != 0o700:
                    os.chmod(handle, stat.S_IMODE(found.st_mode) | 0o700)
                if touch and isinstance(handle, int):
                    unlock(handle)
                if isinstance(handle, int) and self._has_default_acl(handle):
                    self._inheriting.add(path)
        except PermissionError:
            pass  # not ours: what cannot be made in it will be reported one by one
        except OSError as error:
            other = error.errno in (errno.ENOTDIR, errno.ELOOP, errno.ESTALE)
            self._block(plan, row, "what is there is not a directory" if other else reason(error.errno or errno.EIO))
            return
        self._known.add(path)

    def _make_ancestor(self, path: bytes) -> None:
        """A directory no row describes: 0700, because nobody says who else may enter."""
        missing = []
        while path not in self._known and path not in self._blocked:
            missing.append(path)
            path = parent_of(path)
        if self._dry_run:
            self._known.update(missing)
            return
        paths = Paths.of(reversed(missing))
        for directory, error in zip(paths, create_directories(self.root_fd, paths).tolist(), strict=True):
            if error and not self._is_directory(directory):
                self._blocked.add(directory)
            else:
                self._known.add(directory)

    def _is_directory(self, path: bytes) -> bool:
        try:
            return stat.S_ISDIR(lstat_beneath(self.root_fd, path).st_mode)
        except OSError:
            return False

    def _block(self, plan: WindowPlan, row: int, text: str) -> None:
        plan.fail(row, text)
        self._blocked.add(plan.paths[row])
        self._known.discard(plan.paths[row])

    def _spread_blocks(self, plan: WindowPlan, runs: list[tuple[bytes, int, int]]) -> None:
        for directory, first, end in runs if self._blocked else ():
            if directory in self._blocked:
                for row in range(first, end):
                    if plan.action[row] != Action.FAIL:
                        plan.fail(row, LOST_PARENT)
                    if plan.kinds[row] == Kind.DIRECTORY:
                        self._blocked.add(plan.paths[row])

    @staticmethod
    def _has_default_acl(fd: int) -> bool:
        try:
            return bool(os.getxattr(fd, _ACLS[0]))
        except OSError:
            return False

    def _disinherit(self, path: bytes) -> None:
        """Take the ACLs off a new directory that it got from the one it lies in."""
        with opened(self.root_fd, path, stat.S_IFDIR) as (handle, _):
            for name in _ACLS:
                try:
                    os.removexattr(handle, name)
                except OSError:
                    pass


class Names:
    """Which names a snapshot has in each directory, as 64-bit hashes: 8 bytes an entry.

    A collision of hashes spares an entry from deletion; it can never cause one.
    """

    def __init__(self, complete: tuple[bytes, ...]) -> None:
        self._complete = complete
        self._names: dict[bytes, array[int] | None] = {}

    def note(self, plan: WindowPlan, runs: list[tuple[bytes, int, int]]) -> None:
        """Take in a window: rows of any action count, also those that fail."""
        unread = plan.entries.column("problem").is_valid().to_numpy()
        for row in np.flatnonzero(plan.kinds == Kind.DIRECTORY).tolist():
            if unread[row]:
                self._names[plan.paths[row]] = None  # nobody knows what was in it
            else:
                self._names.setdefault(plan.paths[row], array("q"))
        for directory, first, end in runs:
            skip = len(directory) + 1 if directory else 0
            known = self._names.setdefault(directory, array("q"))
            if known is not None:
                known.extend([hash(plan.paths[row][skip:]) for row in range(first, end)])

    def extraneous(self, root_fd: int, directories: Folders) -> Iterator[bytes]:
        """Paths in the target that the snapshot does not have, in directories it knows completely."""
        for directory, hashes in self._names.items():
            if hashes is None or not self._is_complete(directory) or not directories.knows(directory):
                continue
            known = set(hashes)
            prefix = directory + b"/" if directory else b""
            try:
                names = names_beneath(root_fd, directory)
            except OSError:
                continue
            yield from (prefix + name for name in names if hash(name) not in known)

    def _is_complete(self, directory: bytes) -> bool:
        return any(is_below(directory, top) for top in self._complete)


def is_below(path: bytes, top: bytes) -> bool:
    """Whether `path` is `top` or lies below it; everything lies below ``b""``."""
    return not top or path == top or path.startswith(top + b"/")


def complete_below(roots: tuple[bytes, ...], selected: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """Paths below which a restore knows everything there should be: backed up (`roots`) and `selected` (all: empty).

    Directories above are only there as the way to them, so nothing may be deleted in these.
    """
    found = set()
    for root in roots:
        for path in selected or (b"",):
            if is_below(root, path):
                found.add(root)
            elif is_below(path, root):
                found.add(path)
    return tuple(sorted(found))
