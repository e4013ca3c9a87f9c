"""What forgetting snapshots would free: the chunks that only they need, as a set.

The bytes are an estimate: chunks share compressed segments, and a segment's stored bytes are shared out by the plain
length of its chunks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from repository.index import ChunkIndex
from repository.index_table import listed_again
from repository.needs import Needs, Progress
from repository.repository import Repository
from repository.snapshot import Snapshot

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
    # A pack that two index objects list is one pack: what lies in it is found in the first list only.
    needs = Needs(repository, index.doubting(listed_again(index.pack_table)[index.segments.pack]))
    kept_parts = needs.roots(kept, _KEPT, progress)
    gone_parts = [part for part in needs.roots(forgotten, _FORGOTTEN, progress) if part not in kept_parts]
    if not gone_parts and not any(bool((marks == _FORGOTTEN).any()) for marks in needs.marks):
        return Freed(0, 0, 0, 0, 0, 0)
    needs.follow(gone_parts, _FORGOTTEN, progress)
    needs.follow(kept_parts, _KEPT, progress)
    return _total(needs)


def _total(needs: Needs) -> Freed:
    """Add up what carries no mark but that of the forgotten."""
    index, segments = needs.index, needs.index.segments
    gone: npt.NDArray[np.float64] = np.zeros(len(segments))
    kept = np.zeros(len(segments), bool)
    chunks, base = 0, 0
    for table, marks in zip(index.tables, needs.marks, strict=True):
        rows = np.flatnonzero(marks == _FORGOTTEN)
        here = slice(base, base + len(table.segments))
        size = len(table.segments)
        gone[here] = np.bincount(table.segment[rows], weights=table.length[rows], minlength=size)
        kept[base + np.unique(table.segment[np.flatnonzero(marks & _KEPT)])] = True
        chunks, base = chunks + len(rows), base + size
    share = np.minimum(gone / np.maximum(segments.plain, 1), 1.0)
    packs = np.unique(segments.pack[gone > 0])
    whole = np.setdiff1d(packs, segments.pack[kept])
    sizes = index.pack_table["size"]
    return Freed(
        chunks=chunks,
        plain=int(gone.sum()),
        stored=int((share * segments.stored).sum()),
        packs=len(packs),
        whole_packs=len(whole),
        whole_bytes=int(sizes[whole].sum(dtype=np.int64)),
    )
