"""Tables of the index: chunk id → pack, segment, offset, length, as fixed-width records used where they lie.

An index object (and, behind a header of its own, a file of the local cache) is

    counts | packs | segments | ids, sorted | segment of each chunk | offset of each | length of each

little-endian throughout; docs/format.md has the byte table. Segments are sorted by pack and ordinal, so their order is
the order of bytes in the store.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

import kernels
from kernels import Guide
from model.batches import Receipt
from model.entries import I64, U8, U32, Bool
from model.errors import Damaged, NewerFormat
from repository.footer import PACK_MAX, SEGMENT_PLAIN_MAX

INDEX_PREFIX = "index/"
ID_SIZE = 32
CHUNK_COLUMNS = ("ids", "segment", "offset", "length")

PACK = np.dtype([("id", "u1", 16), ("size", "<u4"), ("kind", "u1"), ("written", "u1"), ("zero", "u1", 2)])
SEGMENT = np.dtype(
    [
        ("pack", "<u4"),
        ("ordinal", "<u4"),
        ("offset", "<u4"),
        ("stored", "<u4"),
        ("plain", "<u4"),
        ("codec", "u1"),
        ("zero", "u1", 3),
    ]
)
Records = npt.NDArray[np.void]

_VERSION = 1
_COUNTS = struct.Struct("<IIIIQQ")  # version zero packs segments chunks zero
CHUNK_BYTES = ID_SIZE + 3 * 4  # of one chunk in an index object
assert (_COUNTS.size, PACK.itemsize, SEGMENT.itemsize) == (32, 24, 24)


@dataclass(slots=True, eq=False)
class IndexTable:
    """Some packs and all they hold: p packs, s segments, n chunks sorted by id (an id may occur twice)."""

    packs: Records  # PACK[p]
    segments: Records  # SEGMENT[s]
    ids: U8  # [n, 32]
    segment: U32  # [n] row of the chunk's segment in `segments`
    offset: U32  # [n]
    length: U32  # [n]
    guide: Guide | None = None  # of files of the local cache

    def __len__(self) -> int:
        return len(self.ids)

    def find(self, ids: U8) -> I64:
        """Row of each id, -1 if it is not here."""
        return kernels.find_ids(self.ids, ids) if self.guide is None else kernels.find_guided(self.ids, self.guide, ids)


def sort_ids(ids: U8) -> I64:
    """Rows of ``ids[n, 32]`` in ascending order, equal ids in the order they came."""
    words = np.ascontiguousarray(ids).view(">u8").astype(np.uint64)
    order = np.argsort(words[:, 0], kind="stable")
    first = words[order, 0]
    if np.any(first[1:] == first[:-1]):  # ids are random: only repeated or forged ones agree in 64 bits
        order = np.lexsort((words[:, 3], words[:, 2], words[:, 1], words[:, 0]))
    return order.astype(np.int64, copy=False)


def gather_receipts(receipts: Sequence[Receipt]) -> IndexTable:
    """The table of these packs."""
    packs = np.zeros(len(receipts), PACK)
    counts = [len(receipt.segment_offset) for receipt in receipts]
    segments = np.zeros(sum(counts), SEGMENT)
    base = 0
    for number, (receipt, count) in enumerate(zip(receipts, counts, strict=True)):
        pack_id = np.frombuffer(receipt.pack_id, np.uint8)
        packs[number] = (pack_id, receipt.pack_size, receipt.pack_kind, receipt.written, 0)
        rows = segments[base : base + count]
        rows["pack"], rows["ordinal"] = number, np.arange(count)
        rows["offset"], rows["stored"] = receipt.segment_offset, receipt.segment_stored
        rows["plain"], rows["codec"] = receipt.segment_plain, receipt.segment_codec
        base += count
    bases = np.cumsum([0, *counts])[:-1].tolist()
    columns = [receipt.segment.astype(np.uint32) + np.uint32(at) for receipt, at in zip(receipts, bases, strict=True)]
    ids = np.concatenate([np.zeros((0, ID_SIZE), np.uint8), *(receipt.ids for receipt in receipts)])
    order = sort_ids(ids)
    return IndexTable(
        packs,
        segments,
        ids[order],
        joined(columns)[order],
        joined([receipt.offset for receipt in receipts])[order],
        joined([receipt.length for receipt in receipts])[order],
    )


def marked_written(table: IndexTable) -> IndexTable:
    """The table, all of whose packs a write-only machine says to have written: what it says of others is no better."""
    packs = table.packs.copy()
    packs["written"] = 1
    return replace(table, packs=packs)


def joined(columns: Iterable[U32]) -> U32:
    """Columns one after the other; of none, an empty column."""
    return np.concatenate([np.zeros(0, np.uint32), *columns], dtype=np.uint32)


def encode_index(receipts: Sequence[Receipt]) -> bytes:
    """The plain bytes of an index object of these packs."""
    return b"".join(encode_table(gather_receipts(receipts)))


def encode_counts(packs: int, segments: int, chunks: int) -> bytes:
    """The first bytes of an encoded table."""
    return _COUNTS.pack(_VERSION, 0, packs, segments, chunks, 0)


def encode_table(table: IndexTable) -> list[bytes]:
    """The encoded table in parts."""
    return [
        encode_counts(len(table.packs), len(table.segments), len(table)),
        table.packs.tobytes(),
        table.segments.tobytes(),
        table.ids.tobytes(),
        *(column.astype("<u4").tobytes() for column in (table.segment, table.offset, table.length)),
    ]


def view_table(data: bytes | memoryview, subject: str = "index") -> IndexTable:
    """The table that `data` encodes, as views of it: its length fits, its content is not looked at.

    Raises Damaged, NewerFormat naming `subject`.
    """
    if len(data) < _COUNTS.size:
        raise _damaged(subject, "too short")
    version, _, packs, segments, chunks, _ = _COUNTS.unpack_from(data)
    if version > _VERSION:
        raise NewerFormat("the index was written by a newer version", subject=subject, hint="update lox")
    sizes = packs * PACK.itemsize, segments * SEGMENT.itemsize, chunks * ID_SIZE
    if version != _VERSION or len(data) != _COUNTS.size + sum(sizes) + chunks * 12:
        raise _damaged(subject, "its length does not fit its counts")
    at = np.cumsum([_COUNTS.size, *sizes]).tolist()
    columns = np.frombuffer(data, "<u4", chunks * 3, at[3]).reshape(3, chunks)
    return IndexTable(
        np.frombuffer(data, PACK, packs, at[0]),
        np.frombuffer(data, SEGMENT, segments, at[1]),
        np.frombuffer(data, np.uint8, sizes[2], at[2]).reshape(chunks, ID_SIZE),
        *columns,
    )


def decode_index(data: bytes, subject: str = "index") -> IndexTable:
    """The table in the plain bytes of an index object, consistent in itself. Raises Damaged, NewerFormat."""
    table = view_table(data, subject)
    _check_segments(table, subject)
    if np.any(table.segment >= len(table.segments)):
        raise _damaged(subject, "a chunk lies in no segment")
    if np.any(table.offset.astype(np.int64) + table.length > table.segments["plain"][table.segment]):
        raise _damaged(subject, "a chunk leaves its segment")
    words = table.ids[:, :8].copy().view(">u8").ravel()
    falling = np.flatnonzero(words[1:] <= words[:-1])
    if any(table.ids[at].tobytes() > table.ids[at + 1].tobytes() for at in falling.tolist()):
        raise _damaged(subject, "its ids are not sorted")
    return table


def _check_segments(table: IndexTable, subject: str) -> None:
    segments, packs = table.segments, table.packs
    if np.any(packs["size"] > PACK_MAX) or np.any(segments["plain"] > SEGMENT_PLAIN_MAX):
        raise _damaged(subject, "a pack or segment is larger than allowed")
    if np.any(segments["pack"] >= len(packs)):
        raise _damaged(subject, "a segment lies in no pack")
    same = segments["pack"][1:] == segments["pack"][:-1]
    end = segments["offset"].astype(np.int64) + segments["stored"]
    steps = np.where(same, segments["ordinal"][:-1].astype(np.int64) + 1, 0)
    if (
        np.any(segments["ordinal"][1:] != steps)
        or np.any(segments["ordinal"][:1] != 0)
        or np.any(segments["pack"][1:] < segments["pack"][:-1])
        or np.any(segments["offset"][1:][same] != end[:-1][same])
        or np.any(end > packs["size"][segments["pack"]])
    ):
        raise _damaged(subject, "its segments do not follow each other within their packs")


def _damaged(subject: str, why: str) -> Damaged:
    return Damaged("the index is not valid", subject=subject, why=why, hint="lox check tells what it concerns")


def listed_again(packs: Records) -> Bool:
    """Which rows of packs name one that a row before names already: two index objects may list one pack."""
    again: Bool = np.ones(len(packs), bool)
    again[np.unique(packs["id"], axis=0, return_index=True)[1]] = False
    return again
