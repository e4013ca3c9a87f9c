"""check: is everything a snapshot needs there and whole, and if not, which files does it concern.

Level ``structure`` lists every object, opens all but the content of packs, and follows every manifest to places in
packs. Level ``data`` also reads packs from end to end and recomputes every chunk id. Damage is what a check is for: it
is reported as a finding and raises nothing; the check goes on with what is left.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from model.batches import Receipt
from model.entries import I64
from model.errors import LoxError, UsageError
from repository.affected import Losses, Survey
from repository.cache import INDEX_PREFIX, list_packs
from repository.config import CONFIG_NAME
from repository.footer import PACK_MAX
from repository.index import ChunkIndex
from repository.index_table import IndexTable, decode_index, gather_receipts
from repository.pack import pack_name
from repository.repository import Repository
from repository.scrub import verify_pack
from repository.seal import ObjectKind
from repository.slots import FOLDER as KEYS_PREFIX
from repository.snapshot import SNAPSHOT_PREFIX, Snapshots, load_all

LEVELS = ("structure", "data")
KNOWN_PREFIXES = (KEYS_PREFIX, INDEX_PREFIX, SNAPSHOT_PREFIX, "sessions/", "gc/", "notes/", "trash/")
FILES_LISTED = 1000  # paths a finding names; of more it gives the number

Progress = Callable[[str, int, int], None]
"""(what is being done, how much of it is done, how much there is); may raise to end the check."""


@dataclass(slots=True)
class Finding:
    """Something is wrong with the object `subject`. Files and snapshots are those that cannot be restored whole."""

    subject: str
    what: str
    snapshots: list[str] = field(default_factory=list)
    files: list[bytes] = field(default_factory=list)  # the first `FILES_LISTED`
    files_total: int = 0

    def affect(self, snapshots: list[str], paths: list[bytes]) -> None:
        """These paths of these snapshots are concerned."""
        self.snapshots += [snapshot for snapshot in snapshots if snapshot not in self.snapshots]
        self.files += paths[: FILES_LISTED - len(self.files)]
        self.files_total += len(paths)


@dataclass(slots=True)
class CheckReport:
    """What a check found. `notes` are remarkable and harmless, such as packs of a backup that was interrupted."""

    level: str
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    objects: int = 0
    snapshots: int = 0
    packs: int = 0
    packs_read: int = 0
    bytes_read: int = 0
    chunks: int = 0
    entries: int = 0

    @property
    def sound(self) -> bool:
        return not self.findings


def check(
    repository: Repository,
    level: str = "structure",
    subset: float | None = None,
    progress: Progress = lambda what, done, total: None,
) -> CheckReport:
    """Check a repository. With level ``data``, `subset` is the share of pack bytes to read, chosen at random.

    Raises UsageError for arguments that make no sense, and what `progress` raises; for damage nothing.
    """
    if level not in LEVELS:
        raise UsageError("unknown level of check", subject=level, hint=" or ".join(LEVELS))
    if subset is not None and not 0 < subset <= 1:
        raise UsageError(
            "the share of data to read is out of range", subject=str(subset), hint="above 0 %, up to 100 %"
        )
    return _Check(repository, level, subset, progress).run()


class _Check:
    def __init__(self, repository: Repository, level: str, subset: float | None, progress: Progress) -> None:
        self._repository = repository
        self._subset = subset
        self._progress = progress
        self._report = CheckReport(level)
        self._listed: dict[bytes, int] = {}  # packs in the store, and their sizes
        self._index_names: list[str] = []
        self._strays: set[bytes] = set()  # packs that no index object names, though all of these can be read

    def run(self) -> CheckReport:
        report = self._report
        if not self._list():
            return report
        self._keys()
        index = self._index()
        losses = Losses(index)
        self._presence(index, losses)
        self._packs(index, losses)
        snapshots = self._snapshots()
        report.snapshots, report.chunks = len(snapshots), len(index)
        survey = Survey(self._repository, index, losses, self._finding, self._progress)
        report.entries = survey.run(snapshots)
        self._tell_strays(index, survey)
        return report

    def _finding(self, subject: str, what: str) -> Finding:
        finding = Finding(subject, what)
        self._report.findings.append(finding)
        return finding

    def _find(self, subject: str, error: LoxError) -> Finding:
        return self._finding(subject, str(error))

    def _list(self) -> bool:
        """What is in the store; False if not even that can be had."""
        try:
            objects = [name for name, _ in self._repository.store.list()]
            self._listed = dict(list_packs(self._repository))
        except LoxError as error:
            self._find(self._repository.store.url, error)
            return False
        self._index_names = [name for name in objects if name.startswith(INDEX_PREFIX)]
        self._report.objects, self._report.packs = len(objects), len(self._listed)
        ours = {pack_name(pack_id) for pack_id in self._listed}
        for name in objects:
            known = name in ours if name.startswith("packs/") else name.startswith(KNOWN_PREFIXES)
            if not known and name != CONFIG_NAME:
                self._report.notes.append(f"{name}: not an object of this repository")
        return True

    def _keys(self) -> None:
        try:
            self._repository.get_object(ObjectKind.CONFIG, CONFIG_NAME)
        except LoxError as error:
            self._find(CONFIG_NAME, error)
        if not self._repository.encrypted:
            return
        try:
            listing = self._repository.list_keys()
        except LoxError as error:
            self._find(KEYS_PREFIX, error)
            return
        for problem in listing.problems:
            self._find(problem.subject or KEYS_PREFIX, problem)
        if not listing.slots:
            self._finding(KEYS_PREFIX, "no password or recovery code opens the repository any more")

    def _index(self) -> ChunkIndex:
        """All that index objects say, and what packs say that no readable index object names."""
        names = self._index_names
        tables: list[IndexTable] = []
        for number, name in enumerate(names):
            self._progress("reading the index", number, len(names))
            try:
                tables.append(decode_index(self._repository.get_object(ObjectKind.INDEX, name), name))
            except LoxError as error:
                self._find(name, error)
        named = {row.tobytes() for table in tables for row in table.packs["id"]}
        receipts = []
        for pack_id, size in self._listed.items():
            if pack_id not in named and (receipt := self._footer(pack_id, size)):
                receipts.append(receipt)
        if len(tables) == len(names):
            self._strays = {receipt.pack_id for receipt in receipts}
        return ChunkIndex([*tables, gather_receipts(receipts)])

    def _tell_strays(self, index: ChunkIndex, survey: Survey) -> None:
        """Packs in no index are harmless if nothing needs them; otherwise an index object was lost."""
        used = {index.packs[row] for row in np.unique(index.segments.pack[survey.used]).tolist()}
        if needed := sorted(self._strays & used):
            names = ", ".join(map(pack_name, needed[:3]))
            what = f"an index object is missing: none names {len(needed)} packs that snapshots need: {names} ..."
            self._finding(INDEX_PREFIX, what)
        if strays := sorted(self._strays - used):
            names = ", ".join(map(pack_name, strays[:3]))
            self._report.notes.append(f"{len(strays)} packs are in no index, from interrupted backups: {names} ...")

    def _footer(self, pack_id: bytes, size: int) -> Receipt | None:
        try:
            return self._repository.packs.read_footer(self._repository.store, pack_id, size)
        except LoxError as error:
            self._find(pack_name(pack_id), error)
            return None

    def _snapshots(self) -> Snapshots:
        try:
            snapshots = load_all(self._repository)
        except LoxError as error:
            self._find(SNAPSHOT_PREFIX, error)
            return Snapshots()
        for name, problem in snapshots.unreadable:
            self._find(name, problem)
        return snapshots

    def _presence(self, index: ChunkIndex, losses: Losses) -> None:
        """Whether each pack of the index is there in its length."""
        for row, (pack_id, size) in enumerate(zip(index.packs, index.pack_table["size"].tolist(), strict=True)):
            found = self._listed.get(pack_id)
            if found is None:
                losses.lose_pack(row, self._finding(pack_name(pack_id), "the pack is missing"))
            elif found != size:
                finding = self._finding(pack_name(pack_id), f"the pack has {found} bytes instead of {size}")
                losses.lose_pack(row, finding, beyond=found)

    def _packs(self, index: ChunkIndex, losses: Losses) -> None:
        """Read packs whole, or at least compare what each says of itself with what the index says."""
        receipts = _Receipts(index)
        present = [row for row, pack_id in enumerate(index.packs) if pack_id in self._listed]
        whole = set(self._chosen(index, present)) if self._report.level == "data" else set()
        total = sum(int(index.pack_table["size"][row]) for row in whole)
        for number, row in enumerate(present):
            if row in whole:
                self._progress("reading packs", self._report.bytes_read, total)
                self._read_pack(index, row, receipts.of(row), losses)
            else:
                self._progress("opening packs", number, len(present))
                self._open_pack(index, row, receipts.of(row), losses)

    def _chosen(self, index: ChunkIndex, rows: list[int]) -> list[int]:
        if self._subset is None:
            return rows
        sizes = index.pack_table["size"].astype(np.int64)
        wanted, chosen = self._subset * int(sizes[rows].sum()), list[int]()
        for row in random.sample(rows, len(rows)):
            if wanted <= 0:
                break
            chosen.append(row)
            wanted -= int(sizes[row])
        return chosen

    def _read_pack(self, index: ChunkIndex, row: int, indexed: Receipt, losses: Losses) -> None:
        name = pack_name(indexed.pack_id)
        try:
            data = self._repository.store.get(name, 0, PACK_MAX + 1)
        except LoxError as error:
            losses.lose_pack(row, self._find(name, error))
            return
        verdict = verify_pack(self._repository.keys, indexed.pack_id, data, indexed)
        self._report.packs_read += 1
        self._report.bytes_read += len(data)
        if not verdict.sound:
            losses.lose_chunks(row, verdict.lost, self._finding(name, "; ".join(verdict.problems)))

    def _open_pack(self, index: ChunkIndex, row: int, indexed: Receipt, losses: Losses) -> None:
        name, store, packs = pack_name(indexed.pack_id), self._repository.store, self._repository.packs
        try:
            packs.open_header(store.get(name, 0, 512), indexed.pack_id)
        except LoxError as error:
            losses.lose_pack(row, self._find(name, error))
            return
        receipt = self._footer(indexed.pack_id, self._listed[indexed.pack_id])
        if receipt is not None and not _agree(receipt, indexed):
            self._finding(name, "what the pack says it holds is not what the index says")


class _Receipts:
    """What the index says about each pack, as the pack itself would say it."""

    def __init__(self, index: ChunkIndex) -> None:
        self._index = index
        self._orders: list[I64] = [np.lexsort((table.offset, table.segment)) for table in index.tables]
        self._sorted = [table.segment[order] for table, order in zip(index.tables, self._orders, strict=True)]
        self._bases = np.cumsum([0, *(len(table.packs) for table in index.tables)]).tolist()

    def of(self, row: int) -> Receipt:
        """The receipt of the pack in row `row` of the index."""
        number = int(np.searchsorted(self._bases, row, side="right")) - 1
        table, order = self._index.tables[number], self._orders[number]
        pack = row - self._bases[number]
        first, end = (int(np.searchsorted(table.segments["pack"], pack, side=side)) for side in ("left", "right"))
        rows = order[slice(*np.searchsorted(self._sorted[number], [first, end]).tolist())]
        segments = table.segments[first:end]
        return Receipt(
            pack_id=self._index.packs[row],
            pack_kind=int(table.packs["kind"][pack]),
            pack_size=int(table.packs["size"][pack]),
            segment_offset=segments["offset"].copy(),
            segment_stored=segments["stored"].copy(),
            segment_plain=segments["plain"].copy(),
            segment_codec=segments["codec"].copy(),
            ids=table.ids[rows],
            segment=table.segment[rows] - np.uint32(first),
            offset=table.offset[rows],
            length=table.length[rows],
        )


def _agree(one: Receipt, other: Receipt) -> bool:
    return all(mine.tobytes() == theirs.tobytes() for mine, theirs in zip(_columns(one), _columns(other), strict=True))


def _columns(receipt: Receipt) -> Iterator[np.ndarray]:
    order = np.lexsort((receipt.offset, receipt.segment))
    yield from (receipt.segment_offset, receipt.segment_stored, receipt.segment_plain, receipt.segment_codec)
    yield from (receipt.ids[order], receipt.segment[order], receipt.offset[order], receipt.length[order])
