"""The examination behind `check` and `repair`: what is wrong, as findings for people and as facts to act upon."""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np

from model.batches import Receipt
from model.errors import Damaged, LoxError, Missing
from repository.affected import Losses, Survey
from repository.cache import list_packs
from repository.condemned import Condemned, Reason, condemned_for, load_condemned
from repository.config import CONFIG_NAME
from repository.epoch_twins import check_epochs
from repository.fetch import open_header
from repository.findings import CheckReport, Finding, Progress
from repository.index import ChunkIndex
from repository.index_survey import survey_index
from repository.index_table import INDEX_PREFIX, gather_receipts
from repository.pack import pack_name
from repository.purged import check_purged
from repository.receipts import Receipts, agree
from repository.repository import Repository
from repository.scrub import verify_stored
from repository.seal import ObjectKind
from repository.slots import FOLDER as KEYS_PREFIX
from repository.snapshot import SNAPSHOT_PREFIX, Snapshots, load_all
from repository.unreadable import tell_unreadable
from repository.verified import VerifiedLog
from repository.writers import load_writers

LEVELS = ("presence", "structure", "data")
KNOWN_PREFIXES = (KEYS_PREFIX, INDEX_PREFIX, SNAPSHOT_PREFIX, "sessions/", "gc/", "notes/", "trash/")


@dataclass(frozen=True, slots=True)
class Scope:
    """How far an examination goes. With `suspects`, packs that something speaks against are always read whole."""

    level: str
    subset: float | None
    rolling: bool
    verified: VerifiedLog
    progress: Progress
    suspects: bool = False


class Diagnosis:
    """One examination. After `run` the attributes hold what was found; errors of the store are in `obstacles`:
    what could not be looked at is neither sound nor damaged."""

    def __init__(self, repository: Repository, scope: Scope) -> None:
        self._repository = repository
        self._scope = scope
        self.report = CheckReport(scope.level)
        self.listed: dict[bytes, int] = {}  # packs in the store, and their sizes
        self.index = ChunkIndex([])
        self.snapshots = Snapshots()
        self.marks: list[Condemned] = []
        self.bad_objects: dict[str, Damaged] = {}  # index objects and marks that do not open
        self.unlisted: list[Receipt] = []  # of packs that no readable index object names
        self.bad_packs: dict[int, str] = {}  # by row of the index: what is wrong with them
        self.obstacles: list[LoxError] = []
        self.survey: Survey | None = None
        self._index_names: list[str] = []
        self._index_gaps = False  # whether some index object could not be read

    @property
    def condemned(self) -> frozenset[bytes]:
        """Packs no writer relies on."""
        return frozenset(pack for mark in self.marks for pack in mark.packs)

    @property
    def known_damaged(self) -> frozenset[bytes]:
        """Packs that were condemned because they are damaged."""
        return condemned_for(self.marks, Reason.DAMAGED)

    def run(self) -> CheckReport:
        """Examine. Raises only what the progress of the scope raises."""
        report = self.report
        self.snapshots = self._snapshots()  # before the index: what a backup stores meanwhile is in neither
        if not self._list():
            return report
        if report.level == "data":
            self._scope.verified.keep(self.listed)
        self._keys()
        self._marks()
        if report.level != "presence":
            tell_unreadable(self._repository, self._find)
        self.index = index = self._index()
        losses = Losses(index)
        self._presence(index, losses)
        if report.level != "presence":
            self._packs(index, losses)
        report.snapshots, report.chunks = len(self.snapshots), len(index)
        if report.level != "presence":
            self._follow(losses)
        self._hush()
        return report

    def _find(self, subject: str, error: LoxError) -> Finding:
        if not isinstance(error, Damaged | Missing):
            self.obstacles.append(error)
        return self.report.finding(subject, str(error))

    def _list(self) -> bool:
        """What is in the store; False if not even that can be had."""
        try:
            objects = [name for name, _ in self._repository.store.list()]
            self.listed = dict(list_packs(self._repository))
        except LoxError as error:
            self._find(self._repository.store.url, error)
            return False
        self._index_names = [name for name in objects if name.startswith(INDEX_PREFIX)]
        self.report.objects, self.report.packs = len(objects), len(self.listed)
        ours = {pack_name(pack_id) for pack_id in self.listed}
        for name in objects:
            known = name in ours if name.startswith("packs/") else name.startswith(KNOWN_PREFIXES)
            if not known and name != CONFIG_NAME:
                self.report.notes.append(f"{name}: not an object of this repository")
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
            problems, alone = check_epochs(self._repository.store)
            others = [*problems, *self._repository.read_epochs().problems]
            load_writers(self._repository, others.append)
        except LoxError as error:
            self._find(KEYS_PREFIX, error)
            return
        self.report.notes += map(str, alone)
        for problem in (*listing.problems, *others):
            self.report.finding(problem.subject or KEYS_PREFIX, str(problem))
        if not listing.slots:
            self.report.finding(KEYS_PREFIX, "no password or recovery code opens the repository any more")

    def _bad_object(self, error: Damaged) -> None:
        self.bad_objects[error.subject] = error
        self._find(error.subject, error)

    def _marks(self) -> None:
        try:
            self.marks = load_condemned(self._repository, self._bad_object)
            check_purged(self._repository, self._bad_object)
        except LoxError as error:
            self._find(error.subject, error)

    def _index(self) -> ChunkIndex:
        """All that index objects say, and what packs say that no readable index object names."""
        tables = survey_index(self._repository, self._index_names, self._index_trouble, self._scope.progress)
        if self._scope.level != "presence":
            named = {row.tobytes() for table in tables for row in table.packs["id"]}
            receipts = [self._footer(pack, size) for pack, size in self.listed.items() if pack not in named]
            self.unlisted = [receipt for receipt in receipts if receipt is not None]
        return ChunkIndex([*tables, gather_receipts(self.unlisted)])

    def _index_trouble(self, name: str, error: LoxError) -> None:
        self._index_gaps = True
        if isinstance(error, Damaged):
            self._bad_object(Damaged(error.what, subject=name, why=error.why))
        else:
            self._find(name, error)

    def _footer(self, pack_id: bytes, size: int) -> Receipt | None:
        try:
            return self._read_footer(pack_id, size)
        except LoxError as error:
            self._find(pack_name(pack_id), error)
            return None

    def _read_footer(self, pack_id: bytes, size: int) -> Receipt:
        """What a pack says of itself; its header opens as well."""
        repository = self._repository
        return repository.rereads.read(
            pack_name(pack_id), lambda: repository.packs.read_footer(repository.store, pack_id, size)
        )

    def _snapshots(self) -> Snapshots:
        try:
            snapshots = load_all(self._repository)
        except LoxError as error:
            self._find(SNAPSHOT_PREFIX, error)
            return Snapshots()
        self.report.snapshots_unreadable = [name for name, _ in snapshots.unreadable]
        for name, problem in snapshots.unreadable:
            self._find(name, problem)
        return snapshots

    def _presence(self, index: ChunkIndex, losses: Losses) -> None:
        """Whether each pack of the index is there in its length."""
        for row, (pack_id, size) in enumerate(zip(index.packs, index.pack_table["size"].tolist(), strict=True)):
            found = self.listed.get(pack_id)
            if found is None:
                losses.lose_pack(row, self._bad_pack(row, MISSING))
            elif found != size:
                finding = self._bad_pack(row, f"the pack has {found} bytes instead of {size}")
                losses.lose_pack(row, finding, beyond=found)

    def _bad_pack(self, row: int, what: str) -> Finding:
        self.bad_packs.setdefault(row, what)
        return self.report.finding(pack_name(self.index.packs[row]), what)

    def _packs(self, index: ChunkIndex, losses: Losses) -> None:
        """Read packs whole, or at least compare what each says of itself with what the index says."""
        receipts = Receipts(index)
        present = [row for row, pack_id in enumerate(index.packs) if pack_id in self.listed]
        whole = self._chosen(index, present) if self.report.level == "data" else set[int]()
        if self._scope.suspects:
            suspects = self._scope.verified.damaged | self.known_damaged
            whole |= {row for row in present if row in self.bad_packs or index.packs[row] in suspects}
        total = sum(int(index.pack_table["size"][row]) for row in whole)
        ages = self._scope.verified.times
        for number, row in enumerate(sorted(present, key=lambda row: ages.get(index.packs[row], 0))):
            if row in whole:
                self._scope.progress("reading packs", self.report.bytes_read, total)
                self._read_pack(row, receipts.of(row), losses)
            else:
                self._scope.progress("opening packs", number, len(present))
                self._open_pack(row, receipts.of(row), losses)

    def _chosen(self, index: ChunkIndex, rows: list[int]) -> set[int]:
        """The share of the packs that is to be read, and those that were damaged when they were read last."""
        if self._scope.subset is None:
            return set(rows)
        verified = self._scope.verified
        sizes = index.pack_table["size"].astype(np.int64)
        order = random.sample(rows, len(rows))
        if self._scope.rolling:
            order.sort(key=lambda row: verified.times.get(index.packs[row], 0))
        wanted, chosen = self._scope.subset * int(sizes[rows].sum()), set[int]()
        for row in order:
            if wanted <= 0:
                break
            chosen.add(row)
            wanted -= int(sizes[row])
        return chosen | {row for row in rows if index.packs[row] in verified.damaged}

    def _read_pack(self, row: int, indexed: Receipt, losses: Losses) -> None:
        name = pack_name(indexed.pack_id)
        try:
            verdict = verify_stored(self._repository, indexed)
        except LoxError as error:
            losses.lose_pack(row, self._find(name, error))
            return
        self.report.packs_read += 1
        self.report.bytes_read += verdict.size
        if verdict.newer is not None:
            self.obstacles.append(verdict.newer)
        else:
            self._scope.verified.record(indexed.pack_id, verdict.sound)
        if not verdict.sound:
            what = "; ".join(verdict.problems)
            finding = self._bad_pack(row, what) if verdict.newer is None else self.report.finding(name, what)
            losses.lose_segments(row, verdict.lost_segments, finding)
            losses.lose_chunks(row, verdict.wrong, finding)

    def _open_pack(self, row: int, indexed: Receipt, losses: Losses) -> None:
        name, size = pack_name(indexed.pack_id), self.listed[indexed.pack_id]
        try:
            what = "" if agree(self._read_footer(indexed.pack_id, size), indexed) else DISAGREES
        except Damaged as error:
            what = str(error)
        except LoxError as error:
            losses.lose_pack(row, self._find(name, error))
            return
        if what and self._scope.suspects:
            self._read_pack(row, indexed, losses)
        elif what:
            finding = self._bad_pack(row, what)
            if not self._header_opens(indexed.pack_id):
                losses.lose_pack(row, finding)

    def _header_opens(self, pack_id: bytes) -> bool:
        try:
            open_header(self._repository, pack_id)
        except LoxError:
            return False
        return True

    def _follow(self, losses: Losses) -> None:
        """From manifests to the best copy of each chunk. Copies that are lost are taken only if there is no other; what
        a write-only machine says it stored, before those, and after what still opens of our own bad packs."""
        bad = {self.index.packs[row] for row in self.bad_packs}
        best = self.index.doubting_packs(self.condemned | bad).doubting_written().doubting_written()
        for _ in range(3):
            best = best.doubting(losses.segments)
        watched = bad | self.known_damaged
        self.survey = Survey(self._repository, best, losses, self.report.finding, self._scope.progress, watched)
        self.report.entries = self.survey.run(self.snapshots)
        self.obstacles += self.survey.obstacles
        self._scope.verified.suspect(self.survey.bad)
        self._tell_strays(best, self.survey)

    def _tell_strays(self, index: ChunkIndex, survey: Survey) -> None:
        """Packs in no index are harmless if nothing needs them; otherwise an index object was lost."""
        if self._index_gaps:
            return
        unlisted = {receipt.pack_id for receipt in self.unlisted}
        used = {index.packs[row] for row in np.unique(index.segments.pack[survey.used]).tolist()}
        if needed := sorted(unlisted & used):
            names = ", ".join(map(pack_name, needed[:3]))
            what = f"an index object is missing: none names {len(needed)} packs that snapshots need: {names} ..."
            self.report.finding(INDEX_PREFIX, what)
        if strays := sorted(unlisted - used):
            names = ", ".join(map(pack_name, strays[:3]))
            self.report.notes.append(f"{len(strays)} packs are in no index, from interrupted backups: {names} ...")

    def _hush(self) -> None:
        """What is wrong with condemned packs, or gone with packs, that nothing needs is told, but is no damage."""
        harmless = {pack_name(pack) for pack in self.condemned}
        if self.survey is None:
            return
        all_known = not (self.survey.unlisted or self.report.snapshots_unreadable)
        for finding in list(self.report.findings):
            if not finding.snapshots and (finding.subject in harmless or (all_known and finding.what == MISSING)):
                self.report.findings.remove(finding)
                self.report.notes.append(f"{finding.subject}: {finding.what}; nothing needs it")


MISSING = "the pack is missing"
DISAGREES = "what the pack says it holds is not what the index says"
