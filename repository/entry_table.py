"""Entries as Arrow tables: the schema of the manifest, its chunk lists, and its columns as NumPy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from model.entries import I32, I64, U8, U32, Bool, Kind, Paths

CHUNKS_INLINE = 4096  # chunks a row lists itself; of more it names the lists
LIST_MIN, LIST_MASK, LIST_MAX = 1024, 0xFFF, 16384  # records of a list; on average LIST_MIN + LIST_MASK
RECORD = np.dtype([("id", "u1", 32), ("length", "<u4")])

_XATTRS = pa.list_(pa.struct([pa.field("name", pa.binary(), False), pa.field("value", pa.binary(), False)]))
_EXTENTS = pa.list_(pa.struct([pa.field("offset", pa.int64(), False), pa.field("length", pa.int64(), False)]))

ENTRY_SCHEMA = pa.schema(
    [
        pa.field("path", pa.binary(), False),
        pa.field("kind", pa.uint8(), False),
        pa.field("mode", pa.uint32(), False),
        pa.field("uid", pa.uint32(), False),
        pa.field("gid", pa.uint32(), False),
        pa.field("user", pa.binary(), False),
        pa.field("group", pa.binary(), False),
        pa.field("size", pa.int64(), False),
        pa.field("mtime", pa.int64(), False),
        pa.field("ctime", pa.int64(), False),
        pa.field("atime", pa.int64(), False),
        pa.field("ino", pa.uint64(), False),
        pa.field("device", pa.uint32(), False),
        pa.field("nlink", pa.uint32(), False),
        pa.field("rdev", pa.uint64(), False),
        pa.field("flags", pa.uint32(), False),
        pa.field("target", pa.binary()),
        pa.field("xattrs", _XATTRS),
        pa.field("extents", _EXTENTS),
        pa.field("chunks", pa.list_(pa.binary(32)), False),
        pa.field("lengths", pa.list_(pa.uint32()), False),
        pa.field("depth", pa.uint8(), False),
        pa.field("problem", pa.binary()),
    ]
)


@dataclass(slots=True, eq=False)
class ChunkLists:
    """The chunks of n rows: row i has chunks ``offsets[i] : offsets[i + 1]`` of m.

    Where ``depth[i]`` is 1, the chunks of row i hold lists of chunks instead of content.
    """

    offsets: I32  # [n + 1]
    ids: U8  # [m, 32]
    length: U32  # [m]
    depth: U8  # [n]
    _replaced: dict[int, tuple[U8, U32]] = field(default_factory=dict)

    @classmethod
    def of_rows(cls, rows: int, row: I32, ids: U8, length: U32) -> ChunkLists:
        """`rows` rows from chunks that name the row of each, ascending."""
        offsets = np.zeros(rows + 1, dtype=np.int32)
        np.cumsum(np.bincount(row, minlength=rows), out=offsets[1:])
        return cls(offsets, ids, length, np.zeros(rows, dtype=np.uint8))

    def __len__(self) -> int:
        return len(self.depth)

    def row(self, row: int) -> tuple[U8, U32]:
        """Ids and lengths of the chunks of one row."""
        if row in self._replaced:
            return self._replaced[row]
        begin, end = int(self.offsets[row]), int(self.offsets[row + 1])
        return self.ids[begin:end], self.length[begin:end]

    def with_row(self, row: int, ids: U8, length: U32) -> ChunkLists:
        """Give `row` other chunks; returns this object, so that many rows can be replaced without copies."""
        self._replaced[row] = (ids, length)
        return self

    def settled(self) -> ChunkLists:
        """The same with replaced rows in their place."""
        if not self._replaced:
            return self
        counts = np.diff(self.offsets)
        for row, (ids, _) in self._replaced.items():
            counts[row] = len(ids)
        offsets = np.zeros(len(self) + 1, dtype=np.int32)
        np.cumsum(counts, out=offsets[1:])
        parts, at = [], 0
        for row in sorted(self._replaced):
            begin = int(self.offsets[row])
            parts += [(self.ids[at:begin], self.length[at:begin]), self._replaced[row]]
            at = int(self.offsets[row + 1])
        parts.append((self.ids[at:], self.length[at:]))
        return ChunkLists(
            offsets, np.concatenate([ids for ids, _ in parts]), np.concatenate([some for _, some in parts]), self.depth
        )

    def deepened(self, store: Callable[[bytes], bytes]) -> ChunkLists:
        """Rows of more than `CHUNKS_INLINE` chunks name chunks that hold their lists, stored through `store`."""
        long = np.flatnonzero((np.diff(self.offsets) > CHUNKS_INLINE) & (self.depth == 0)).tolist()
        long = sorted({*long, *(row for row, (ids, _) in self._replaced.items() if len(ids) > CHUNKS_INLINE)})
        if not long:
            return self
        lists = ChunkLists(self.offsets, self.ids, self.length, self.depth.copy(), dict(self._replaced))
        for row in long:
            lists.with_row(row, *_store_lists(*self.row(row), store))
            lists.depth[row] = 1
        return lists.settled()


def _store_lists(ids: U8, length: U32, store: Callable[[bytes], bytes]) -> tuple[U8, U32]:
    """Records of a long file, cut where an id says so: a change in the file changes the list around it only."""
    records = np.zeros(len(ids), RECORD)
    records["id"], records["length"] = ids, length
    ends = np.flatnonzero((np.ascontiguousarray(ids).view("<u4")[:, 0] & LIST_MASK) == 0) + 1
    names, sizes, at = [], [], 0
    while at < len(records):
        border = int(np.searchsorted(ends, at + LIST_MIN))
        end = min(int(ends[border]) if border < len(ends) else len(records), at + LIST_MAX)
        plain = records[at:end].tobytes()
        names.append(store(plain))
        sizes.append(len(plain))
        at = end
    return np.frombuffer(b"".join(names), np.uint8).reshape(-1, 32), np.array(sizes, np.uint32)


def binary_array(paths: Paths) -> pa.Array:
    """`Paths` as an Arrow column; shares its memory."""
    buffers = [None, pa.py_buffer(paths.offsets), pa.py_buffer(paths.blob)]
    return pa.Array.from_buffers(pa.binary(), len(paths), buffers, null_count=0)


def paths_of(column: pa.Array | pa.ChunkedArray) -> Paths:
    """An Arrow binary column without nulls as `Paths`, copied."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(array, pa.ChunkedArray):  # a column of no chunks, or of too many bytes for one
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], pa.binary())
    if not len(array):
        return Paths(b"", np.zeros(1, np.int32))
    _, offsets, data = array.buffers()
    ends = np.frombuffer(offsets, np.int32)[array.offset : array.offset + len(array) + 1]
    begin, end = int(ends[0]), int(ends[-1])
    return Paths(b"" if data is None else memoryview(data)[begin:end].tobytes(), ends - ends[0])


def id_array(ids: U8) -> pa.Array:
    """``ids[m, 32]`` as an Arrow column; shares its memory."""
    data = pa.py_buffer(np.ascontiguousarray(ids))
    return pa.Array.from_buffers(pa.binary(32), len(ids), [None, data], null_count=0)


def chunks_of(table: pa.Table) -> ChunkLists:
    """The chunk columns of a table of entries, copied only where its memory is in several places."""
    chunks, lengths = _one(table["chunks"]), _one(table["lengths"])
    flat = chunks.flatten()
    data = flat.buffers()[1]
    ids = np.zeros((0, 32), np.uint8)
    if len(flat) and data is not None:
        ids = np.frombuffer(data, np.uint8, len(flat) * 32, flat.offset * 32).reshape(-1, 32)
    offsets = chunks.offsets.to_numpy()
    return ChunkLists(
        (offsets - offsets[0]).astype(np.int32) if len(offsets) else np.zeros(1, np.int32),
        ids,
        lengths.flatten().to_numpy(zero_copy_only=False).astype(np.uint32, copy=False),
        column(table, "depth"),
    )


def column(table: pa.Table, name: str) -> npt.NDArray[Any]:
    """A numeric column without nulls as NumPy."""
    values: npt.NDArray[Any] = table[name].to_numpy()
    return values


def content_sizes(table: pa.Table) -> I64:
    """Bytes of content each row should have: its size, of sparse files what its extents hold, of others 0."""
    sizes: I64 = np.where(column(table, "kind") == Kind.FILE, column(table, "size"), 0)
    extents = table["extents"]
    if extents.null_count < len(extents):
        held = child_sums(extents, lambda pairs: pairs.field("length").to_numpy())
        sizes = np.where(present(extents), held, sizes)
    return sizes


def child_sums(lists: pa.ChunkedArray, value_of: Callable[[pa.Array], I64]) -> I64:
    """For each row of a list column the sum of `value_of` its items; 0 for null."""
    array = _one(lists)
    ends = np.concatenate([[0], np.cumsum(value_of(array.flatten()), dtype=np.int64)])
    counts = pc.fill_null(pc.list_value_length(array), 0).to_numpy()  # items under a null do not count
    last = np.cumsum(counts, dtype=np.int64)
    sums: I64 = ends[last] - ends[last - counts]
    return sums


def present(array: pa.Array | pa.ChunkedArray) -> Bool:
    """Which rows are not null."""
    valid: Bool = array.is_valid().to_numpy(zero_copy_only=False)
    return valid


def _one(chunked: pa.ChunkedArray) -> pa.Array:
    if chunked.num_chunks == 1:
        return chunked.chunk(0)
    return pa.concat_arrays(chunked.chunks) if chunked.num_chunks else pa.array([], chunked.type)
