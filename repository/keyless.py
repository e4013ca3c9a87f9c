"""check without a password: are the stored bytes those that were written, as far as their own checksums say.

Finds what disks and networks do, not what somebody with write access does: whoever can forge a checksum, or put an old
object in the place of another, is found by the check that has the key.
"""

from __future__ import annotations

import random

from model.errors import Damaged, LoxError, UsageError
from repository.condemned import CONDEMNED_PREFIX
from repository.config import CONFIG_NAME
from repository.epochs import COPY, EPOCH_MAX, EPOCHS_FOLDER, EpochDocument
from repository.findings import CheckReport, Progress
from repository.footer import PACK_MAX
from repository.index import INDEX_PREFIX
from repository.rereads import Rereads
from repository.scrub import check_bytes
from repository.seal import OBJECT_MAX, Envelope, ObjectKind
from repository.slots import FOLDER as KEYS_PREFIX
from repository.slots import SLOT_MAX, KeySlot
from repository.snapshot import SNAPSHOT_PREFIX
from repository.store import Store
from repository.writers import WRITERS_FOLDER

_KINDS = {
    CONFIG_NAME: ObjectKind.CONFIG,
    INDEX_PREFIX: ObjectKind.INDEX,
    SNAPSHOT_PREFIX: ObjectKind.SNAPSHOT,
    CONDEMNED_PREFIX: ObjectKind.MARK,
}


def check_keyless(
    store: Store,
    subset: float | None = None,
    progress: Progress = lambda what, done, total: None,
    rereads: Rereads | None = None,
) -> CheckReport:
    """Compare every object with its checksum; of packs, a random share `subset` of all or all. What came right when
    it was read again counts in `rereads`.

    Raises UsageError for a share out of range, and what `progress` raises; for damage nothing.
    """
    if subset is not None and not 0 < subset <= 1:
        raise UsageError("the share of data to read is out of range", subject=str(subset), hint="up to 100 %")
    return _Keyless(store, progress, rereads or Rereads()).run(subset)


class _Keyless:
    def __init__(self, store: Store, progress: Progress, rereads: Rereads) -> None:
        self._store = store
        self._progress = progress
        self._report = CheckReport("keyless")
        self._repo_id: bytes | None = None
        self._rereads = rereads

    def run(self, subset: float | None) -> CheckReport:
        report, store = self._report, self._store
        try:
            objects = list(store.list())
        except LoxError as error:
            report.finding(store.url, str(error))
            return report
        report.objects = len(objects)
        if not any(name == CONFIG_NAME for name, _ in objects):
            report.finding(CONFIG_NAME, "it is missing")
        packs = [(name, size) for name, size in objects if name.startswith("packs/")]
        report.packs = len(packs)
        others = [name for name, _ in objects if not name.startswith("packs/")]
        for number, name in enumerate(sorted(others, key=lambda name: name != CONFIG_NAME)):  # its id is the others'
            self._progress("opening objects", number, len(others))
            self._object(name)
        chosen = _share(packs, subset)
        total = sum(size for _, size in chosen)
        for name, _ in chosen:
            self._progress("reading packs", report.bytes_read, total)
            self._pack(name)
        return report

    def _object(self, name: str) -> None:
        kind = next((kind for prefix, kind in _KINDS.items() if name.startswith(prefix)), None)
        try:
            self._rereads.read(name, lambda: self._read(name, kind))
        except LoxError as error:
            self._report.finding(name, str(error))
        self._report.snapshots += kind is ObjectKind.SNAPSHOT

    def _read(self, name: str, kind: ObjectKind | None) -> None:
        if name.startswith(EPOCHS_FOLDER):
            place = name.removeprefix(EPOCHS_FOLDER)
            EpochDocument.decode(place.removesuffix(COPY), self._store.get(name, 0, EPOCH_MAX + 1))
        elif name.startswith(WRITERS_FOLDER):
            self._envelope(name, ObjectKind.MARK)
        elif name.startswith(KEYS_PREFIX):
            KeySlot.decode(name.removeprefix(KEYS_PREFIX), self._store.get(name, 0, SLOT_MAX + 1))
        elif kind is not None:
            self._envelope(name, kind)

    def _envelope(self, name: str, kind: ObjectKind) -> None:
        envelope = Envelope.parse(self._store.get(name, 0, OBJECT_MAX + 1), name)
        if envelope.kind != kind:
            raise Damaged("object is of another kind", subject=name)
        if kind is ObjectKind.CONFIG:
            self._repo_id = envelope.repo_id
        elif self._repo_id is not None and envelope.repo_id != self._repo_id:
            raise Damaged("object belongs to another repository", subject=name)

    def _pack(self, name: str) -> None:
        text = name.rpartition("/")[2]
        try:
            pack_id = bytes.fromhex(text)
        except ValueError:
            self._report.notes.append(f"{name}: not an object of this repository")
            return
        try:
            size = self._rereads.read(name, lambda: self._read_pack(name, pack_id))
        except Damaged as error:
            self._report.finding(name, error.what)
            size = int(error.why or 0)
        except LoxError as error:
            self._report.finding(name, str(error))
            return
        self._report.packs_read += 1
        self._report.bytes_read += size

    def _read_pack(self, name: str, pack_id: bytes) -> int:
        """Bytes of a sound pack. Raises Damaged, whose `why` is how many bytes of it were read; StoreError."""
        data = self._store.get(name, 0, PACK_MAX + 1)
        trouble = check_bytes(pack_id, data)
        if not trouble and self._repo_id is not None and data[8:24] != self._repo_id:
            trouble = "it belongs to another repository"
        if trouble:
            raise Damaged(trouble, subject=name, why=str(len(data)))
        return len(data)


def _share(packs: list[tuple[str, int]], subset: float | None) -> list[tuple[str, int]]:
    if subset is None:
        return packs
    wanted, chosen = subset * sum(size for _, size in packs), list[tuple[str, int]]()
    for name, size in random.sample(packs, len(packs)):
        if wanted <= 0:
            break
        chosen.append((name, size))
        wanted -= size
    return chosen
