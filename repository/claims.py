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
        self._gone: tuple[str, ...] = ()  # beginnings of names: all lanes of a process that died
        self._promised: set[bytes] = set()  # not stored yet, and a host relies on it that another one stores it
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
                if holder is None or (holder != owner and self._is_dead(holder)):
                    claims[chunk_id] = owner
                else:
                    mine[row] = False
        return mine

    def release(self, owner: str) -> None:
        """A lane died: its claims are anyone's again. What it stored stays stored."""
        with self._lock:
            self._released.add(owner)
            self._claims = {chunk_id: holder for chunk_id, holder in self._claims.items() if holder != owner}

    def release_below(self, prefix: str) -> None:
        """As `release`, for all owners whose names begin so."""
        with self._lock:
            self._gone += (prefix,)
            self._claims = {id_: holder for id_, holder in self._claims.items() if not holder.startswith(prefix)}

    def release_all(self) -> None:
        """No lane is at work any more: what was claimed and not stored is anyone's again."""
        with self._lock:
            self._claims.clear()

    def add(self, ids: U8) -> None:
        """``ids[m, 32]`` are durable, whoever claimed them."""
        with self._lock:
            for chunk_id in split_ids(ids):
                self._claims.pop(chunk_id, None)
            if self._promised:
                self._promised.difference_update(split_ids(ids))
            self._stored.add(ids)

    def resolved(self, ids: U8) -> Bool:
        """Which of ``ids[m, 32]`` can be restored: in the index or in a pack of this run."""
        found = self._index.contains(ids)
        if not found.all():
            with self._lock:
                found |= self._stored.contains(ids)
        return found

    def settled(self, ids: U8) -> Bool:
        """Which of ``ids[m, 32]`` rows need not wait for any more: with one manifest to write, those `resolved`."""
        return self.resolved(ids)

    def promised(self, ids: U8, mine: str) -> Bool:
        """Which of ``ids[m, 32]`` are resolved, or claimed by an owner whose name does not begin with `mine`.

        What is promised is remembered until it is stored: see `broken`.
        """
        found = self.resolved(ids)
        rows = np.flatnonzero(~found)
        with self._lock:
            for row, chunk_id in zip(rows.tolist(), split_ids(ids[rows]), strict=True):
                holder = self._claims.get(chunk_id)
                if holder is not None and not holder.startswith(mine) and not self._is_dead(holder):
                    self._promised.add(chunk_id)
                    found[row] = True
        if not found.all():  # stored between the two looks
            found |= self.resolved(ids)
        return found

    def stored(self, ids: U8) -> Bool:
        """Which of ``ids[m, 32]`` are in a pack of this run."""
        with self._lock:
            return self._stored.contains(ids)

    @property
    def broken(self) -> int:
        """Chunks that were promised and are not stored: in the end there must be none."""
        with self._lock:
            return len(self._promised)

    def _is_dead(self, holder: str) -> bool:
        return holder in self._released or holder.startswith(self._gone)

    def __len__(self) -> int:
        """Ids stored in this run."""
        return len(self._stored)


class OwnCopies(ClaimTable):
    """Of a run that stores all it reads: nobody claims anything, and rows wait for what the run itself has stored.

    That the repository has a chunk already counts for manifests alone.
    """

    def settled(self, ids: U8) -> Bool:
        """Which of ``ids[m, 32]`` are in a pack of this run, whatever else there is."""
        return self.stored(ids)

    def promised(self, ids: U8, mine: str) -> Bool:
        """As `settled`, for all hosts of the run."""
        return self.stored(ids)


def claims_of(index: Known, deduplicates: bool) -> ClaimTable:
    """The claims of a run that asks who stores a chunk, or of one that stores whatever it reads."""
    return ClaimTable(index) if deduplicates else OwnCopies(index)


class Asked(Protocol):
    """`ClaimTable`, or a proxy of it."""

    def claim(self, ids: U8, owner: str) -> Bool: ...
    def release(self, owner: str) -> None: ...
    def resolved(self, ids: U8) -> Bool: ...
    def promised(self, ids: U8, mine: str) -> Bool: ...


class HostClaims:
    """The claims of a run as one of its hosts sees them, in the `life`-th process there.

    A host does not wait for what others store: their packs may take long to fill, and they may be waiting for its own.
    That they kept their word is proved when all are done.
    """

    def __init__(self, table: Asked, host: str, life: int) -> None:
        self._table = table
        self._host = host
        self._life = life

    @staticmethod
    def owners(host: str, life: int = 0) -> str:
        """What the names of all owners of this host begin with, of one life if it is given."""
        return f"{host}/{life}/" if life else f"{host}/"

    def claim(self, ids: U8, owner: str) -> Bool:
        """See `ClaimTable.claim`."""
        return self._table.claim(ids, self.owners(self._host, self._life) + owner)

    def release(self, owner: str) -> None:
        """See `ClaimTable.release`."""
        self._table.release(self.owners(self._host, self._life) + owner)

    def resolved(self, ids: U8) -> Bool:
        """See `ClaimTable.resolved`."""
        return self._table.resolved(ids)

    def settled(self, ids: U8) -> Bool:
        """Which of ``ids[m, 32]`` are stored, or will be by another host."""
        return self._table.promised(ids, self.owners(self._host))


def split_ids(ids: U8) -> list[bytes]:
    """``ids[m, 32]`` as bytes objects."""
    blob = ids.tobytes()
    return [blob[at : at + 32] for at in range(0, len(blob), 32)]
