"""The index of a repository: where each chunk lies. Written as objects, looked up in sorted tables."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from model.batches import Receipt
from model.entries import I64, U8, U32, Bool
from model.errors import Damaged
from repository.cache import list_packs, load_tables, remember_written
from repository.cache_dir import default_cache_dir
from repository.copies import best_copies
from repository.index_table import (
    INDEX_PREFIX,
    PACK,
    SEGMENT,
    IndexTable,
    Records,
    decode_index,
    encode_index,
    gather_receipts,
)
from repository.repository import Repository
from repository.seal import ObjectKind

OBJECT_CHUNKS = 1 << 20  # chunks one index object lists (46 MB), though a single pack may bring more
NOT_FOUND = 255  # more doubtful than any copy that is there

__all__ = [
    "INDEX_PREFIX",
    "ChunkIndex",
    "Locations",
    "SegmentTable",
    "decode_index",
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
        if repository.write_only:
            remember_written(repository, default_cache_dir(), gather_receipts(group), names[-1])
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
        self._doubts: U8 | None = None  # of each segment; None: no doubts
        self._absent: Bool | None = None  # segments that are not in the store; None: all are
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
        cls,
        repository: Repository,
        cache_dir: Path | None,
        on_damage: Callable[[Damaged], None] | None = None,
        only_present: bool = False,
        without: Collection[bytes] = (),
        proved: Collection[bytes] | None = None,
    ) -> ChunkIndex:
        """The index as it is in the store now, through the cache in `cache_dir` (None: in memory only).

        Raises Damaged for an index object that does not open. With `on_damage` such objects are reported to it and
        left out, and packs that no readable object names are asked themselves for what they hold. With `only_present`
        chunks of packs that are missing or of the wrong length do not count, nor do those of the packs `without`:
        they are stored again when they are met. With `proved` the same holds for packs that a write-only machine wrote
        and that are not among the proved ones: what it says is in them is not believed.
        """
        index = cls(load_tables(repository, cache_dir, on_damage))
        if only_present and index.packs:
            sizes = {pack: size for pack, size in list_packs(repository) if pack not in without}
            index = index.present(sizes, proved)
        return index

    def __len__(self) -> int:
        return sum(len(table) for table in self._tables)

    @property
    def tables(self) -> Sequence[IndexTable]:
        """All of them, with the rows of packs that are not there: `find` and its like know which those are."""
        return self._tables

    @property
    def absent(self) -> Bool | None:
        """Which segments, by row, are not in the store as they were stored; None: all are."""
        return self._absent

    @property
    def doubts(self) -> U8:
        """How much each segment is doubted; 0 for those that nothing is said against."""
        ranks = self._ranks()
        return np.zeros(len(self.segments), np.uint8) if ranks is None else ranks

    def contains(self, ids: U8) -> Bool:
        """Which of ``ids[m, 32]`` are stored."""
        found: Bool = self.find(ids)[0] >= 0
        return found

    def lookup(self, ids: U8) -> Locations:
        """Where ``ids[m, 32]`` lie: of each the copy that is doubted least."""
        return self.locations(*self.find(ids))

    def find(self, ids: U8) -> tuple[I64, I64]:
        """Table and row of each of ``ids[m, 32]``, of several copies the one that is doubted least; -1: not found."""
        number, row = np.full(len(ids), -1, np.int64), np.full(len(ids), -1, np.int64)
        doubt, ranks = np.full(len(ids), NOT_FOUND, np.uint8), self._ranks()
        for at, (table, base) in enumerate(zip(self._tables, self._segment_bases, strict=False)):
            open_rows = np.flatnonzero(doubt)
            rows = table.find(ids[open_rows])
            open_rows, rows = open_rows[rows >= 0], rows[rows >= 0]
            if ranks is None:
                doubt[open_rows] = 0
            else:
                rows, found = best_copies(table, rows, ranks[base : base + len(table.segments)])
                better = found < doubt[open_rows]
                open_rows, rows = open_rows[better], rows[better]
                doubt[open_rows] = found[better]
            number[open_rows], row[open_rows] = at, rows
        return number, row

    def locations(self, number: I64, row: I64) -> Locations:
        """What the tables say in these rows, as `find` gives them."""
        segment = np.full(len(row), -1, dtype=np.int64)
        offset, length = np.zeros(len(row), np.uint32), np.zeros(len(row), np.uint32)
        for at, (table, base) in enumerate(zip(self._tables, self._segment_bases, strict=False)):
            here = np.flatnonzero(number == at)
            rows = row[here]
            segment[here] = table.segment[rows].astype(np.int64) + base
            offset[here], length[here] = table.offset[rows], table.length[rows]
        return Locations(segment >= 0, segment, offset, length, self.segments, self.packs)

    def _ranks(self) -> U8 | None:
        """How much each segment is doubted; `NOT_FOUND` of those that are not in the store."""
        if self._absent is None:
            return self._doubts
        doubts = np.zeros(len(self._absent), np.uint8) if self._doubts is None else self._doubts
        return np.where(self._absent, np.uint8(NOT_FOUND), doubts)

    def present(self, sizes: Mapping[bytes, int], proved: Collection[bytes] | None = None) -> ChunkIndex:
        """The same index without the chunks of packs that are not in the store as they were stored, or not to be
        believed (`proved`: see `load`); `sizes` are the lengths of those in the store. Takes no memory for the ids."""
        known = zip(self.packs, *(self.pack_table[name].tolist() for name in ("size", "written")), strict=True)
        lost = np.array(
            [
                sizes.get(pack) != size or (written != 0 and proved is not None and pack not in proved)
                for pack, size, written in known
            ],
            dtype=bool,
        )
        if not lost.any():
            return self
        index = copy(self)
        index._absent = lost[self.segments.pack]
        return index

    def doubting(self, segments: Bool) -> ChunkIndex:
        """The same index, in which copies in these segments (by row) are found only where there is no better one.

        Doubts add up: a segment doubted twice is worse than one doubted once.
        """
        if not segments.any():
            return self
        index = copy(self)
        doubts = segments.astype(np.uint8)
        index._doubts = doubts if self._doubts is None else doubts + self._doubts
        return index

    def lacking(self, segments: I64) -> ChunkIndex:
        """The same index as if the segments in these rows were not there."""
        index = copy(self)
        index._absent = np.zeros(len(self.segments), dtype=bool) if self._absent is None else self._absent.copy()
        index._absent[segments] = True
        return index

    def doubting_packs(self, packs: Collection[bytes]) -> ChunkIndex:
        """`doubting` of all that lies in `packs`."""
        bad = np.array([pack in packs for pack in self.packs], dtype=bool)
        return self.doubting(bad[self.segments.pack]) if bad.any() else self

    def doubting_written(self) -> ChunkIndex:
        """`doubting` of all that lies in packs of write-only machines, unless there is nothing else."""
        written = self.pack_table["written"] != 0
        return self if written.all() else self.doubting(written[self.segments.pack])
