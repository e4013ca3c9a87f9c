"""The index for those who only read: it knows all copies of a chunk, and what index objects no longer say."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np

from model.entries import I64, U8
from model.errors import Damaged
from repository.cache import list_packs, unlisted_packs
from repository.condemned import load_condemned
from repository.index import ChunkIndex, Locations
from repository.index_table import INDEX_PREFIX
from repository.pack import pack_name
from repository.repository import Repository


class ReadingIndex:
    """The index for those who only read: what index objects no longer say is asked of the packs themselves.

    Damaged index objects are reported to `on_damage` and left out. Packs that no index object names are asked once,
    when a chunk is first looked for in vain; if that helps, an index object is missing: reported too. Of a chunk that
    lies in several packs, a copy in a condemned pack is the last resort. Thread-safe.
    """

    def __init__(self, repository: Repository, cache_dir: Path | None, on_damage: Callable[[Damaged], None]) -> None:
        self._repository = repository
        self._cache_dir = cache_dir
        self._on_damage = on_damage
        self._condemned = frozenset(
            pack for mark in load_condemned(repository, on_damage) for pack in mark.packs
        )  # before the index: what replaces them is then in it
        self._index = self._ranked(ChunkIndex.load(repository, cache_dir, on_damage))
        self._lock = threading.Lock()
        self._asked = False
        self._spoiled: dict[bytes, str] | None = (
            None  # packs that are not there as they should be; None: not looked yet
        )
        self._gone = ChunkIndex([])  # what lies in packs that are not there

    @property
    def known(self) -> ChunkIndex:
        """All that is known up to now; tables come on top of it, none changes its place."""
        return self._index

    def lookup(self, ids: U8) -> Locations:
        """Where ``ids[m, 32]`` lie; rows of segments keep their numbers from one call to the next."""
        where = self._index.lookup(ids)
        if not where.found.all():
            with self._lock:
                if not self._asked:
                    self._asked = True
                    self._ask_packs(ids[~where.found])
            where = self._index.lookup(ids)
        if self._index.absent is not None:
            self._tell_spoiled(ids[where.found])
        return where

    def elsewhere(self, ids: U8, failed: I64) -> Locations:
        """Where ``ids[m, 32]`` lie besides these segments (by row), in which they could not be read."""
        self.lookup(ids)  # so that all packs were asked
        return self._index.lacking(failed).lookup(ids)

    def spoiled(self) -> dict[bytes, str]:
        """What is wrong with packs that are not in the store as they were stored, by their ids.

        None is one that a prune has just taken away, or a backup brought: the index names packs when they are there,
        and no more when they go; those that it names when they are gone are condemned.
        """
        condemned = {pack for mark in load_condemned(self._repository, _ignore) for pack in mark.packs}
        before = dict(list_packs(self._repository))
        index = ChunkIndex.load(self._repository, self._cache_dir, _ignore)
        after, wrong = dict(list_packs(self._repository)), dict[bytes, str]()
        for pack, size in zip(index.packs, index.pack_table["size"].tolist(), strict=True):
            if size not in (before.get(pack), after.get(pack)) and pack not in condemned:
                wrong[pack] = f"it has {after[pack]} bytes instead of {size}" if pack in after else "it is missing"
        return wrong

    def _ranked(self, index: ChunkIndex) -> ChunkIndex:
        return index.present(dict(list_packs(self._repository))).doubting_written().doubting_packs(self._condemned)

    def _ask_packs(self, missed: U8) -> None:
        tables = self._index.tables
        unlisted = ChunkIndex(unlisted_packs(self._repository, tables, self._on_damage))
        self._index = self._ranked(ChunkIndex([*tables, *unlisted.tables]))
        if unlisted.contains(missed).any():
            why = f"no index object names {len(unlisted.packs)} packs that are needed; they were asked themselves"
            self._on_damage(Damaged("an index object is missing", subject=INDEX_PREFIX, why=why))

    def _tell_spoiled(self, found: U8) -> None:
        """Packs that are missing or cut off: those in which chunks that were `found` in others lie as well."""
        with self._lock:
            if self._spoiled is None:
                self._spoiled = self.spoiled()
                absent = self._index.absent
                assert absent is not None, "that is why we are asked"
                self._gone = ChunkIndex(self._index.tables).lacking(np.flatnonzero(~absent))
            if not self._spoiled:
                return
        where = self._gone.lookup(found)
        for row in np.unique(where.segments.pack[where.segment[where.found]]).tolist():
            if (why := self._spoiled.get(where.packs[row])) is not None:
                self._repository.rereads.spared(pack_name(where.packs[row]), why)


def _ignore(error: Damaged) -> None:
    """It was told before."""
