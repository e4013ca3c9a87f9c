"""What a copy has to bring: which snapshots, and which of their chunks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from model.errors import Damaged, Interrupted
from pipelines.copy_renamed import RenamedParts
from pipelines.options import Progress, Watch
from repository.claims import ClaimTable
from repository.entry_table import chunks_of
from repository.fetch import ChunkFetcher
from repository.manifest_reader import ManifestReader
from repository.needed import Needed
from repository.reading_index import ReadingIndex
from repository.repository import Repository
from repository.snapshot import Snapshot, Snapshots
from repository.trash import Trashed


@dataclass(slots=True)
class Choice:
    """Which of the wanted snapshots are to be copied, oldest first, and why the others are not."""

    wanted: list[Snapshot]
    present: list[Snapshot] = field(default_factory=list)  # copied before, or made in the target
    trashed: list[Snapshot] = field(default_factory=list)  # copied before, and forgotten there
    known: dict[tuple[bytes, str], str] = field(default_factory=dict)  # what is in the target, by origin → its id there


def choose_missing(
    source: Repository, wanted: Sequence[Snapshot], target: Repository, there: Snapshots, trash: Sequence[Trashed]
) -> Choice:
    """What the target, which holds the snapshots `there`, does not have of `wanted`."""
    known = {snapshot.made_as(target.id): snapshot.id for snapshot in there}
    gone = {one.snapshot.made_as(target.id) for one in trash} - known.keys()
    choice = Choice([], known=known)
    for snapshot in sorted(wanted, key=lambda snapshot: (snapshot.time, snapshot.id)):
        origin = snapshot.made_as(source.id)
        where = choice.present if origin in known else choice.trashed if origin in gone else choice.wanted
        where.append(snapshot)
    return choice


class Survey:
    """Reads manifests of the source and marks what they need. Every part is read once, whoever shares it."""

    def __init__(self, source: Repository, index: ReadingIndex, renames: RenamedParts | None, watch: Watch) -> None:
        self.needed = Needed(index)
        self._fetcher = ChunkFetcher(source, index)
        self._renames = renames
        self._watch = watch
        self._parts: dict[bytes, str] = {}  # id → what is wrong with it

    def reader(self, snapshot: Snapshot) -> ManifestReader:
        """Raises Damaged."""
        return ManifestReader(snapshot.root, self._fetcher.fetch, snapshot.name)

    def read(self, snapshots: Sequence[Snapshot]) -> dict[str, str]:
        """Mark all they need; by id, what is wrong with those that are not whole. Raises Interrupted."""
        flawed: dict[str, str] = {}
        for number, snapshot in enumerate(snapshots):
            self._watch.progress(Progress("reading manifests", number, files_total=len(snapshots), noun="snapshots"))
            if wrong := self._read(snapshot):
                flawed[snapshot.id] = wrong
        return flawed

    def _read(self, snapshot: Snapshot) -> str:
        try:
            reader = self.reader(snapshot)
        except Damaged as error:
            return str(error)
        if self._renames is None:
            self.needed.mark(reader.root.ids)
        wrong = ""
        for number, part in enumerate(reader.parts):
            if self._watch.stop.is_set():
                raise Interrupted("interrupted", hint="nothing was copied yet")
            if part.id not in self._parts:
                self._parts[part.id] = self._part(reader, number)
            wrong = wrong or self._parts[part.id]
        return wrong

    def _part(self, reader: ManifestReader, number: int) -> str:
        part = reader.parts[number]
        if self._renames is not None and part.id in self._renames:
            return ""
        try:
            table = reader.part(number)
            ids = reader.content(table).ids
        except Damaged as error:
            return str(error)
        if self._renames is None:  # what holds it goes along as it is
            ids = np.concatenate([np.frombuffer(part.id, np.uint8).reshape(1, 32), chunks_of(table).ids, ids])
        lost = int((~self.needed.mark(ids)).sum())
        return f"{lost} chunks of it are in no index" if lost else ""

    def unproved(self, snapshots: Sequence[Snapshot], claims: ClaimTable) -> dict[str, str]:
        """Of the snapshots, whose chunks keep their ids, those of which not all is in the target; by id, why."""
        parts: dict[bytes, int] = {}
        flawed: dict[str, str] = {}
        for snapshot in snapshots:
            try:
                lost = self._unproved(self.reader(snapshot), claims, parts)
            except Damaged as error:
                flawed[snapshot.id] = str(error)
            else:
                if lost:
                    flawed[snapshot.id] = f"{lost} chunks of it cannot be read"
        return flawed

    @staticmethod
    def _unproved(reader: ManifestReader, claims: ClaimTable, parts: dict[bytes, int]) -> int:
        """How many chunks are not in the target; `parts` remembers that of parts."""
        lost = int((~claims.resolved(reader.root.ids)).sum())
        for number, part in enumerate(reader.parts):
            if part.id not in parts:
                table = reader.part(number)
                own = np.frombuffer(part.id, np.uint8).reshape(1, 32)
                ids = np.concatenate([own, chunks_of(table).ids, reader.content(table).ids])
                parts[part.id] = int((~claims.resolved(ids)).sum())
            lost += parts[part.id]
        return lost
