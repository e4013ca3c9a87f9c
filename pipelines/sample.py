"""A restore of some files, chosen at random, to nowhere: the real graph up to where bytes would be written."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from model.entries import STAT, Kind
from model.errors import Damaged
from model.orders import Joined, Order
from pipelines.fitting import Fitting
from pipelines.options import RESTORE, EngineOptions
from pipelines.restore import content_of, reading_flow
from pipelines.runs import unwrapped
from repository.cache_dir import default_cache_dir
from repository.entry_table import column
from repository.fetch import ChunkFetcher
from repository.manifest_reader import ManifestReader
from repository.reading_index import ReadingIndex
from repository.repository import Repository
from repository.snapshot import Snapshot
from runtime.drive import Control
from runtime.executors import open_executor
from runtime.plan import Plan
from stages.access import RepositoryAccess
from stages.locate import Wanted, locate

TRIES = 20  # for each wanted file; many entries are no files, or empty

Failure = tuple[bytes, str, str]
"""Path, snapshot id, and why the file cannot be restored."""


@dataclass(slots=True)
class SampleReport:
    """What a sample restore found. `bytes` are those that would have been written."""

    files: int = 0
    bytes: int = 0
    failures: list[Failure] = field(default_factory=list)


def sample_plan(access: RepositoryAccess, engine: EngineOptions) -> Plan:
    """The graph of a restore without its last stage."""
    return Fitting(engine, RESTORE[:-1]).applied(reading_flow(access).plan("sample", sink="compare"))


def restore_sample(
    repository: Repository,
    snapshots: Sequence[Snapshot],
    count: int,
    engine: EngineOptions,
    step: Callable[[str, int, int], None] = lambda what, done, total: None,
    seed: int | None = None,
) -> SampleReport:
    """Restore `count` files, as far as there are so many, to nowhere. Damage is in the report.

    Raises StoreError, and what `step` (what is done, how much, of how much) raises.
    """
    access = RepositoryAccess(repository)
    index = ReadingIndex(repository, default_cache_dir(), lambda error: None)
    fetcher = ChunkFetcher(repository, index)
    sample = _Sample(index, fetcher, random.Random(seed))
    control = Control(on_tick=lambda trace: step("restoring a sample", sample.report.files, count))
    with open_executor(engine.on_one_host()) as executor:
        access.secure(executor.keep)
        plan = sample_plan(access, engine)
        unwrapped(lambda: executor.run(plan, sample.orders(snapshots, count), sample, control))
    sample.finish()
    return sample.report


class _Sample:
    """Feed and sink of the sample: knows how much of each file is to come, and counts what comes."""

    def __init__(
        self,
        index: ReadingIndex,
        fetcher: ChunkFetcher,
        rng: random.Random,
    ) -> None:
        self._index = index
        self._fetcher = fetcher
        self._rng = rng
        self._names: list[tuple[bytes, str]] = []  # of each file: path and snapshot
        self._missing: list[int] = []  # of each file: bytes that have not come yet
        self._why: dict[int, str] = {}
        self._seen: set[int] = set()  # orders that came; a replay repeats some
        self.report = SampleReport()

    def orders(self, snapshots: Sequence[Snapshot], count: int) -> Iterator[Order]:
        """What brings the content of the chosen files."""
        readers: dict[str, ManifestReader] = {}
        chosen: set[tuple[str, bytes]] = set()
        seq = 0
        for _ in range(TRIES * count if snapshots else 0):
            if len(chosen) >= count:
                break
            snapshot = self._rng.choice(snapshots)
            try:
                if snapshot.id not in readers:
                    readers[snapshot.id] = ManifestReader(snapshot.root, self._fetcher.fetch, snapshot.name)
                picked = self._pick(readers[snapshot.id])
                if picked is None or (key := (snapshot.id, picked["path"][0].as_py())) in chosen:
                    continue
                chosen.add(key)
                for order in self._orders(readers[snapshot.id], picked, snapshot.id, seq):
                    seq += 1
                    yield order
            except Damaged as error:
                if all(failed != snapshot.id for _, failed, _ in self.report.failures):
                    self.report.failures.append((b"", snapshot.id, str(error)))

    def _pick(self, reader: ManifestReader) -> pa.Table | None:
        """One row of a file that has content, or None if chance met something else."""
        if not reader.parts:
            return None
        (number,) = self._rng.choices(range(len(reader.parts)), [part.rows for part in reader.parts])
        table = reader.part(number)
        row = self._rng.randrange(table.num_rows)
        is_file = column(table, "kind")[row] == Kind.FILE and column(table, "size")[row] > 0
        return table.slice(row, 1) if is_file else None

    def _orders(self, reader: ManifestReader, entry: pa.Table, snapshot: str, seq: int) -> list[Order]:
        file = len(self._names)
        row = np.array([0], np.int32)
        lists, owner = content_of(reader, entry, row)
        self._names.append((entry["path"][0].as_py(), snapshot))
        self._missing.append(int(lists.length.sum(dtype=np.int64)))
        paths = entry["path"].combine_chunks()
        wanted = Wanted(file, row, paths, np.zeros(1, STAT), owner, lists.ids, lists.length, {})
        where = self._index.lookup(wanted.ids)
        if not where.found.all():
            self._why[file] = "a chunk of it is in no index"
        return list(locate(wanted, where, seq))

    def push(self, item: Joined) -> Iterable[int]:
        order = item.order
        if order.seq in self._seen:
            return ()
        self._seen.add(order.seq)
        got = int(order.part_length[item.parts].sum())
        self._missing[order.window] -= got
        self.report.bytes += got
        for why in item.failed.values():
            self._why.setdefault(order.window, why)
        return (order.seq,)

    def lost(self, lane_name: str) -> None:
        """Nothing was written: the replay brings it again."""

    def finish(self) -> None:
        """Files that did not come whole are failures."""
        self.report.files = len(self._names)
        for file, (path, snapshot) in enumerate(self._names):
            if self._why.get(file) or self._missing[file]:
                why = self._why.get(file, f"{self._missing[file]} bytes of it did not come")
                self.report.failures.append((path, snapshot, why))
