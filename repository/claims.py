"""Who stores which chunk: the one question that travels upstream in a backup."""

from __future__ import annotations

import threading
from typing import Protocol

import numpy as np

import kernels
from model.entries import U8, Bool
from repository.index_table import sort_ids

LEVEL_ROWS = 1 << 20  # rows from which a sorted run is not merged any more


class Known(Protocol):
    """What is stored already: `ChunkIndex`."""

    def contains(self, ids: U8) -> Bool: ...


class StoredIds:
    """A growing set of ids in about 32 bytes each: sorted runs, merged while they are small."""

    def __init__(self) -> None:
        self._runs: list[U8] = []

    def __len__(self) -> int:
        return sum(len(run) for run in self._runs)

    def add(self, ids: U8) -> None:
        """Take ``ids[m, 32]``; those that are in already may be given again."""
        run = _distinct(ids)
        # A run joins its elder unless that is more than twice as long: each id is moved a few times, not many.
        while self._runs and len(self._runs[-1]) <= 2 * len(run) and len(self._runs[-1]) + len(run) <= LEVEL_ROWS:
            run = _distinct(np.concatenate([self._runs.pop(), run]))
        if len(run):
            self._runs.append(run)

    def contains(self, ids: U8) -> Bool:
        """Which of ``ids[m, 32]`` are in the set."""
        found = np.zeros(len(ids), dtype=bool)
        for run in self._runs:
            found |= kernels.find_ids(run, ids) >= 0
        return found


def _distinct(ids: U8) -> U8:
    ordered: U8 = np.ascontiguousarray(ids)[sort_ids(ids)]
    if len(ordered) > 1:
        words = ordered.view(np.uint64)
        keep = np.concatenate([[True], (words[1:] != words[:-1]).any(axis=1)])
        ordered = ordered if keep.all() else ordered[keep]
    return ordered


class ClaimTable:
    """What is stored, and who has said they will store what is not. Shared by all lanes of a run; thread-safe.

    An id is *known* (in the index), *stored* (in a pack of this run) or *claimed* by an owner, the name of a lane.
    Claims are few (what fits into the packs under way), the rest is sorted arrays.
    """

    def __init__(self, index: Known) -> None:
        self._index = index
        self._stored = StoredIds()
        self._claims: dict[bytes, str] = {}
        self._released: set[str] = set()
        self._lock = threading.Lock()

    def claim(self, ids: U8, owner: str) -> Bool:
        """True for each of ``ids[m, 32]`` that `owner` has to store now; of equal ids only the first is."""
        known = self._index.contains(ids)
        with self._lock:
            known |= self._stored.contains(ids)
            mine = ~known
            rows = np.flatnonzero(mine)
            claims = self._claims
            for row, chunk_id in zip(rows.tolist(), split_ids(ids[rows]), strict=True):
                holder = claims.get(chunk_id)
                # A call of a killed worker can arrive after its claims were released: such a claim binds nobody.
                if holder is None or (holder != owner and holder in self._released):
                    claims[chunk_id] = owner
                else:
                    mine[row] = False
        return mine

    def release(self, owner: str) -> None:
        """A lane died: its claims are anyone's again. What it stored stays stored."""
        with self._lock:
            self._released.add(owner)
            self._claims = {chunk_id: holder for chunk_id, holder in self._claims.items() if holder != owner}

    def release_all(self) -> None:
        """No lane is at work any more: what was claimed and not stored is anyone's again."""
        with self._lock:
            self._claims.clear()

    def add(self, ids: U8) -> None:
        """``ids[m, 32]`` are durable, whoever claimed them."""
        with self._lock:
            for chunk_id in split_ids(ids):
                self._claims.pop(chunk_id, None)
            self._stored.add(ids)

    def resolved(self, ids: U8) -> Bool:
        """Which of ``ids[m, 32]`` can be restored: in the index or in a pack of this run."""
        found = self._index.contains(ids)
        if not found.all():
            with self._lock:
                found |= self._stored.contains(ids)
        return found

    def __len__(self) -> int:
        """Ids stored in this run."""
        return len(self._stored)


def split_ids(ids: U8) -> list[bytes]:
    """``ids[m, 32]`` as bytes objects."""
    blob = ids.tobytes()
    return [blob[at : at + 32] for at in range(0, len(blob), 32)]
