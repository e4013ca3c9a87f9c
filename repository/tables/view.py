"""A repository as it was at one moment: what the store listed, the snapshots, and where chunks lie."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import numpy as np

from model.entries import I64, U8, Bool
from model.errors import Damaged, LoxError
from repository.annotations import Annotations, load_annotations
from repository.cache import unlisted_packs
from repository.condemned import load_condemned
from repository.fetch import ChunkFetcher
from repository.index import ChunkIndex
from repository.index_table import listed_again
from repository.manifest_reader import ManifestReader
from repository.repository import Repository
from repository.snapshot import SNAPSHOT_PREFIX, Snapshot, Snapshots, choose, load_all
from repository.trash import Trashed, load_trash

PACK_PREFIX = "packs/"


class View:
    """What is asked for first is read from the store, and then stays as it was: all tables of a view agree.

    `cache_dir` is that of the index (None: in memory only); damage that hides no answer is told to `on_damage`.
    """

    def __init__(
        self, repository: Repository, cache_dir: Path | None, on_damage: Callable[[LoxError], None] = lambda error: None
    ) -> None:
        self.repository = repository
        self._cache_dir = cache_dir
        self._on_damage = on_damage

    @cached_property
    def _named(self) -> list[tuple[str, int]]:
        """The snapshot objects, listed before all else: what they need is in whatever is listed after them."""
        return list(self.repository.store.list(SNAPSHOT_PREFIX))

    @cached_property
    def objects(self) -> dict[str, int]:
        """Name → bytes of every object in the store."""
        _ = self._named
        return dict(self.repository.store.list())

    @cached_property
    def pack_sizes(self) -> dict[bytes, int]:
        """Pack id → bytes in the store."""
        found = {}
        for name, size in self.objects.items():
            if (pack := _pack_id(name)) is not None:
                found[pack] = size
        return found

    def pruned_meanwhile(self) -> bool:
        """Whether packs that were there have been deleted since: what they held may lie elsewhere now."""
        if "objects" not in self.__dict__:
            return False
        now = {name for name, _ in self.repository.store.list(PACK_PREFIX)}
        return any(name not in now for name in self.objects if name.startswith(PACK_PREFIX))

    @cached_property
    def snapshots(self) -> Snapshots:
        """All that can be read, oldest first; others are in its `unreadable`."""
        return load_all(self.repository, self._cache_dir, self._named)

    @cached_property
    def annotations(self) -> Annotations:
        """What is said about snapshots since they were made."""
        return load_annotations(self.repository, None, self._cache_dir)

    @cached_property
    def trash(self) -> list[Trashed]:
        """Forgotten snapshots whose data is still needed, without those that are there as well."""
        _ = self._named
        live = {name.removeprefix(SNAPSHOT_PREFIX) for name, _ in self._named}
        found = load_trash(self.repository, lambda name, error: self._on_damage(error), self._cache_dir)
        return [one for one in found if one.id not in live]

    @cached_property
    def condemned(self) -> frozenset[bytes]:
        """Packs on their way out."""
        return frozenset(pack for mark in load_condemned(self.repository, self._on_damage) for pack in mark.packs)

    @cached_property
    def index(self) -> ChunkIndex:
        """Where chunks lie, of each the copy that a reader would take; packs that are not in the store do not count."""
        damaged: list[Damaged] = []
        _ = self.snapshots, self.condemned  # before the index: what they name is then in it
        index = ChunkIndex.load(self.repository, self._cache_dir, damaged.append)
        for error in damaged:
            self._on_damage(error)
        if damaged:  # what the damaged objects said is asked of the packs
            index = ChunkIndex([*index.tables, *unlisted_packs(self.repository, index.tables, self._on_damage)])
        index = index.present(self.pack_sizes).doubting_written().doubting_packs(self.condemned)
        return index.doubting(listed_again(index.pack_table)[index.segments.pack])

    @cached_property
    def fetcher(self) -> ChunkFetcher:
        """Gets chunks by id."""
        return ChunkFetcher(self.repository, self.index)

    @cached_property
    def bases(self) -> I64:
        """Number of the first chunk of each table of the index; the last is the number of all rows."""
        return np.cumsum([0, *(len(table) for table in self.index.tables)])

    @cached_property
    def counted(self) -> Bool:
        """Which segments (by row of the index) are in the store; of a pack that is listed twice, those listed first."""
        index = self.index
        sizes = zip(index.packs, index.pack_table["size"].tolist(), strict=True)
        there = np.array([self.pack_sizes.get(pack) == size for pack, size in sizes], bool)
        counted: Bool = (there & ~listed_again(index.pack_table))[index.segments.pack]
        return counted

    def rows_of(self, ids: U8) -> I64:
        """Number of each of ``ids[m, 32]`` among all rows of the index, tables one after the other; -1: not found."""
        number, row = self.index.find(ids)
        return np.where(number < 0, -1, self.bases[number] + row)

    def snapshot(self, reference: str | Snapshot) -> Snapshot:
        """The one meant by an id, the beginning of one, or ``latest``. Raises NotFound."""
        if isinstance(reference, Snapshot):
            return reference
        return choose(self.snapshots, reference, self.repository.store.url)

    def manifest(self, snapshot: Snapshot, fetcher: ChunkFetcher | None = None) -> ManifestReader:
        """Its entries. Raises Damaged."""
        return ManifestReader(snapshot.root, (fetcher or self.fetcher).fetch, snapshot.name)


def _pack_id(name: str) -> bytes | None:
    folder, _, text = name.removeprefix(PACK_PREFIX).partition("/")
    if not name.startswith(PACK_PREFIX) or len(text) != 32 or text[:2] != folder or set(text) - set("0123456789abcdef"):
        return None
    return bytes.fromhex(text)
