"""Which snapshots and files a damage concerns: every manifest is followed to the places of its chunks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa

from model.entries import I32, I64, U8, Bool
from model.errors import Damaged, LoxError
from repository.entry_table import ChunkLists, chunks_of, column
from repository.fetch import ChunkFetcher
from repository.index import ChunkIndex, Locations
from repository.manifest_reader import ManifestReader
from repository.part_codec import PartRef
from repository.repository import Repository
from repository.snapshot import Snapshot

WOUNDS_MAX = 100_000  # files of which it is kept what they lack


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
        self._chunks: dict[tuple[int, bytes], int] = {}  # row of a segment, and id
        self.findings: list[Finding] = []

    @property
    def segments(self) -> Bool:
        """Which segments of the index are lost, or hold a chunk that is."""
        marked: Bool = self._segments >= 0
        marked[[segment for segment, _ in self._chunks]] = True
        return marked

    def lose_pack(self, pack: int, finding: Finding, beyond: int = 0) -> None:
        """All segments of the pack in row `pack` that end after its first `beyond` bytes are lost."""
        segments = self._index.segments
        ends = segments.offset.astype(np.int64) + segments.stored
        self._segments[(segments.pack == pack) & (ends > beyond)] = self._number(finding)

    def lose_segments(self, pack: int, ordinals: Collection[int], finding: Finding) -> None:
        """These segments of the pack in row `pack` are lost."""
        segments = self._index.segments
        lost = (segments.pack == pack) & np.isin(segments.ordinal, list(ordinals))
        self._segments[lost] = self._number(finding)

    def lose_chunks(self, pack: int, chunks: Sequence[tuple[int, bytes]], finding: Finding) -> None:
        """These chunks, by ordinal of their segment and id, of the pack in row `pack` are lost."""
        number, segments = self._number(finding), self._index.segments
        for ordinal, chunk_id in chunks:
            for segment in np.flatnonzero((segments.pack == pack) & (segments.ordinal == ordinal)).tolist():
                self._chunks[segment, chunk_id] = number

    def of(self, where: Locations, ids: bytes) -> I64:
        """For each chunk the number of the finding why it is lost, -1 if it is not. `ids` are 32 bytes each."""
        numbers = np.full(len(where.found), -1, np.int64)
        numbers[where.found] = self._segments[where.segment[where.found]]
        if self._chunks:
            for row in np.flatnonzero(where.found).tolist():
                number = self._chunks.get((int(where.segment[row]), ids[32 * row : 32 * row + 32]), -1)
                numbers[row] = max(int(numbers[row]), number)
        return numbers

    def _number(self, finding: Finding) -> int:
        self.findings.append(finding)
        return len(self.findings) - 1


@dataclass(frozen=True, slots=True)
class Wound:
    """A file that cannot be restored whole, in these snapshots, for want of these chunks."""

    path: bytes
    snapshots: tuple[str, ...]
    chunks: frozenset[bytes]


class Survey:
    """Follows the manifests of all snapshots; a part that several share is followed once.

    `used` are the segments of the index that some snapshot needs, as far as manifests could be followed; `needed` the
    chunks that snapshots need of each of the packs `watched`; `wounds` the files concerned, up to `WOUNDS_MAX`; `bad`
    packs in which manifests could not be read, though in others.
    """

    def __init__(
        self,
        repository: Repository,
        index: ChunkIndex,
        losses: Losses,
        report: Report,
        progress: Callable[[str, int, int], None],
        watched: Collection[bytes] = (),
    ) -> None:
        self._fetcher = ChunkFetcher(repository, self)
        self._rereads = repository.rereads
        self._index = index
        self.used: Bool = np.zeros(len(index.segments), dtype=bool)
        self._losses = losses
        self._report = report
        self._progress = progress
        self._unindexed: dict[tuple[str, ...], Finding] = {}
        self._watched: Bool = np.array([pack in watched for pack in index.packs], dtype=bool)
        self.needed: dict[bytes, set[bytes]] = {}
        self.wounds: list[Wound] = []
        self.bad: list[bytes] = []
        self.unlisted: list[str] = []  # snapshots of which some entries are not even known
        self.obstacles: list[LoxError] = []  # why something could not be followed, though it may be sound

    def run(self, snapshots: Sequence[Snapshot]) -> int:
        """Report everything that is lost of these snapshots; how many different entries were looked at."""
        owners: dict[PartRef, list[str]] = {}
        readers: dict[PartRef, tuple[ManifestReader, int]] = {}
        for snapshot in snapshots:
            try:
                reader = ManifestReader(snapshot.root, self._fetcher.fetch, snapshot.name)
            except LoxError as error:
                self._obstacle(error)
                self._report(snapshot.name, f"its entries cannot be read: {error}").affect([snapshot.id], [])
                self.unlisted.append(snapshot.id)
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
        self._tell_bad()
        return done

    def lookup(self, ids: U8) -> Locations:
        """Where chunks lie that a snapshot needs."""
        where = self._index.lookup(ids)
        self.used[where.segment[where.found]] = True
        if self._watched.any():
            found = np.flatnonzero(where.found)
            for row in found[self._watched[where.segments.pack[where.segment[found]]]].tolist():
                pack = where.packs[int(where.segments.pack[where.segment[row]])]
                self.needed.setdefault(pack, set()).add(ids[row].tobytes())
        return where

    def elsewhere(self, ids: U8, failed: I64) -> Locations:
        """Where chunks of manifests lie besides these segments, in which they could not be read."""
        where = self._index.lacking(failed).lookup(ids)
        self.used[where.segment[where.found]] = True
        return where

    def spoiled(self) -> dict[bytes, str]:
        """Packs that are missing were told of before manifests were followed."""
        return {}

    def _tell_bad(self) -> None:
        damaged = dict(self._rereads.damaged)
        self._rereads.damaged.clear()  # they are findings now
        for name, why in damaged.items():
            self._report(name, why)
            self.bad.append(bytes.fromhex(name.rpartition("/")[2]))

    def _follow(self, reader: ManifestReader, number: int, owners: list[str]) -> None:
        part = reader.parts[number]
        try:
            table = reader.part(number)
        except LoxError as error:
            self._obstacle(error)
            first, last = (path.decode(errors="replace") for path in (part.first, part.last))
            what = f"{part.rows} entries from /{first} to /{last} cannot be read: {error}"
            self._report(f"snapshots/{owners[0]}", what).affect(owners, [])
            self.unlisted += owners
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
                self._obstacle(error)
                finding = self._report(f"snapshots/{owners[0]}", f"the chunks of a long file are not known: {error}")
                path = entry["path"][0].as_py()
                finding.affect(owners, [path])
                lists = {row.tobytes() for row in chunks_of(entry).ids}
                self._wound(path, owners, lists)

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
        gone = wrong | (lost >= 0)
        hurt = np.unique(row[gone])[: max(0, WOUNDS_MAX - len(self.wounds))]
        for each, path in zip(hurt.tolist(), _paths(table, hurt), strict=True):
            self._wound(path, owners, {lists.ids[at].tobytes() for at in np.flatnonzero(gone & (row == each))})

    def _obstacle(self, error: LoxError) -> None:
        if not isinstance(error, Damaged):
            self.obstacles.append(error)

    def _wound(self, path: bytes, owners: list[str], chunks: set[bytes]) -> None:
        if len(self.wounds) < WOUNDS_MAX:
            self.wounds.append(Wound(path, tuple(owners), frozenset(chunks)))

    def _unknown(self, owners: list[str]) -> Finding:
        key = tuple(owners)
        if key not in self._unindexed:
            self._unindexed[key] = self._report(f"snapshots/{owners[0]}", "chunks of its files are in no index")
        return self._unindexed[key]


def _paths(table: pa.Table, rows: I64) -> list[bytes]:
    paths: list[bytes] = table["path"].take(pa.array(rows)).to_pylist()
    return paths
