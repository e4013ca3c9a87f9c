"""What several snapshots have in common is read once: each different part of their manifests, and who holds it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from model.entries import I32, I64, U8, Bool
from model.errors import Damaged
from repository.entry_table import ChunkLists
from repository.fetch import ChunkFetcher
from repository.index import Locations
from repository.manifest_reader import ManifestReader
from repository.part_codec import PartRef, decode_part
from repository.snapshot import Snapshot
from repository.tables.view import View

Progress = Callable[[str, int, int], None]
"""(what is being done, how much of it is done, how much there is); may raise to end it."""


def silent(what: str, done: int, total: int) -> None:
    """No progress."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a manifest. `snapshots` are the numbers of those that hold it, ascending."""

    ref: PartRef
    rows: pa.Table  # ENTRY_SCHEMA
    lists: ChunkLists  # the chunks of content of each row
    snapshots: I32

    def places(self, view: View) -> tuple[I64, I64]:
        """Of all chunks of content: the entry (row of this part) and the number in the index (-1: missing)."""
        counts = np.diff(self.lists.offsets)
        return np.repeat(np.arange(len(counts)), counts), view.rows_of(self.lists.ids)


class Parts:
    """The different parts of the manifests of `snapshots`, in the order of the first that holds each.

    `needed[n]` becomes true for the chunks (numbers of `view`) that these manifests themselves consist of. Parts and
    manifests that cannot be read are told to `on_damage` and left out; without it they raise Damaged.
    """

    def __init__(
        self, view: View, snapshots: Sequence[Snapshot], on_damage: Callable[[Damaged], None] | None = None,
        progress: Progress = silent,
    ) -> None:  # fmt: skip
        self.view = view
        self.snapshots = list(snapshots)
        self.needed: Bool = np.zeros(int(view.bases[-1]), bool)
        self._on_damage = on_damage
        self._progress = progress
        self._fetcher = ChunkFetcher(view.repository, self)
        self._reader: ManifestReader | None = None  # any: each can read the lists of long files
        self._holders = self._open()

    def lookup(self, ids: U8) -> Locations:
        """Where chunks lie; whatever is asked for here belongs to a manifest."""
        number, row = self.view.index.find(ids)
        found = number >= 0
        self.needed[self.view.bases[number[found]] + row[found]] = True
        return self.view.index.locations(number, row)

    def _open(self) -> dict[PartRef, list[int]]:
        holders: dict[PartRef, list[int]] = {}
        for number, snapshot in enumerate(self.snapshots):
            self._progress("opening manifests", number, len(self.snapshots))
            try:
                reader = self.view.manifest(snapshot, self._fetcher)
            except Damaged as error:
                self._tell(error)
                continue
            self._reader = reader
            for part in reader.parts:
                holders.setdefault(part, []).append(number)
        return holders

    @property
    def rows(self) -> int:
        """Entries in all different parts together."""
        return sum(part.rows for part in self._holders)

    def __len__(self) -> int:
        return len(self._holders)

    def __iter__(self) -> Iterator[Part]:
        done, total = 0, self.rows
        for ref, holders in self._holders.items():
            self._progress("following manifests", done, total)
            done += ref.rows
            try:
                rows, lists = self._read(ref)
            except Damaged as error:
                self._tell(error)
                continue
            yield Part(ref, rows, lists, np.array(holders, np.int32))

    def _read(self, ref: PartRef) -> tuple[pa.Table, ChunkLists]:
        (plain,) = self._fetcher.fetch([ref.id])
        if len(plain) != ref.length:
            raise Damaged("a part of a manifest has another length than recorded", subject=ref.id.hex())
        assert self._reader is not None, "the part was found by one"
        rows = decode_part(plain, ref, "manifest")
        told = None if self._on_damage is None else lambda row, error: self._tell(error)
        return rows, self._reader.content(rows, told)

    def _tell(self, error: Damaged) -> None:
        if self._on_damage is None:
            raise error
        self._on_damage(error)
