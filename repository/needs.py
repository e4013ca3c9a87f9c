"""Who needs which chunks: each manifest part is followed once, a byte for each row of the index remembers for whom.

So memory grows with the index (4 MiB for 4 million chunks) and the number of different parts, not with the entries.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

import numpy as np

from model.entries import I64, U8, Bool
from model.errors import Damaged
from repository.fetch import ChunkFetcher
from repository.index import ChunkIndex, Locations
from repository.manifest_reader import ManifestReader
from repository.manifest_root import ManifestRoot
from repository.part_codec import PartRef, decode_part
from repository.repository import Repository
from repository.snapshot import Snapshot

IDS_MAX = 1 << 16  # rows of the index gone through at a time

Progress = Callable[[str, int, int], None]
"""(what is being done, how much of it is done, how much there is); may raise to end it."""


class Needs:
    """Marks of needed chunks: bit masks, one byte for each row of each table of `index`.

    Of a chunk that lies in several places the one that is doubted least is marked, the same whenever it is asked for.
    `missing` counts chunks that are in no pack of the index (each time they are asked for).
    """

    def __init__(self, repository: Repository, index: ChunkIndex) -> None:
        self.index = index
        self.marks: list[U8] = [np.zeros(len(table), np.uint8) for table in index.tables]
        self.missing = 0
        self._fetcher = ChunkFetcher(repository, self)
        self._mark = 0
        self._reader: ManifestReader | None = None  # any: each can read the lists of long files

    def roots(self, snapshots: Sequence[Snapshot], mark: int, progress: Progress) -> dict[PartRef, None]:
        """The different parts of these snapshots, neighbours side by side; marks the tables of parts.

        Raises Damaged for one that cannot be read, StoreError, and what `progress` raises.
        """
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

    def follow(self, parts: Iterable[PartRef], mark: int, progress: Progress) -> None:
        """Mark parts, the lists of their long files, and all chunks of content. Raises as `roots`."""
        self._mark = mark
        parts = list(parts)
        done, total = 0, sum(part.rows for part in parts)
        for part in parts:
            progress("following manifests", done, total)
            (plain,) = self._fetcher.fetch([part.id])
            if len(plain) != part.length:
                raise Damaged("a part of a manifest has another length than recorded", subject=part.id.hex())
            assert self._reader is not None, "the part was found by one"
            self.lookup(self._reader.content(decode_part(plain, part, "manifest")).ids)
            done += part.rows

    def need(self, ids: U8, mark: int) -> None:
        """Mark these chunks."""
        self._mark = mark
        self.lookup(ids)

    def keep_written(self, rewritten: Collection[bytes], condemned: Collection[bytes]) -> None:
        """What is needed is needed in packs of write-only machines as well, wherever else it is found.

        They know of no copy but their own and would store it again; and of two such copies nobody knows which is true.
        Out of packs that were `rewritten` it was proved and copied, and those machines are to store it again: there
        what a pack of others has that is not `condemned` is needed no more, or it would be copied again and again.
        """
        index = self.index
        inside = (index.pack_table["written"] != 0)[index.segments.pack]
        if not inside.any():
            return
        copied, safe = self._segments_of(rewritten), ~inside & ~self._segments_of(condemned)
        base = 0
        for table, marks in zip(index.tables, self.marks, strict=True):
            for at in range(0, len(table), IDS_MAX):
                segment = base + table.segment[at : at + IDS_MAX].astype(np.int64)
                here = np.flatnonzero((marks[at : at + IDS_MAX] == 0) & inside[segment])
                found, place = self._best_of(table.ids[at + here])
                marks[at + here] = np.where(copied[segment[here]] & safe[place], 0, found)
            base += len(table.segments)

    def _best_of(self, ids: U8) -> tuple[U8, I64]:
        """The marks of the copies that are found of these chunks, and the segments they lie in."""
        number, row = self.index.find(ids)
        found = np.zeros(len(ids), np.uint8)
        for at, marks in enumerate(self.marks):
            found[number == at] = marks[row[number == at]]
        return found, self.index.locations(number, row).segment

    def _segments_of(self, packs: Collection[bytes]) -> Bool:
        """Which segments of the index lie in these packs."""
        inside: Bool = np.array([pack in packs for pack in self.index.packs], dtype=bool)[self.index.segments.pack]
        return inside

    def ids_in(self, packs: Collection[bytes]) -> Iterator[U8]:
        """Ids of the chunks needed out of these packs, some at a time."""
        inside = self._segments_of(packs)
        base = 0
        for table, marks in zip(self.index.tables, self.marks, strict=True):
            for at in range(0, len(table), IDS_MAX):
                rows = at + np.flatnonzero(marks[at : at + IDS_MAX])
                rows = rows[inside[base + table.segment[rows].astype(np.int64)]]
                yield table.ids[rows]
            base += len(table.segments)

    def let_go(self) -> None:
        """The end: the index and what was opened of it may go, though the fetcher knows us and we know the fetcher."""
        del self._fetcher, self._reader, self.index

    def lookup(self, ids: U8) -> Locations:
        """Where chunks lie; whatever is asked for here is needed, by whom the present mark says."""
        assert self._mark, "a need of nobody would be no need"
        number, row = self.index.find(ids)
        self.missing += int((number < 0).sum())
        for at, marks in enumerate(self.marks):
            marks[row[number == at]] |= np.uint8(self._mark)
        return self.index.locations(number, row)
