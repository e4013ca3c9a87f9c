"""What is still sealed under the keys of older epochs: whoever has those keys can read it until it is stored anew."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field

from blake3 import blake3

from model.errors import Damaged, Exists, Missing
from repository.annotations import NOTES_PREFIX
from repository.config import CONFIG_NAME
from repository.epochs import EPOCHS_FOLDER
from repository.keyring import Epoch
from repository.needs import Progress
from repository.pack_keys import pack_epoch
from repository.purged import PURGED_PREFIX
from repository.repository import Repository
from repository.reserve import RESERVE_PREFIX
from repository.seal import HEADER_SIZE, ObjectKind, epoch_of
from repository.snapshot import SNAPSHOT_PREFIX
from repository.trash import TRASH_PREFIX, reseal
from repository.writers import WRITERS_FOLDER

READERS = 8  # requests at a time
BATCH = 64

_RENAMED = (NOTES_PREFIX, TRASH_PREFIX, WRITERS_FOLDER, PURGED_PREFIX)
_NOT_SEALED = (
    "packs/",
    "sessions/",
    EPOCHS_FOLDER,
    CONFIG_NAME,
    RESERVE_PREFIX,
)  # or for minutes, or for ever in epoch 0
_HEX = re.compile(r"[0-9a-f]{32}")


@dataclass(slots=True)
class Resealed:
    """What was sealed anew: `snapshots`, and `others`; and what could not be, `left`: objects by folder."""

    snapshots: int = 0
    others: int = 0
    left: dict[str, int] = field(default_factory=dict)


def old_packs(repository: Repository, packs: Collection[bytes], progress: Progress) -> list[bytes]:
    """Those of `packs` whose key was wrapped in an older epoch. Raises StoreError, NewerFormat, as `progress`."""
    newest = repository.keys.epoch

    def is_old(pack: bytes) -> bool:
        try:
            return pack_epoch(repository, pack) < newest
        except (Damaged, Missing):  # rewriting it will tell
            return True

    some, old = sorted(packs), list[bytes]()
    with ThreadPoolExecutor(READERS, thread_name_prefix="headers") as pool:
        for at in range(0, len(some), BATCH):
            progress("looking for old keys", at, len(some))
            batch = some[at : at + BATCH]
            old += [pack for pack, flag in zip(batch, pool.map(is_old, batch), strict=True) if flag]
    return old


def reseal_objects(repository: Repository, progress: Progress) -> Resealed:
    """Seal anew what is under older keys: snapshots, then notes, the trash, and what is noted on write-only machines
    and purged snapshots. Raises StoreError, Damaged for a snapshot that does not open, as `progress`."""
    done = Resealed(snapshots=_reseal_snapshots(repository, progress))
    for prefix in _RENAMED:
        names = [name for name, _ in repository.store.list(prefix)]
        for number, name in enumerate(names):
            progress("sealing notes anew", number, len(names))
            done.others += _reseal_under_new_name(repository, name)
    done.left = _left_old(repository, progress)
    return done


def _reseal_snapshots(repository: Repository, progress: Progress) -> int:
    names = [name for name, _ in repository.store.list(SNAPSHOT_PREFIX)]
    done = 0
    for number, name in enumerate(names):
        progress("sealing snapshots anew", number, len(names))
        if _is_old(repository, name):
            try:
                reseal(repository, name.removeprefix(SNAPSHOT_PREFIX), time.time_ns())
                done += 1
            except Missing:  # forgotten meanwhile
                continue
    return done


def _reseal_under_new_name(repository: Repository, name: str) -> bool:
    """Whether the object was under older keys. Names are never used again, so it gets another one that sorts as it
    did: notes of one time take effect in the order of their names. What does not open stays."""
    if not _is_old(repository, name):
        return False
    try:
        plain = repository.get_object(ObjectKind.MARK, name)
        with suppress(Exists):  # an earlier run was interrupted right before it deleted the old one
            repository.put_object(ObjectKind.MARK, _new_name(name, repository.keys.sealing()), plain)
        repository.store.delete(name)
    except (Missing, Damaged):
        return False
    return True


def _new_name(name: str, epoch: Epoch) -> str:
    """``.../<32 digits>`` keeps the first half, ``.../issued`` and ``.../revoked-<16 digits>`` their word; the rest
    says which object it was and in which epoch it is sealed, so that it is sealed anew once."""
    folder, _, last = name.rpartition("/")
    kept = last[:16] if _HEX.fullmatch(last) else last.partition("-")[0] + "-"
    return f"{folder}/{kept}{blake3(f'{name} {epoch.name}'.encode()).hexdigest(8)}"


def _left_old(repository: Repository, progress: Progress) -> dict[str, int]:
    """How many objects (packs apart) are under older keys all the same, by the folder they lie in."""
    left: Counter[str] = Counter()
    listed = [name for name, _ in repository.store.list() if not name.startswith(_NOT_SEALED)]
    for number, name in enumerate(listed):
        progress("looking for old keys", number, len(listed))
        if _is_old(repository, name):
            left["/".join(name.split("/")[: 2 if name.startswith(("gc/", "trash/")) else 1])] += 1
    return dict(sorted(left.items()))


def _is_old(repository: Repository, name: str) -> bool:
    """Whether its header says that it was sealed in an older epoch. What is no sealed object of ours is not."""
    try:
        return 0 <= epoch_of(repository.store.get(name, 0, HEADER_SIZE)) < repository.keys.epoch
    except Missing:
        return False
