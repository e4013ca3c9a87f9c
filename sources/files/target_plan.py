"""What a restore is to do with a window of entries, as columns: the manifest's rows, checked and made fit for here.

"Fit for here" means: owners mapped to this host and to what this user may set, set-id bits cut where the owner cannot
be had. Nothing in this file touches the file system.
"""

from __future__ import annotations

import grp
import os
import pwd
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from kernels import SETTABLE_FLAGS
from model.entries import I32, I64, STAT, U8, U32, Bool, Kind, Paths, Stats
from sources.files.apply import Entry
from sources.files.columns import from_arrow

# In the `flags` of a planned row, above the inode flags: how a writer is to treat the file.
WRITE_BESIDE = 1 << 24  # something is there already: write a work file and rename it
WRITE_LATER = 1 << 25  # has xattrs or inode flags, which the driver sets when the content is there

BAD_NAME = rb"(\A|/)\.{0,2}(/|\z)|\x00"  # empty, "." and ".." components, leading and trailing slashes, NUL
_FORMATS = np.array([0o10, 0o04, 0o12, 0o01, 0o02, 0o06, 0o14, 0], dtype=np.uint32) << 12  # by Kind
_SETUID, _SETGID = 0o4000, 0o2000


class Action(IntEnum):
    """What is done with an entry."""

    FAIL = 0  # cannot be restored; the plan's problems say why
    KEEP = 1  # what is there is kept as it is, by the overwrite policy
    SAME = 2  # is there already; only its metadata is looked after
    CREATE = 3
    REPLACE = 4
    LINK = 5  # another name of an entry before it


@dataclass(slots=True, eq=False)
class WindowPlan:
    """n entries in manifest order and what is to happen with each.

    `stat` is what the entries are to become (not what the manifest says): its `flags` hold inode flags and WRITE_*
    marks. The sparse columns hold only rows that have such a thing.
    """

    entries: pa.Table
    paths: Paths
    kinds: U8
    stat: Stats
    action: U8
    xattrs: dict[int, list[tuple[bytes, bytes]]] = field(default_factory=dict)
    targets: dict[int, bytes] = field(default_factory=dict)
    extents: dict[int, I64] = field(default_factory=dict)
    problems: dict[int, str] = field(default_factory=dict)
    begun: set[int] = field(default_factory=set)  # rows whose work file exists
    left: I64 = field(default_factory=lambda: np.zeros(0, dtype=np.int64))  # content bytes to come; 0 when finished
    reported: set[int] = field(default_factory=set)  # rows whose problem is in the summary
    accepted: set[int] = field(default_factory=set)  # orders (seq) that were written and counted

    def __len__(self) -> int:
        return len(self.stat)

    @property
    def fetch(self) -> I32:
        """Rows of files whose content has to be brought and written."""
        return self.rows(Kind.FILE, Action.CREATE, Action.REPLACE, where=self.content_size > 0)

    @property
    def content_size(self) -> I64:
        """Bytes of content of each row: of a sparse file only its data."""
        size: I64 = np.where(self.kinds == Kind.FILE, self.stat["size"], 0).astype(np.int64)
        for row, extents in self.extents.items():
            size[row] = int(extents[:, 1].sum())
        return size

    def rows(self, kind: Kind, *actions: Action, where: Bool | None = None) -> I32:
        """Rows of one kind with one of the actions."""
        mask = (self.kinds == kind) & np.isin(self.action, actions)
        if where is not None:
            mask &= where
        return np.flatnonzero(mask).astype(np.int32)

    def entry(self, row: int) -> Entry:
        """One row, taken out of its columns."""
        mode, uid, gid, nlink, size, mtime, _, atime, _, _, rdev, _, _, flags = self.stat[row].item()
        return Entry(
            path=self.paths[row],
            mode=mode,
            uid=uid,
            gid=gid,
            size=size,
            mtime=mtime,
            atime=atime,
            rdev=rdev,
            flags=flags & SETTABLE_FLAGS,
            nlink=nlink,
            xattrs=self.xattrs.get(row, ()),
            target=self.targets.get(row, b""),
        )

    def items(self) -> Iterator[tuple[bytes, str, int]]:
        """(path, what is done, bytes) of every row, for a report."""
        for path, action, size in zip(self.paths, self.action.tolist(), self.content_size.tolist(), strict=True):
            yield path, Action(action).name.lower(), size

    def fail(self, row: int, text: str) -> None:
        """The row is not restored."""
        self.action[row] = Action.FAIL
        self.problems[row] = text


@dataclass(frozen=True, slots=True)
class Ownership:
    """Who is to own what: as recorded, as far as this user may. Mode bits follow, see `apply`."""

    owner: bool = True
    numeric: bool = False
    privileges: bool = True
    umask: int | None = None  # no permissions are wanted: of modes keep what this leaves, of all else nothing

    def apply(self, table: pa.Table, stat: Stats, notes: Counter[str]) -> None:
        """Set uid, gid and mode of `stat` to what can be had here; what is lost is counted in `notes`."""
        if self.umask is not None:
            stat["uid"], stat["gid"], stat["flags"] = os.geteuid(), os.getegid(), 0
            stat["mode"] &= np.uint32(0o170000 | 0o777 & ~self.umask)
            return
        uid, gid = stat["uid"].copy(), stat["gid"].copy()
        if self.owner and not self.numeric:
            uid = _by_name(table.column("user"), uid, _uid_of)
            gid = _by_name(table.column("group"), gid, _gid_of)
        wanted_uid, wanted_gid = uid, gid
        if not self.owner or os.geteuid() != 0:
            own_groups = [os.getegid(), *os.getgroups()] if self.owner else []
            uid = np.full_like(uid, os.geteuid())
            gid = np.where(np.isin(gid, own_groups), gid, np.uint32(os.getegid()))
        lost_uid, lost_gid = uid != wanted_uid, gid != wanted_gid
        if self.owner:
            notes["owner or group not restored: not root"] += int((lost_uid | lost_gid).sum())
        stat["uid"], stat["gid"] = uid, gid
        self._cut_set_id(stat, lost_uid, lost_gid, notes)

    def _cut_set_id(self, stat: Stats, lost_uid: Bool, lost_gid: Bool, notes: Counter[str]) -> None:
        """A set-id program of somebody else must not become one of the user who restores it."""
        mode = stat["mode"]
        program = (mode & 0o170000) == 0o100000
        cut = np.where(program & (lost_uid | (not self.privileges)), np.uint32(_SETUID), np.uint32(0))
        cut |= np.where(program & (lost_gid | (not self.privileges)), np.uint32(_SETGID), np.uint32(0))
        notes["set-id bits left out"] += int(np.count_nonzero(mode & cut))
        stat["mode"] = mode & ~cut


def plan_window(table: pa.Table, ownership: Ownership, notes: Counter[str]) -> WindowPlan:
    """The plan of a window for an empty target: everything that is sound is created.

    Rows that are not sound (bad names, sizes that do not add up, files that were never read) get `Action.FAIL`.
    """
    table = table.combine_chunks()
    kinds = _numbers(table, "kind", np.uint8)
    kinds = np.where(kinds > Kind.UNKNOWN, np.uint8(Kind.UNKNOWN), kinds)
    stat = stats_of(table, kinds)
    plan = WindowPlan(table, from_arrow(table.column("path")), kinds, stat, np.full(len(stat), Action.CREATE, np.uint8))
    for row in _given(table, "xattrs") if ownership.umask is None else ():
        if pairs := table.column("xattrs")[row].as_py():
            plan.xattrs[row] = [(x["name"], x["value"]) for x in pairs]
    for row in _given(table, "target"):
        plan.targets[row] = table.column("target")[row].as_py()
    for row in _given(table, "extents"):
        ranges = [(x["offset"], x["length"]) for x in table.column("extents")[row].as_py()]
        plan.extents[row] = np.array(ranges, dtype=np.int64).reshape(-1, 2)
    ownership.apply(table, stat, notes)
    later = (stat["flags"] & SETTABLE_FLAGS) != 0
    later[list(plan.xattrs)] = True
    stat["flags"] |= np.where(later, np.uint32(WRITE_LATER), np.uint32(0))
    _refuse_unsound(plan)
    return plan


def stats_of(table: pa.Table, kinds: U8) -> Stats:
    """Entries as STAT rows; the format bits of the mode follow the kind, whatever the mode column says."""
    stat = np.zeros(table.num_rows, dtype=STAT)
    for name in ("uid", "gid", "nlink", "size", "mtime", "ctime", "atime", "ino", "rdev"):
        stat[name] = _numbers(table, name, STAT[name])
    stat["dev"] = _numbers(table, "device", np.uint64)
    stat["mode"] = _numbers(table, "mode", np.uint32) & 0o7777 | _FORMATS[kinds]
    stat["flags"] = _numbers(table, "flags", np.uint32) & SETTABLE_FLAGS
    return stat


def parent_of(path: bytes) -> bytes:
    """The directory an entry lies in: ``b""`` for the top."""
    return path.rpartition(b"/")[0]


def runs_by_directory(paths: Paths) -> list[tuple[bytes, int, int]]:
    """(directory, first row, row after the last) of each run of neighbours in the same directory."""
    if not len(paths):
        return []
    starts = paths.offsets[:-1].tolist()
    cuts = _last_slashes(paths).tolist()
    blob = paths.blob
    runs: list[tuple[bytes, int, int]] = []
    first, current = 0, blob[starts[0] : cuts[0]]
    for row in range(1, len(starts)):
        directory = blob[starts[row] : cuts[row]]
        if directory != current:
            runs.append((current, first, row))
            first, current = row, directory
    runs.append((current, first, len(starts)))
    return runs


def _last_slashes(paths: Paths) -> npt.NDArray[np.int64]:
    """Place in the blob of the last slash of each row; its start where it has none."""
    starts, ends = paths.offsets[:-1].astype(np.int64), paths.offsets[1:].astype(np.int64)
    slashes = np.flatnonzero(np.frombuffer(paths.blob, dtype=np.uint8) == ord("/"))
    if not len(slashes):
        return starts
    found = slashes[np.maximum(np.searchsorted(slashes, ends) - 1, 0)]
    return np.where((found >= starts) & (found < ends), found, starts)


def _refuse_unsound(plan: WindowPlan) -> None:
    bad_names = pc.match_substring_regex(plan.entries.column("path"), BAD_NAME.decode()).to_numpy()
    bad_names &= np.diff(plan.paths.offsets) > 0  # the empty path is the top itself
    for row in np.flatnonzero(bad_names).tolist():
        plan.fail(row, "not a name that can be restored")
    for row in np.flatnonzero(plan.kinds == Kind.UNKNOWN).tolist():
        plan.fail(row, "of an unknown kind")
    for row, extents in plan.extents.items():
        if not _extents_fit(extents, int(plan.stat["size"][row])):
            plan.fail(row, "the snapshot's record of its holes is inconsistent")
    chunks, stored, depth = _content_of(plan.entries)
    files = (plan.kinds == Kind.FILE) & (plan.action != Action.FAIL)
    short = files & (depth == 0) & (stored != plan.content_size)
    unread = files & plan.entries.column("problem").is_valid().to_numpy() & (short | (chunks == 0))
    for row in np.flatnonzero(unread).tolist():
        plan.fail(row, f"not in the snapshot: {_display(plan.entries.column('problem')[row].as_py())}")
    for row in np.flatnonzero(short & ~unread).tolist():
        plan.fail(row, "the snapshot's record of its content is inconsistent")


def unlisted_folders(plan: WindowPlan) -> dict[int, str]:
    """Directories the backup could not look into, as far as that goes: they are restored, and some of them is not."""
    problems = plan.entries.column("problem")
    rows = np.flatnonzero((plan.kinds == Kind.DIRECTORY) & problems.is_valid().to_numpy()).tolist()
    return {row: f"not all of it is in the snapshot: {_display(problems[row].as_py())}" for row in rows}


def _content_of(table: pa.Table) -> tuple[I64, I64, U8]:
    """Of each row: number of chunks, their bytes, depth of the chunk list."""
    lists = _array(table.column("lengths"))
    counts = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    sums = np.concatenate([[0], np.cumsum(lists.flatten().to_numpy(zero_copy_only=False).astype(np.int64))])
    ends = np.cumsum(counts)
    return counts, sums[ends] - sums[ends - counts], _numbers(table, "depth", np.uint8)


def _extents_fit(extents: I64, size: int) -> bool:
    """Data ranges must be ascending, apart, not empty, and inside the file."""
    offset, length = extents[:, 0], extents[:, 1]
    if len(extents) == 0:
        return True
    if (offset < 0).any() or (length <= 0).any() or (length > size).any() or (offset > size - length).any():
        return False
    return bool((offset[1:] >= offset[:-1] + length[:-1]).all())


def _array(column: pa.ChunkedArray) -> pa.Array:
    array = column.combine_chunks()
    return array if isinstance(array, pa.Array) else pa.array([], column.type)  # some versions, if there is no chunk


def _numbers(table: pa.Table, name: str, dtype: Any) -> Any:
    return table.column(name).to_numpy().astype(dtype, copy=False)


def _given(table: pa.Table, name: str) -> list[int]:
    """Rows whose nullable column has a value (an empty list of extents is one: a file that is all hole)."""
    return np.flatnonzero(table.column(name).is_valid().to_numpy()).tolist()


def _display(text: bytes | str) -> str:
    return text if isinstance(text, str) else text.decode("utf-8", "backslashreplace")


def _by_name(names: pa.ChunkedArray, numbers: U32, find: Callable[[bytes], int | None]) -> U32:
    """Numbers of the names as this host knows them; the recorded number where it does not (or there is no name)."""
    coded = _array(names).dictionary_encode()
    known = [find(name) if name else None for name in coded.dictionary.to_pylist()]
    local = np.array([-1 if number is None else number for number in known] + [-1], dtype=np.int64)
    codes = pc.fill_null(coded.indices, len(known)).to_numpy(zero_copy_only=False)
    mapped = local[codes]
    return np.where(mapped >= 0, mapped, numbers).astype(np.uint32)


@cache
def _uid_of(name: bytes) -> int | None:
    try:
        return pwd.getpwnam(os.fsdecode(name)).pw_uid
    except KeyError:
        return None


@cache
def _gid_of(name: bytes) -> int | None:
    try:
        return grp.getgrnam(os.fsdecode(name)).gr_gid
    except KeyError:
        return None
