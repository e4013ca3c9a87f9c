"""Which snapshots and files a damage concerns: every manifest is followed to the places of its chunks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import pyarrow as pa

from model.entries import I32, I64, U8, Bool
from model.errors import LoxError
from repository.entry_table import ChunkLists, column
from repository.fetch import ChunkFetcher
from repository.index import ChunkIndex, Locations
from repository.manifest_reader import ManifestReader
from repository.part_codec import PartRef
from repository.repository import Repository
from repository.snapshot import Snapshot


class Finding(Protocol):
    """What a loss is reported as."""

    def affect(self, snapshots: list[str], paths: list[bytes]) -> None: ...


Report = Callable[[str, str], Finding]
"""A new finding about an object, in words."""


class Losses:
    """What cannot be had from packs, by segment and by chunk, and the finding that says why."""

    def __init__(self, index: ChunkIndex) -> None:
        self._index = index
        self._segments: I32 = np.full(len(index.segments), -1, np.int32)  # number of the finding, -1: not lost
        self._chunks: dict[tuple[int, bytes], int] = {}  # of a pack and id
        self.findings: list[Finding] = []

    def lose_pack(self, pack: int, finding: Finding, beyond: int = 0) -> None:
        """All segments of the pack in row `pack` that end after its first `beyond` bytes are lost."""
        segments = self._index.segments
        ends = segments.offset.astype(np.int64) + segments.stored
        self._segments[(segments.pack == pack) & (ends > beyond)] = self._number(finding)

    def lose_chunks(self, pack: int, ids: Sequence[bytes], finding: Finding) -> None:
        """These chunks of the pack in row `pack` are lost."""
        self._chunks.update(dict.fromkeys(((pack, chunk_id) for chunk_id in ids), self._number(finding)))

    def of(self, where: Locations, ids: bytes) -> I64:
        """For each chunk the number of the finding why it is lost, -1 if it is not. `ids` are 32 bytes each."""
        numbers = np.full(len(where.found), -1, np.int64)
        numbers[where.found] = self._segments[where.segment[where.found]]
        if self._chunks:
            for row in np.flatnonzero(where.found).tolist():
                pack = int(where.segments.pack[where.segment[row]])
                number = self._chunks.get((pack, ids[32 * row : 32 * row + 32]), -1)
                numbers[row] = max(int(numbers[row]), number)
        return numbers

    def _number(self, finding: Finding) -> int:
        self.findings.append(finding)
        return len(self.findings) - 1


class Survey:
    """Follows the manifests of all snapshots; a part that several share is followed once.

    `used` are the segments of the index that some snapshot needs, as far as manifests could be followed.
    """

    def __init__(
        self,
        repository: Repository,
        index: ChunkIndex,
        losses: Losses,
        report: Report,
        progress: Callable[[str, int, int], None],
    ) -> None:
        self._fetcher = ChunkFetcher(repository, self)
        self._index = index
        self.used: Bool = np.zeros(len(index.segments), dtype=bool)
        self._losses = losses
        self._report = report
        self._progress = progress
        self._unindexed: dict[tuple[str, ...], Finding] = {}

    def run(self, snapshots: Sequence[Snapshot]) -> int:
        """Report everything that is lost of these snapshots; how many different entries were looked at."""
        owners: dict[PartRef, list[str]] = {}
        readers: dict[PartRef, tuple[ManifestReader, int]] = {}
        for snapshot in snapshots:
            try:
                reader = ManifestReader(snapshot.root, self._fetcher.fetch, snapshot.name)
            except LoxError as error:
                self._report(snapshot.name, f"its entries cannot be read: {error}").affect([snapshot.id], [])
                continue
            for number, part in enumerate(reader.parts):
                owners.setdefault(part, []).append(snapshot.id)
                readers.setdefault(part, (reader, number))
        total = sum(part.rows for part in owners)
        done = 0
        for part, owner in owners.items():
            self._progress("following manifests", done, total)
            self._follow(*readers[part], owner)
            done += part.rows
        return done

    def lookup(self, ids: U8) -> Locations:
        """Where chunks lie that a snapshot needs."""
        where = self._index.lookup(ids)
        self.used[where.segment[where.found]] = True
        return where

    def _follow(self, reader: ManifestReader, number: int, owners: list[str]) -> None:
        part = reader.parts[number]
        try:
            table = reader.part(number)
        except LoxError as error:
            first, last = (path.decode(errors="replace") for path in (part.first, part.last))
            what = f"{part.rows} entries from /{first} to /{last} cannot be read: {error}"
            self._report(f"snapshots/{owners[0]}", what).affect(owners, [])
            return
        try:
            self._locate(table, reader.content(table), owners)
        except LoxError:
            self._one_by_one(reader, table, owners)

    def _one_by_one(self, reader: ManifestReader, table: pa.Table, owners: list[str]) -> None:
        """Of a part with long files, some lists of which cannot be had."""
        long = column(table, "depth") == 1
        short = table.filter(pa.array(~long))
        self._locate(short, reader.content(short), owners)
        for row in np.flatnonzero(long).tolist():
            entry = table.slice(row, 1)
            try:
                self._locate(entry, reader.content(entry), owners)
            except LoxError as error:
                finding = self._report(f"snapshots/{owners[0]}", f"the chunks of a long file are not known: {error}")
                finding.affect(owners, [entry["path"][0].as_py()])

    def _locate(self, table: pa.Table, lists: ChunkLists, owners: list[str]) -> None:
        where = self.lookup(lists.ids)
        lost = self._losses.of(where, lists.ids.tobytes())
        wrong = ~where.found | (where.length != lists.length)
        if not wrong.any() and (lost < 0).all():
            return
        row = np.repeat(np.arange(len(lists)), np.diff(lists.offsets))
        for number in np.unique(lost[lost >= 0]).tolist():
            self._losses.findings[number].affect(owners, _paths(table, np.unique(row[lost == number])))
        if wrong.any():
            self._unknown(owners).affect(owners, _paths(table, np.unique(row[wrong])))

    def _unknown(self, owners: list[str]) -> Finding:
        key = tuple(owners)
        if key not in self._unindexed:
            self._unindexed[key] = self._report(f"snapshots/{owners[0]}", "chunks of its files are in no index")
        return self._unindexed[key]


def _paths(table: pa.Table, rows: I64) -> list[bytes]:
    paths: list[bytes] = table["path"].take(pa.array(rows)).to_pylist()
    return paths
