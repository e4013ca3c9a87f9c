"""What forgetting snapshots would free: the chunks that only they need, as a set.

Every manifest part is read once, and one byte for each chunk of the index says who needs it. So memory grows with the
index (4 MiB for 4 million chunks) and the number of different parts, not with the entries. The bytes are an estimate:
chunks share compressed segments, and a segment's stored bytes are shared out by the plain length of its chunks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from model.entries import U8
from model.errors import Damaged
from repository.fetch import ChunkFetcher
from repository.index import ChunkIndex, Locations
from repository.manifest_reader import ManifestReader
from repository.manifest_root import ManifestRoot
from repository.part_codec import PartRef, decode_part
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
    kept_parts = needs.roots(kept, _KEPT, progress)
    gone_parts = [part for part in needs.roots(forgotten, _FORGOTTEN, progress) if part not in kept_parts]
    if not gone_parts and not needs.any_gone():
        return Freed(0, 0, 0, 0, 0, 0)
    total = sum(part.rows for part in [*kept_parts, *gone_parts])
    done = 0
    for parts, mark in ((gone_parts, _FORGOTTEN), (list(kept_parts), _KEPT)):
        for part in parts:
            progress("following manifests", done, total)
            needs.follow(part, mark)
            done += part.rows
    return needs.total()


class _Needs:
    """Who needs each chunk of the index, a byte of marks for each row of its tables."""

    def __init__(self, repository: Repository, index: ChunkIndex) -> None:
        self._index = index
        self._fetcher = ChunkFetcher(repository, self)
        self._marks: list[U8] = [np.zeros(len(table), np.uint8) for table in index.tables]
        self._mark = 0
        self._reader: ManifestReader | None = None  # any: each can read the lists of long files

    def roots(self, snapshots: Sequence[Snapshot], mark: int, progress: Progress) -> dict[PartRef, None]:
        """The different parts of these snapshots, neighbours side by side; marks the tables of parts."""
        self._mark = mark
        parts: dict[PartRef, None] = {}
        roots: set[ManifestRoot] = set()
        for number, snapshot in enumerate(snapshots):
            progress("opening manifests", number, len(snapshots))
            if snapshot.root not in roots:  # nothing had changed since another
                roots.add(snapshot.root)
                self._reader = ManifestReader(snapshot.root, self._fetcher.fetch, snapshot.name)
                parts |= dict.fromkeys(self._reader.parts)
        return parts

    def follow(self, part: PartRef, mark: int) -> None:
        """Mark a part, the lists of its long files, and all chunks of content."""
        self._mark = mark
        (plain,) = self._fetcher.fetch([part.id])
        if len(plain) != part.length:
            raise Damaged("a part of a manifest has another length than recorded", subject=part.id.hex())
        assert self._reader is not None, "the part was found by one"
        self.lookup(self._reader.content(decode_part(plain, part, "manifest")).ids)

    def any_gone(self) -> bool:
        """Whether anything carries no mark but that of the forgotten."""
        return any(bool((marks == _FORGOTTEN).any()) for marks in self._marks)

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
