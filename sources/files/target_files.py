"""Files of a target, one step each: compared with what is there, begun, finished, set aside when damaged."""

from __future__ import annotations

import errno
import os
import stat as stat_of

import numpy as np

from kernels import read_files, stat_paths, write_files
from model.entries import I32, READ_HAS_XATTRS, Kind, Paths, Stats
from sources.files.apply import Applier, Opened, opened
from sources.files.columns import take
from sources.files.existing import (
    NAME_MAX,
    decide,
    is_exactly_named,
    lstat_beneath,
    publish,
    reason,
    remove_beneath,
    work_name,
)
from sources.files.target_plan import WRITE_BESIDE, Action, WindowPlan, parent_of
from sources.files.target_writer import COLLISION, TargetWriter, open_work

DAMAGED = b".damaged"
_METADATA = ("uid", "gid", "mtime", "atime")


def compare(root_fd: int, plan: WindowPlan, overwrite: str) -> Stats:
    """Decide each sound row by what the target holds; returns what was found (errno where nothing was)."""
    found = stat_paths(root_fd, plan.paths)
    decided = decide(plan.kinds, plan.stat, found, overwrite)
    plan.action = np.where(plan.action == Action.CREATE, decided, plan.action)
    _refuse_collisions(plan, found)
    return found


def _refuse_collisions(plan: WindowPlan, found: Stats) -> None:
    """Two entries of one directory that the file system takes for the same: the second must not replace the first."""
    single = np.flatnonzero((found["errno"] == 0) & ((found["nlink"] == 1) | (plan.kinds == Kind.DIRECTORY)))
    order = single[np.lexsort((single, found["ino"][single], found["dev"][single]))]
    same = (found["ino"][order][1:] == found["ino"][order][:-1]) & (found["dev"][order][1:] == found["dev"][order][:-1])
    for first, second in zip(order[:-1][same].tolist(), order[1:][same].tolist(), strict=True):
        if parent_of(plan.paths[first]) == parent_of(plan.paths[second]):
            plan.fail(second, COLLISION)


def look_after(root_fd: int, plan: WindowPlan, applier: Applier) -> dict[int, str]:
    """Correct the metadata of files that are there already. Returns row → what did not work."""
    rows = plan.rows(Kind.FILE, Action.SAME)
    found, _ = read_files(root_fd, take(plan.paths, rows), np.full(len(rows), -1, dtype=np.int64), bytearray())
    wanted = plan.stat[rows]
    differs = (found["errno"] != 0) | (found["flags"] & READ_HAS_XATTRS != 0) | (found["mode"] != wanted["mode"])
    differs |= (found["flags"] & ~np.uint32(READ_HAS_XATTRS)) != (wanted["flags"] & 0xFFFFFF)
    differs |= np.isin(rows, list(plan.xattrs))
    for name in _METADATA:
        differs |= found[name] != wanted[name]
    problems = {}
    for row in rows[differs].tolist():
        try:
            text = "; ".join(_apply(root_fd, plan, row, applier))
        except OSError as error:
            text = reason(error.errno or errno.EIO)
        if text:
            problems[row] = text
    return problems


def make_empty(writer: TargetWriter, plan: WindowPlan, rows: I32) -> dict[int, str]:
    """Make files without content. Returns row → what did not work."""
    nothing = np.zeros(len(rows), dtype=np.int64)
    failed = writer.write_batch(take(plan.paths, rows), b"", nothing, nothing, plan.stat[rows])
    return {int(rows[at]): text for at, text in failed.items()}


def begin(root_fd: int, plan: WindowPlan, rows: I32) -> dict[int, str]:
    """Make the work files of files that are written in parts. Returns row → why it could not be made."""
    works = [work_name(plan.paths[row]) for row in rows.tolist()]
    nothing = np.zeros(len(rows), dtype=np.int64)
    errors = write_files(root_fd, Paths.of(works), b"", nothing, nothing, plan.stat[rows], 0)
    problems = {}
    for at, row in enumerate(rows.tolist()):
        number = int(errors[at])
        if number == errno.EEXIST:  # an interrupted run has left it
            number = _begin_again(root_fd, works[at], plan.stat[row : row + 1])
        if number:
            problems[row] = reason(number)
        else:
            plan.begun.add(row)
    return problems


def _begin_again(root_fd: int, work: bytes, stat: Stats) -> int:
    try:
        remove_beneath(root_fd, work)
    except OSError as error:
        return error.errno or errno.EIO
    nothing = np.zeros(1, dtype=np.int64)
    return int(write_files(root_fd, Paths.of([work]), b"", nothing, nothing, stat, 0)[0])


def finish(root_fd: int, plan: WindowPlan, row: int, applier: Applier) -> list[str]:
    """Give a file whose content is there what is missing: its size, its metadata, its name.

    Returns what did not work; raises OSError if the file is not there under its name afterwards.
    """
    if row not in plan.begun:
        return _apply(root_fd, plan, row, applier)
    path = plan.paths[row]
    size = int(plan.stat["size"][row])
    fd = open_work(root_fd, path)
    try:
        found = os.fstat(fd)
        if found.st_size > size or (found.st_size < size and row not in plan.extents):
            raise OSError(errno.EIO, f"{found.st_size} bytes were written instead of {size}")
        if found.st_size < size:
            os.ftruncate(fd, size)
            found = os.fstat(fd)
        if plan.action[row] == Action.CREATE and not _is_free(root_fd, path):
            return [COLLISION]
        troubles = applier.apply(Opened(fd, found), plan.entry(row), keep_unlocked=True)
        publish(root_fd, work_name(path), path)
        plan.begun.discard(row)
        applier.lock(fd, plan.entry(row), troubles)
        return troubles
    finally:
        os.close(fd)


def set_aside(root_fd: int, plan: WindowPlan, row: int) -> str:
    """Keep what there is of a damaged file under another name, so that nobody takes it for whole."""
    path = plan.paths[row]
    directory, _, name = path.rpartition(b"/")
    aside = name[: NAME_MAX - len(DAMAGED)] + DAMAGED
    plan.begun.discard(row)
    try:
        fd = open_work(root_fd, path)
        empty = os.fstat(fd).st_size == 0
        os.close(fd)
        if empty:
            remove_beneath(root_fd, work_name(path))
            return ""
        publish(root_fd, work_name(path), directory + b"/" + aside if directory else aside)
    except OSError as error:
        return f"what there is of it could not be kept: {error.strerror}"
    return f"what there is of it is in {aside.decode('utf-8', 'backslashreplace')}"


def mark_replaced(plan: WindowPlan) -> None:
    """Files that have something in their way are written beside it."""
    rows = plan.rows(Kind.FILE, Action.REPLACE)
    plan.stat["flags"][rows] |= np.uint32(WRITE_BESIDE)


def _is_free(root_fd: int, path: bytes) -> bool:
    try:
        lstat_beneath(root_fd, path)
    except FileNotFoundError:
        return True
    return is_exactly_named(root_fd, path)


def _apply(root_fd: int, plan: WindowPlan, row: int, applier: Applier) -> list[str]:
    entry = plan.entry(row)
    with opened(root_fd, entry.path, stat_of.S_IFREG, entry.nlink) as there:
        return applier.apply(there, entry)
