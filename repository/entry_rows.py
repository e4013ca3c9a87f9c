"""How fresh entries become rows of the manifest: columns are made at once, not row by row."""

from __future__ import annotations

import grp
import pwd
from collections.abc import Callable, Mapping
from functools import lru_cache

import numpy as np
import pyarrow as pa

from model.entries import I32, INODE_FLAGS, U32, Fresh, Kind
from model.errors import RunFailed
from repository.entry_checks import entry_fault, path_fault
from repository.entry_table import ENTRY_SCHEMA, ChunkLists, binary_array, id_array

INCOMPLETE = "content is incomplete"
_FROM_STAT = ("mode", "uid", "gid", "size", "mtime", "ctime", "atime", "ino", "nlink", "rdev")


def fresh_table(fresh: Fresh, lists: ChunkLists) -> pa.Table:
    """Rows of `ENTRY_SCHEMA` from fresh entries and the chunks of each.

    A file without a problem whose chunks do not add up to its size is given one: no manifest promises content that
    is not there. Raises RunFailed for a row that no reader would accept.
    """
    lists = lists.settled()
    stat = fresh.stat
    rows = len(stat)
    columns = {name: pa.array(np.ascontiguousarray(stat[name])) for name in _FROM_STAT}
    columns |= {
        "path": binary_array(fresh.paths),
        "kind": pa.array(fresh.kinds),
        "user": _names(stat["uid"], _user_name),
        "group": _names(stat["gid"], _group_name),
        "device": pa.array(fresh.device.astype(np.uint32, copy=False)),
        "flags": pa.array(stat["flags"] & np.uint32(INODE_FLAGS)),
        "target": _sparse(rows, fresh.targets, "target"),
        "xattrs": _sparse(rows, fresh.xattrs, "xattrs"),
        "extents": _sparse(
            rows, {row: [*map(tuple, pairs.tolist())] for row, pairs in fresh.extents.items()}, "extents"
        ),
        "chunks": _lists(lists.offsets, id_array(lists.ids)),
        "lengths": _lists(lists.offsets, pa.array(lists.length.astype(np.uint32, copy=False))),
        "depth": pa.array(lists.depth),
        "problem": _sparse(rows, _problems(fresh, lists), "problem"),
    }
    table = pa.table([columns[name] for name in ENTRY_SCHEMA.names], schema=ENTRY_SCHEMA)
    if fault := path_fault(fresh.paths):
        raise RunFailed("an entry cannot be stored", subject=fault[1].decode(errors="replace"), why=fault[0])
    if wrong := entry_fault(table):
        path = fresh.paths[wrong[1]]
        raise RunFailed("an entry cannot be stored", subject=path.decode(errors="replace"), why=wrong[0])
    return table


def _problems(fresh: Fresh, lists: ChunkLists) -> Mapping[int, bytes]:
    problems = {row: text.encode(errors="replace") for row, text in fresh.problems.items()}
    wanted = np.where(fresh.kinds == Kind.FILE, fresh.stat["size"], 0)
    for row, pairs in fresh.extents.items():
        wanted[row] = pairs[:, 1].sum()
    ends = np.concatenate([[0], np.cumsum(lists.length, dtype=np.int64)])
    held = ends[lists.offsets[1:]] - ends[lists.offsets[:-1]]
    for row in np.flatnonzero((held != wanted) & (lists.depth == 0)).tolist():
        problems.setdefault(row, INCOMPLETE.encode())
    return problems


def _lists(offsets: I32, values: pa.Array) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array(offsets), values)


def _sparse(rows: int, values: Mapping[int, object], name: str) -> pa.Array:
    kind = ENTRY_SCHEMA.field(name).type
    if not values:
        return pa.nulls(rows, kind)
    return pa.array([values.get(row) for row in range(rows)], kind)


def _names(numbers: U32, name_of: Callable[[int], bytes]) -> pa.Array:
    distinct, row = np.unique(numbers, return_inverse=True)
    return pa.array([name_of(int(number)) for number in distinct], pa.binary()).take(pa.array(row))


@lru_cache(maxsize=4096)
def _user_name(uid: int) -> bytes:
    try:
        return pwd.getpwuid(uid).pw_name.encode("utf-8", "surrogateescape")
    except (KeyError, OverflowError):
        return b""


@lru_cache(maxsize=4096)
def _group_name(gid: int) -> bytes:
    try:
        return grp.getgrgid(gid).gr_name.encode("utf-8", "surrogateescape")
    except (KeyError, OverflowError):
        return b""
