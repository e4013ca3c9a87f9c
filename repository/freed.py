"""What forgetting snapshots would free: the chunks that only they need, as a set.

Every manifest part is read once, and one byte for each chunk of the index says who needs it. So memory grows with the
index (4 MiB for 4 million chunks), not with the snapshots. The bytes are an estimate: chunks share compressed segments,
and a segment's stored bytes are shared out by the plain length of its chunks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from model.entries import U8
from repository.fetch import ChunkFetcher
from repository.index import ChunkIndex, Locations
from repository.manifest_reader import ManifestReader
from repository.part_codec import PartRef
from repository.repository import Repository
from repository.snapshot import Snapshot

Progress = Callable[[str, int, int], None]
"""(what is being done, how much of it is done, how much there is); may raise to end it."""

_KEPT, _FORGOTTEN = 1, 2


@dataclass(frozen=True, slots=True)
class Freed:
    """What garbage collection can free once the snapshots are gone for good.

    `stored` are bytes in the store, estimated; `plain` bytes before compression, exact. Of the `packs` that hold some
    of it, those in `whole_packs` hold nothing else that is needed; they have `whole_bytes` and need only be deleted.
    """

    chunks: int
    plain: int
    stored: int
    packs: int
    whole_packs: int
    whole_bytes: int


def freed_by_forgetting(
    repository: Repository,
    index: ChunkIndex,
    forgotten: Sequence[Snapshot],
    kept: Sequence[Snapshot],
    progress: Progress = lambda what, done, total: None,
) -> Freed:
    """What only `forgotten` snapshots need; `kept` are all others, those in the trash too.

    Raises Damaged if a manifest cannot be read: then nobody knows what is needed. And what `progress` raises.
    """
    needs = _Needs(repository, index)
    kept_parts = needs.roots(kept, _KEPT)
    gone_parts = {part: where for part, where in needs.roots(forgotten, _FORGOTTEN).items() if part not in kept_parts}
    total = sum(part.rows for part in [*kept_parts, *gone_parts])
    done = 0
    for parts, mark in ((gone_parts, _FORGOTTEN), (kept_parts, _KEPT)):
        for part, (reader, number) in parts.items():
            progress("following manifests", done, total)
            needs.follow(reader, number, mark)
            done += part.rows
    return needs.total()


class _Needs:
    """Who needs each chunk of the index, a byte of marks for each row of its tables."""

    def __init__(self, repository: Repository, index: ChunkIndex) -> None:
        self._index = index
        self._fetcher = ChunkFetcher(repository, self)
        self._marks: list[U8] = [np.zeros(len(table), np.uint8) for table in index.tables]
        self._mark = 0

    def roots(self, snapshots: Iterable[Snapshot], mark: int) -> dict[PartRef, tuple[ManifestReader, int]]:
        """The different parts of these snapshots, and where each is read from; marks the tables of parts."""
        self._mark = mark
        parts: dict[PartRef, tuple[ManifestReader, int]] = {}
        for snapshot in snapshots:
            reader = ManifestReader(snapshot.root, self._fetcher.fetch, snapshot.name)
            for number, part in enumerate(reader.parts):
                parts.setdefault(part, (reader, number))
        return parts

    def follow(self, reader: ManifestReader, number: int, mark: int) -> None:
        """Mark a part, the lists of its long files, and all chunks of content."""
        self._mark = mark
        self.lookup(reader.content(reader.part(number)).ids)

    def lookup(self, ids: U8) -> Locations:
        """Where chunks lie; whatever is asked for here is needed, by whom the present mark says."""
        missed = np.arange(len(ids))
        for table, marks in zip(self._index.tables, self._marks, strict=True):
            rows = table.find(ids[missed])
            marks[rows[rows >= 0]] |= np.uint8(self._mark)
            missed = missed[rows < 0]
        return self._index.lookup(ids)

    def total(self) -> Freed:
        """Add up what carries no mark but that of the forgotten."""
        segments = self._index.segments
        gone: npt.NDArray[np.float64] = np.zeros(len(segments))
        kept = np.zeros(len(segments), bool)
        chunks, base = 0, 0
        for table, marks in zip(self._index.tables, self._marks, strict=True):
            rows = np.flatnonzero(marks == _FORGOTTEN)
            here = slice(base, base + len(table.segments))
            size = len(table.segments)
            gone[here] = np.bincount(table.segment[rows], weights=table.length[rows], minlength=size)
            kept[base + np.unique(table.segment[np.flatnonzero(marks & _KEPT)])] = True
            chunks, base = chunks + len(rows), base + size
        share = np.minimum(gone / np.maximum(segments.plain, 1), 1.0)
        packs = np.unique(segments.pack[gone > 0])
        whole = np.setdiff1d(packs, segments.pack[kept])
        sizes = self._index.pack_table["size"]
        return Freed(
            chunks=chunks,
            plain=int(gone.sum()),
            stored=int((share * segments.stored).sum()),
            packs=len(packs),
            whole_packs=len(whole),
            whole_bytes=int(sizes[whole].sum(dtype=np.int64)),
        )
