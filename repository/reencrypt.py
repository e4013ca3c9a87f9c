"""What is still sealed under the keys of older epochs: whoever has those keys can read it until it is stored anew."""

from __future__ import annotations

import time
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor

from model.errors import Damaged, Missing
from repository.needs import Progress
from repository.pack_keys import pack_epoch
from repository.repository import Repository
from repository.seal import OBJECT_MAX, Envelope
from repository.snapshot import SNAPSHOT_PREFIX
from repository.trash import reseal

READERS = 8  # requests at a time
BATCH = 64


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


def reseal_snapshots(repository: Repository, progress: Progress) -> int:
    """Seal those snapshots anew that are under older keys; how many. Raises StoreError, Damaged, as `progress`."""
    names = [name for name, _ in repository.store.list(SNAPSHOT_PREFIX)]
    done = 0
    for number, name in enumerate(names):
        progress("sealing snapshots anew", number, len(names))
        try:
            envelope = Envelope.parse(repository.store.get(name, 0, OBJECT_MAX + 1), name)
            if envelope.epoch < repository.keys.epoch:
                reseal(repository, name.removeprefix(SNAPSHOT_PREFIX), time.time_ns())
                done += 1
        except Missing:  # forgotten meanwhile
            continue
    return done
