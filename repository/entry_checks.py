"""Checks of entries that come from a repository: nothing in them is believed because it decodes."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from model.entries import I64, U8, Bool, Kind, Paths, kinds_of, order_key
from repository.entry_table import chunks_of, column, content_sizes, paths_of, present

PATH_MAX = 1 << 20  # bytes of a path
XATTR_NAME_MAX = 255

_SLASH, _DOT = ord("/"), ord(".")
# Manifest order as the order of plain bytes: "/" becomes 1 and sorts before all of a name, and the last one of a path
# becomes 0, so that all of a directory sorts before what is below it. Names have no 0; 1..46 make room by moving up.
_ORDERED = bytes([0, *range(2, 48), 1, *range(48, 256)])
assert len(_ORDERED) == 256 and _ORDERED[_SLASH] == 1


def order_fault(paths: Paths, before: bytes | None) -> tuple[str, bytes] | None:
    """The first row whose path does not sort strictly behind the one before it, and why; None if all do.

    `before` is the last path of what precedes these rows.
    """
    if not len(paths):
        return None
    if before is not None and order_key(before) >= order_key(paths[0]):
        return "it sorts before its predecessor", paths[0]
    keys, deep = _order_keys(paths)
    # A path without a slash has no 0 to sort it first; of these all come before all others, else it is a fault.
    rising = np.where(deep[1:] == deep[:-1], pc.less(keys.slice(0, len(keys) - 1), keys.slice(1)), deep[1:])
    if rising.all():
        return None
    return "it sorts before its predecessor", paths[int(np.argmin(rising)) + 1]


def _order_keys(paths: Paths) -> tuple[pa.Array, Bool]:
    """Byte strings that sort as the paths do, and which paths have a slash."""
    blob = bytearray(paths.blob.translate(_ORDERED))
    data = np.frombuffer(blob, np.uint8)
    slashes = np.flatnonzero(data == 1)
    last = np.searchsorted(slashes, paths.offsets[1:]) - 1
    deep = last >= 0
    at = slashes[last] if len(slashes) else np.zeros(len(paths), np.int64)
    deep &= at >= paths.offsets[:-1]
    data[at[deep]] = 0
    buffers = [None, pa.py_buffer(paths.offsets), pa.py_buffer(data)]
    return pa.Array.from_buffers(pa.binary(), len(paths), buffers, null_count=0), deep


def path_fault(paths: Paths) -> tuple[str, bytes] | None:
    """A path that could not have come from a file system: absolute, or with an empty, ``.``, ``..`` or NUL part."""
    if np.any(np.diff(paths.offsets) > PATH_MAX):
        return "its path is too long", paths[int(np.argmax(np.diff(paths.offsets)))][:200]
    data = np.frombuffer(paths.blob, np.uint8)
    begin, end = paths.offsets[:-1].astype(np.int64), paths.offsets[1:].astype(np.int64)
    filled = begin < end
    begin, end = begin[filled], end[filled]
    bad = [np.flatnonzero(data == 0)] if b"\0" in paths.blob else []
    if b"//" in paths.blob:  # also where one path ends and the next begins: both would be wrong
        bad.append(np.array([paths.blob.index(b"//")]))
    bad += [begin[data[begin] == _SLASH], end[data[end - 1] == _SLASH] - 1, _dots(data, begin, end)]
    places = np.concatenate(bad)
    if not len(places):
        return None
    row = int(np.searchsorted(paths.offsets, int(places[0]), side="right")) - 1
    return "its path has an impossible part", paths[row]


def _dots(data: U8, begin: I64, end: I64) -> I64:
    """Places of parts that are ``.`` or ``..``."""
    dots = np.flatnonzero(data == _DOT)
    edge = np.zeros(len(data) + 2, dtype=bool)  # where a part may begin or has just ended
    edge[begin] = True
    after_slash = np.concatenate([[False], data == _SLASH, [False]])
    edge[: len(data) + 1] |= after_slash[: len(data) + 1]
    starts = dots[edge[dots]]
    closes = np.zeros(len(data) + 2, dtype=bool)
    closes[end] = True
    closes[: len(data)] |= data == _SLASH
    second = np.zeros(len(starts), dtype=bool)
    inside = starts + 1 < len(data)
    second[inside] = data[starts[inside] + 1] == _DOT
    found: I64 = starts[closes[starts + 1] | (second & closes[np.minimum(starts + 2, len(data) + 1)])]
    return found


def entry_fault(table: pa.Table) -> tuple[str, int] | None:
    """Why a row of a well-formed table is no possible entry, and which; None if all are."""
    kind, mode = column(table, "kind"), column(table, "mode")
    size, depth = column(table, "size"), column(table, "depth")
    if _counts_differ(table):
        return "an entry from here on has chunks without lengths", 0
    lists = chunks_of(table)
    counts = np.diff(lists.offsets)
    checks: list[tuple[str, Bool]] = [
        ("its kind contradicts its mode", kind != kinds_of(mode)),
        ("its size is negative", size < 0),
        ("its chunks nest too deep", depth > 1),
        ("it has content but is no file", (kind != Kind.FILE) & (counts > 0)),
        ("its link target is missing", (kind == Kind.SYMLINK) & ~present(table["target"]) & ~present(table["problem"])),
    ]
    ends = np.concatenate([[0], np.cumsum(lists.length, dtype=np.int64)])
    held = ends[lists.offsets[1:]] - ends[lists.offsets[:-1]]
    wrong = (held != content_sizes(table)) & ~present(table["problem"])  # of a file with a problem there may be less
    checks.append(("its chunks do not add up to its size", (depth == 0) & wrong))
    for why, bad in checks:
        if bad.any():
            return why, int(np.argmax(bad))
    return _extent_fault(table) or _text_fault(table)


def _counts_differ(table: pa.Table) -> bool:
    """Whether some row has other counts of chunks and of lengths."""
    counts = pc.list_value_length(table["chunks"]).to_numpy()
    return not np.array_equal(counts, pc.list_value_length(table["lengths"]).to_numpy())


def _extent_fault(table: pa.Table) -> tuple[str, int] | None:
    extents = table["extents"]
    if extents.null_count == len(extents):
        return None
    size = column(table, "size")
    for row in np.flatnonzero(present(extents)).tolist():
        at = 0
        for pair in extents[row].values.to_pylist():
            if pair["length"] < 0 or pair["offset"] < at or pair["length"] > int(size[row]) - pair["offset"]:
                return "its extents overlap or leave it", row
            at = pair["offset"] + pair["length"]
    return None


def _text_fault(table: pa.Table) -> tuple[str, int] | None:
    targets, xattrs = table["target"], table["xattrs"]
    if targets.null_count < len(targets) and _has_nul(targets.drop_null()):
        rows = (row for row, target in enumerate(targets.to_pylist()) if b"\0" in (target or b""))
        return "its link target has a NUL", next(rows)
    if xattrs.null_count < len(xattrs):
        names = xattrs.combine_chunks().flatten().field("name")
        lengths = pc.binary_length(names).to_numpy()
        if _has_nul(names) or np.any(lengths == 0) or np.any(lengths > XATTR_NAME_MAX):
            return "an entry from here on has an impossible extended attribute", 0
    return None


def _has_nul(column: pa.Array | pa.ChunkedArray) -> bool:
    return b"\0" in paths_of(column).blob
