"""Many tables of the index as one, piece by piece: what merging takes in memory does not grow with the index."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from model.entries import U8, U32
from repository.index_table import CHUNK_COLUMNS, PACK, SEGMENT, IndexTable, Records, sort_ids

MERGE_ROWS = 1 << 17  # rows sorted at once


def merge_tables(tables: Sequence[IndexTable]) -> IndexTable:
    """One table of all of them, in memory."""
    packs, segments = joined_places(tables)
    merged = list(windows(tables))
    ids, segment, offset, length = (
        np.concatenate([getattr(window, name) for window in merged]) for name in CHUNK_COLUMNS
    )
    return IndexTable(packs, segments, ids, segment, offset, length)


def joined_places(tables: Sequence[IndexTable]) -> tuple[Records, Records]:
    """The packs and segments of all, one table after the other."""
    packs = np.concatenate([np.zeros(0, PACK), *(table.packs for table in tables)])
    segments = np.concatenate([np.zeros(0, SEGMENT), *(table.segments for table in tables)])
    row, base = 0, 0
    for table in tables:
        segments["pack"][row : row + len(table.segments)] += np.uint32(base)
        row, base = row + len(table.segments), base + len(table.packs)
    return packs, segments


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """All rows, sorted, whose id begins with a byte from `first` up to, not including, `border`."""

    first: int
    border: int
    ids: U8
    segment: U32
    offset: U32
    length: U32


def windows(tables: Sequence[IndexTable]) -> Iterator[Window]:
    """The merged chunk columns, window by window."""
    total = sum(len(table) for table in tables)
    step = 256 // min(256, 1 << (total // MERGE_ROWS).bit_length())
    bases = np.cumsum([0, *(len(table.segments) for table in tables)]).tolist()
    starts = [0] * len(tables)
    for first in range(0, 256, step):
        ends = [_rows_below(table, first + step) for table in tables]
        cut = [
            (table.ids[rows], table.segment[rows] + np.uint32(base), table.offset[rows], table.length[rows])
            for table, base, rows in zip(tables, bases, map(slice, starts, ends), strict=False)
        ]
        ids, segment, offset, length = (np.concatenate(column) for column in zip(*cut, strict=True))
        order = sort_ids(ids)
        yield Window(first, first + step, ids[order], segment[order], offset[order], length[order])
        starts = ends


def _rows_below(table: IndexTable, border: int) -> int:
    """How many ids begin with a byte below `border`. Looks at few: the table may be a file much larger than memory."""
    if border > 255:
        return len(table)
    return bisect_left(range(len(table)), border, key=lambda row: int(table.ids[row, 0]))
