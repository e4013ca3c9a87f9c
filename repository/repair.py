"""repair: makes a damaged repository one that backups can go on with, and saves what can still be read.

It only adds and moves aside. In this order, so that it may be interrupted anywhere and run again:

1. chunks that snapshots need and that still open are copied from damaged packs into new packs, then indexed;
2. damaged and missing packs are condemned: the next backup stores anew what it meets of them;
3. packs that no readable index object names are named by a new one;
4. objects of the index, marks and records of purged snapshots that do not open are copied to ``gc/quarantine/`` and
   then removed from where they keep every backup from working;
5. documents of epochs that are damaged or missing in one of their two places are written anew from the other;
6. what killed writers left half-written is removed.

Snapshots and packs are never touched. Errors of the store are no damage: nothing is decided where something could not
be read, or is newer than this program.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from model.batches import Receipt
from model.errors import Damaged, Exists, Missing
from repository.affected import Survey
from repository.chunk_writer import ChunkWriter
from repository.condemned import CONDEMNED_PREFIX, Condemned, Reason, condemn
from repository.diagnosis import Diagnosis, Scope
from repository.epoch_twins import Twin, bad_twins, mend_twin
from repository.findings import CheckReport, Progress
from repository.index import INDEX_PREFIX, decode_index, save_index
from repository.leftovers import old_leftovers, remove_leftovers
from repository.pack import PackKind
from repository.purged import PURGED_PREFIX, decode_purged
from repository.receipts import Receipts
from repository.repair_outlook import Outlook, outlook_of
from repository.repair_salvage import readable_chunks
from repository.repository import Repository
from repository.seal import OBJECT_MAX, ObjectKind
from repository.sessions import open_session
from repository.store import Leftover
from repository.sweep import look_around, only_look, refuse_company
from repository.verified import VerifiedLog

QUARANTINE = "gc/quarantine/"


@dataclass(frozen=True, slots=True)
class BadPack:
    """A pack to be condemned. `chunks` are how many of its chunks some snapshot needs and no sound pack has."""

    pack_id: bytes
    what: str
    chunks: int


@dataclass(slots=True)
class RepairReport:
    """The plan of a repair, and once it was carried out, what was done."""

    applied: bool
    check: CheckReport
    outlook: Outlook
    set_aside: list[Damaged] = field(default_factory=list)  # objects that do not open; the subject is their name
    unlisted: list[bytes] = field(default_factory=list)  # packs that get a new index object
    condemned: list[BadPack] = field(default_factory=list)
    chunks_salvaged: int = 0
    bytes_salvaged: int = 0
    objects_written: list[str] = field(default_factory=list)
    twins: list[Twin] = field(default_factory=list)  # documents of epochs to be written anew
    leftovers: list[Leftover] = field(default_factory=list)  # no damage, and nobody's any more

    @property
    def nothing_to_do(self) -> bool:
        return not (self.set_aside or self.unlisted or self.condemned or self.twins)


def repair(
    repository: Repository,
    apply: bool = False,
    level: str = "structure",
    subset: float | None = None,
    progress: Progress = lambda what, done, total: None,
    verified: VerifiedLog | None = None,
) -> RepairReport:
    """Plan a repair, and with `apply` carry it out.

    `level` and `subset` say how much is read to find damage, as for `check`; packs that something speaks against
    are read whole in any case. Raises UsageError from arguments as `check`, what `progress` raises, and the error that
    kept something from being judged: StoreError, NewerFormat; RunFailed if another one is mending or pruning;
    Refused if the store does not let us delete.
    Interrupted while it applies, it may be run again.
    """
    scope = Scope(level, subset, False, verified or VerifiedLog(None), progress, True)
    if not apply:
        leftovers = old_leftovers(repository.store, time.time_ns(), only_look(repository, 0).live)
        return _examine(repository, scope, leftovers).run(False)
    with open_session(repository, "repair", lenient=True) as session:
        session.require_deletes("lox repair")
        others = look_around(repository, session)
        refuse_company(others)
        leftovers = old_leftovers(repository.store, session.store_time() or time.time_ns(), others.live)
        return _examine(repository, scope, leftovers).run(True)


def _examine(repository: Repository, scope: Scope, leftovers: list[Leftover]) -> _Repair:
    diagnosis = Diagnosis(repository, scope)
    check = diagnosis.run()
    if diagnosis.obstacles:
        raise diagnosis.obstacles[0]
    work = _Repair(repository, diagnosis, check, scope.progress)
    work.report.leftovers = leftovers
    work.report.twins = bad_twins(repository.store, repository.id)
    return work


class _Repair:
    def __init__(self, repository: Repository, diagnosis: Diagnosis, check: CheckReport, progress: Progress) -> None:
        self._repository = repository
        self._diagnosis = diagnosis
        self._progress = progress
        assert diagnosis.survey is not None, "every level of a repair follows the manifests"
        self._needed = diagnosis.survey.needed
        outlook = outlook_of(diagnosis.survey, diagnosis.snapshots)
        self.report = RepairReport(False, check, outlook, list(diagnosis.bad_objects.values()))
        self._unlisted = self._to_list(diagnosis.survey)
        self.report.unlisted = [receipt.pack_id for receipt in self._unlisted]
        self.report.condemned = self._to_condemn()

    def run(self, apply: bool) -> RepairReport:
        report, store = self.report, self._repository.store
        if not apply:
            return report
        self._salvage()
        bad = [pack.pack_id for pack in report.condemned]
        report.objects_written += [mark.name for mark in condemn(self._repository, bad, Reason.DAMAGED, time.time_ns())]
        self._save_index(self._unlisted)
        for number, error in enumerate(report.set_aside):
            self._progress("setting objects aside", number, len(report.set_aside))
            self._set_aside(error.subject)
        for twin in report.twins:
            mend_twin(store, twin, QUARANTINE)
        remove_leftovers(store, report.leftovers)
        report.applied = True
        return report

    def _to_list(self, survey: Survey) -> list[Receipt]:
        """Packs that no index object names; condemned ones that nothing needs were left out on purpose."""
        index, condemned = self._diagnosis.index, self._diagnosis.condemned
        used = {index.packs[row] for row in np.unique(index.segments.pack[survey.used]).tolist()}
        return [
            receipt
            for receipt in self._diagnosis.unlisted
            if receipt.pack_id in used or receipt.pack_id not in condemned
        ]

    def _to_condemn(self) -> list[BadPack]:
        """Packs that are bad, and neither condemned for it nor condemned and gone."""
        index, listed = self._diagnosis.index, self._diagnosis.listed
        known = self._diagnosis.known_damaged | {pack for pack in self._diagnosis.condemned if pack not in listed}
        found = [(index.packs[row], what) for row, what in sorted(self._diagnosis.bad_packs.items())]
        return [
            BadPack(pack_id, what, len(self._needed.get(pack_id, ())))
            for pack_id, what in found
            if pack_id not in known
        ]

    def _salvage(self) -> None:
        """Copy what snapshots need and no sound pack has. Packs condemned before are looked at as well: a snapshot
        that was being made meanwhile may rely on them."""
        receipts = Receipts(self._diagnosis.index)
        rows = {pack: row for row, pack in enumerate(self._diagnosis.index.packs)}
        writers = {kind: ChunkWriter(self._repository, kind) for kind in PackKind}
        for number, (pack_id, wanted) in enumerate(sorted(self._needed.items())):
            self._progress("copying chunks of damaged packs", number, len(self._needed))
            receipt = receipts.of(rows[pack_id])
            for chunk_id, chunk in readable_chunks(self._repository, receipt, wanted):
                kind = PackKind.META if receipt.pack_kind == PackKind.META else PackKind.DATA
                if writers[kind].take(chunk_id, chunk):
                    self.report.chunks_salvaged += 1
                    self.report.bytes_salvaged += len(chunk)
        self._save_index([receipt for writer in writers.values() for receipt in writer.finish()])

    def _save_index(self, receipts: list[Receipt]) -> None:
        self.report.objects_written += save_index(self._repository, receipts)

    def _set_aside(self, name: str) -> None:
        """Copy an object that does not open to the quarantine, then delete it. One that opens after all stays."""
        store = self._repository.store
        try:
            data = store.get(name, 0, OBJECT_MAX + 1)
        except Missing:  # an earlier run, or another one
            return
        if len(data) > OBJECT_MAX:
            raise Damaged("too large to be moved aside", subject=name, hint="move it out of the repository by hand")
        if self._opens(name, data):
            return
        copy = QUARANTINE + name.removeprefix("gc/")
        try:
            store.put(copy, [data])
        except Exists:  # from an interrupted run; if it was read differently then, both are kept
            if store.get(copy, 0, OBJECT_MAX + 1) != data:
                store.put(f"{copy}-{os.urandom(4).hex()}", [data])
        store.delete(name)

    def _opens(self, name: str, data: bytes) -> bool:
        kind = ObjectKind.INDEX if name.startswith(INDEX_PREFIX) else ObjectKind.MARK
        decode = next(
            decode for prefix, decode in _SET_ASIDE.items() if name.startswith(prefix)
        )  # nothing else ever is
        try:
            decode(name, self._repository.cipher.open_object(kind, name, data))
        except Damaged:
            return False
        return True


_SET_ASIDE: dict[str, Callable[[str, bytes], object]] = {
    INDEX_PREFIX: lambda name, plain: decode_index(plain, name),
    CONDEMNED_PREFIX: Condemned.decode,
    PURGED_PREFIX: decode_purged,
}
