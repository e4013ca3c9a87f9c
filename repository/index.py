"""The index of a repository: where each chunk lies. Written as objects, looked up in sorted tables."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from model.batches import Receipt
from model.entries import I64, U8, U32, Bool
from model.errors import Damaged
from repository.cache import INDEX_PREFIX, default_cache_dir, load_tables
from repository.index_table import PACK, SEGMENT, IndexTable, Records, decode_index, encode_index
from repository.repository import Repository
from repository.seal import ObjectKind

OBJECT_CHUNKS = 1 << 20  # chunks one index object lists (46 MB), though a single pack may bring more

__all__ = [
    "INDEX_PREFIX",
    "ChunkIndex",
    "Locations",
    "SegmentTable",
    "decode_index",
    "default_cache_dir",
    "encode_index",
    "index_name",
    "save_index",
]


def index_name() -> str:
    """A name for a new index object; never used before."""
    return INDEX_PREFIX + os.urandom(16).hex()


def save_index(repository: Repository, receipts: Sequence[Receipt]) -> list[str]:
    """Make these packs findable; names of the index objects written. Raises StoreError."""
    names = []
    for group in _grouped(receipts):
        names.append(index_name())
        repository.put_object(ObjectKind.INDEX, names[-1], encode_index(group))
    return names


def _grouped(receipts: Sequence[Receipt]) -> Iterator[list[Receipt]]:
    group: list[Receipt] = []
    chunks = 0
    for receipt in receipts:
        if group and chunks + len(receipt.ids) > OBJECT_CHUNKS:
            yield group
            group, chunks = [], 0
        group.append(receipt)
        chunks += len(receipt.ids)
    if group:
        yield group


@dataclass(slots=True, eq=False)
class SegmentTable:
    """Columns of s segments; `pack` is a row of the packs they belong to."""

    pack: U32
    ordinal: U32
    offset: U32  # bytes from the beginning of the pack
    stored: U32
    plain: U32
    codec: U8

    @classmethod
    def of(cls, records: Records) -> SegmentTable:
        return cls(
            *(np.ascontiguousarray(records[name]) for name in ("pack", "ordinal", "offset", "stored", "plain", "codec"))
        )

    def __len__(self) -> int:
        return len(self.pack)

    def take(self, rows: npt.NDArray[np.integer]) -> SegmentTable:
        """These rows."""
        return SegmentTable(
            self.pack[rows],
            self.ordinal[rows],
            self.offset[rows],
            self.stored[rows],
            self.plain[rows],
            self.codec[rows],
        )


@dataclass(slots=True, eq=False)
class Locations:
    """Where m chunks lie. Rows that were not found have segment -1 and zeros."""

    found: Bool
    segment: I64  # row of `segments`; ascending rows lie in ascending order in the store
    offset: U32  # in the opened segment
    length: U32
    segments: SegmentTable  # all of the index
    packs: Sequence[bytes]  # 16-byte pack ids


class ChunkIndex:
    """All index objects of a repository, for lookups by id. Immutable and thread-safe.

    Ids stay where they are (memory-mapped files of the local cache); only packs and segments are copied.
    """

    def __init__(self, tables: Sequence[IndexTable]) -> None:
        self._tables = [table for table in tables if len(table.packs)]
        pack_bases = np.cumsum([0, *(len(table.packs) for table in self._tables)]).tolist()
        self._segment_bases = np.cumsum([0, *(len(table.segments) for table in self._tables)]).tolist()
        self.pack_table: Records = np.concatenate([np.zeros(0, PACK), *(table.packs for table in self._tables)])
        records = np.concatenate([np.zeros(0, SEGMENT), *(table.segments for table in self._tables)])
        for number, base in enumerate(pack_bases[:-1]):
            records["pack"][self._segment_bases[number] : self._segment_bases[number + 1]] += np.uint32(base)
        self.segments = SegmentTable.of(records)
        blob = self.pack_table["id"].tobytes()
        self.packs: list[bytes] = [blob[at : at + 16] for at in range(0, len(blob), 16)]

    @classmethod
    def load(
        cls, repository: Repository, cache_dir: Path | None, on_damage: Callable[[Damaged], None] | None = None
    ) -> ChunkIndex:
        """The index as it is in the store now, through the cache in `cache_dir` (None: in memory only).

        Raises Damaged for an index object that does not open. With `on_damage` such objects are reported to it and
        left out, and packs that no readable object names are asked themselves for what they hold.
        """
        return cls(load_tables(repository, cache_dir, on_damage))

    def __len__(self) -> int:
        return sum(len(table) for table in self._tables)

    @property
    def tables(self) -> Sequence[IndexTable]:
        return self._tables

    def contains(self, ids: U8) -> Bool:
        """Which of ``ids[m, 32]`` are stored."""
        found = np.zeros(len(ids), dtype=bool)
        for table in self._tables:
            found |= table.find(ids) >= 0
        return found

    def lookup(self, ids: U8) -> Locations:
        """Where ``ids[m, 32]`` lie."""
        segment = np.full(len(ids), -1, dtype=np.int64)
        offset, length = np.zeros(len(ids), np.uint32), np.zeros(len(ids), np.uint32)
        for table, base in zip(self._tables, self._segment_bases, strict=False):
            open_rows = np.flatnonzero(segment < 0)
            rows = table.find(ids[open_rows])
            here = rows >= 0
            open_rows, rows = open_rows[here], rows[here]
            segment[open_rows] = table.segment[rows].astype(np.int64) + base
            offset[open_rows], length[open_rows] = table.offset[rows], table.length[rows]
        return Locations(segment >= 0, segment, offset, length, self.segments, self.packs)
