"""Of a chunk that lies in several places of one table of the index, the copy that is doubted least."""

from __future__ import annotations

from bisect import bisect_left, bisect_right

import numpy as np

from model.entries import I64, U8
from repository.index_table import IndexTable

NEAR = 64  # copies to both sides that are looked at for all ids at once; of few ids there are more


def best_copies(table: IndexTable, rows: I64, doubts: U8) -> tuple[I64, U8]:
    """For each of `rows` of a table, which hold some copy of an id, the row of the best copy, and how much it is
    doubted; `doubts` are those of segments. Copies are neighbours: ids are sorted."""
    best, least = rows.copy(), doubts[table.segment[rows]]
    many = np.zeros(len(rows), dtype=bool)  # of which there are further copies
    for step in (-1, 1):
        active, at = np.flatnonzero(least), rows[least > 0]
        for _ in range(NEAR):
            at = at + step
            inside = (at >= 0) & (at < len(table))
            active, at = active[inside], at[inside]
            same = np.all(table.ids[at] == table.ids[rows[active]], axis=1)
            active, at = active[same], at[same]
            if not len(active):
                break
            doubt = doubts[table.segment[at]]
            better = doubt < least[active]
            best[active[better]], least[active[better]] = at[better], doubt[better]
        many[active] = True
    _look_far(table, rows, doubts, np.flatnonzero(many & (least > 0)), best, least)
    return best, least


def _look_far(table: IndexTable, rows: I64, doubts: U8, which: I64, best: I64, least: U8) -> None:
    """Look at all copies of the ids in these of `rows`: an image of a disk may have a block of zeros very often."""
    found: dict[bytes, int] = {}
    for at in which.tolist():
        chunk_id = table.ids[rows[at]].tobytes()
        if chunk_id not in found:
            ids = range(len(table))
            first = bisect_left(ids, chunk_id, key=lambda row: table.ids[row].tobytes())
            end = bisect_right(ids, chunk_id, first, key=lambda row: table.ids[row].tobytes())
            found[chunk_id] = first + int(doubts[table.segment[first:end]].argmin())
        best[at], least[at] = found[chunk_id], doubts[table.segment[found[chunk_id]]]
