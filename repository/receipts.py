"""Receipts as the index has them: what it says about each pack, as the pack itself would say it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from model.batches import Receipt
from model.entries import U32
from repository.index import ChunkIndex
from repository.index_table import IndexTable


class Receipts:
    """What the index says about each pack, as the pack itself would say it."""

    def __init__(self, index: ChunkIndex) -> None:
        self._index = index
        self._orders = [_order(table) for table in index.tables]
        self._sorted = [table.segment[order] for table, order in zip(index.tables, self._orders, strict=True)]
        self._starts = [  # of each pack, the row of its first segment; searched once, as it takes a copy each time
            np.searchsorted(table.segments["pack"], np.arange(len(table.packs) + 1, dtype=np.uint32)).tolist()
            for table in index.tables
        ]
        self._bases = np.cumsum([0, *(len(table.packs) for table in index.tables)]).tolist()

    def rows(self, row: int) -> tuple[int, U32]:
        """Which table has the pack in row `row` of the index, and there the rows of its chunks, as they lie in it."""
        number = int(np.searchsorted(self._bases, row, side="right")) - 1
        segments = self._segments(number, row)
        ends = np.array([segments.start, segments.stop], np.uint32)  # of another type all would be converted
        return number, self._orders[number][slice(*np.searchsorted(self._sorted[number], ends).tolist())]

    def _segments(self, number: int, row: int) -> slice:
        starts, pack = self._starts[number], row - self._bases[number]
        return slice(starts[pack], starts[pack + 1])

    def of(self, row: int) -> Receipt:
        """The receipt of the pack in row `row` of the index."""
        number, rows = self.rows(row)
        table, pack = self._index.tables[number], row - self._bases[number]
        place = self._segments(number, row)
        segments = table.segments[place]
        return Receipt(
            pack_id=self._index.packs[row],
            pack_kind=int(table.packs["kind"][pack]),
            pack_size=int(table.packs["size"][pack]),
            segment_offset=segments["offset"].copy(),
            segment_stored=segments["stored"].copy(),
            segment_plain=segments["plain"].copy(),
            segment_codec=segments["codec"].copy(),
            ids=table.ids[rows],
            segment=table.segment[rows] - np.uint32(place.start),
            offset=table.offset[rows],
            length=table.length[rows],
            written=bool(table.packs["written"][pack]),
        )


def _order(table: IndexTable) -> U32:
    """Rows of the chunks as they lie in the packs. In place: of 4 million, numpy's own takes 150 MB."""
    keys = table.segment.astype(np.uint64)
    keys <<= np.uint64(32)
    keys |= table.offset
    return np.argsort(keys, kind="stable").astype(np.uint32)


def agree(one: Receipt, other: Receipt) -> bool:
    """Whether both say the same of a pack."""
    return all(mine.tobytes() == theirs.tobytes() for mine, theirs in zip(_columns(one), _columns(other), strict=True))


def _columns(receipt: Receipt) -> Iterator[np.ndarray]:
    order = np.lexsort((receipt.offset, receipt.segment))
    yield from (receipt.segment_offset, receipt.segment_stored, receipt.segment_plain, receipt.segment_codec)
    yield from (receipt.ids[order], receipt.segment[order], receipt.offset[order], receipt.length[order])
