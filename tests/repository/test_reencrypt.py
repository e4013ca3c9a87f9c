"""Storing anew what is under old keys: afterwards they open nothing of what snapshots need."""

from __future__ import annotations

import pytest

from model.errors import LoxError, StoreError
from repository.annotations import Changes, Pin, annotate
from repository.check import check
from repository.keyring import KeyRing
from repository.pack import PackReader
from repository.pack_keys import HEADER_SIZE
from repository.prune import PrunePolicy, prune
from repository.repository import Repository
from repository.seal import Cipher, ObjectKind
from repository.snapshot import load_all
from repository.store.wrappers import Fault, FaultyStore
from repository.trash import load_trash
from tests.repository.samples import back_up, content_of, new_repository

TREE = {b"data": None, b"data/file": b"content" * 50, b"data/other": b"other" * 30}


def opened_by(keys: KeyRing, repository: Repository) -> set[str]:
    """First parts of the names of objects that these keys open."""
    cipher, packs, found = Cipher(keys), PackReader(keys), set()
    for name, _ in repository.store.list():
        folder, _, last = name.rpartition("/")
        kinds = {"index": ObjectKind.INDEX, "snapshots": ObjectKind.SNAPSHOT}
        try:
            if folder.startswith("packs"):
                packs.open_header(repository.store.get(name, 0, HEADER_SIZE), bytes.fromhex(last))
            elif folder in kinds:
                cipher.open_object(kinds[folder], name, repository.store.get(name, 0, None))
            else:
                continue
        except LoxError:
            continue
        found.add(folder.partition("/")[0])
    return found


def rotated() -> tuple[Repository, KeyRing]:
    repository = new_repository()
    snapshot = back_up(repository, TREE)
    annotate(repository, snapshot.id, Changes(pin=Pin(None)), 1)
    old = KeyRing.of(repository.keys.epochs[0].key, repository.id)
    repository.rotate()
    back_up(repository, TREE | {b"data/new": b"new" * 40})
    return repository, old


def test_old_keys_open_nothing_afterwards() -> None:
    repository, old = rotated()
    assert opened_by(old, repository) == {"packs", "index", "snapshots"}
    assert prune(repository).rewritten == 0, "only when asked to"
    report = prune(repository, reencrypt=True)
    assert (report.resealed, report.old_keys) == (1, 0) and report.rewritten > 0
    assert opened_by(old, repository) == set()
    assert check(repository, "data").findings == []
    for snapshot in load_all(repository):
        assert content_of(repository, snapshot, b"data/file") == TREE[b"data/file"]
    again = prune(repository, reencrypt=True)
    assert (again.rewritten, again.resealed, again.deleted) == (0, 0, 0)


def test_a_little_at_a_time() -> None:
    repository, old = rotated()
    report = prune(repository, PrunePolicy(max_rewrite=1), reencrypt=True)
    assert report.rewritten == 0 and report.old_keys > 0
    prune(repository, reencrypt=True)
    assert opened_by(old, repository) == set()


@pytest.mark.parametrize("late", [False, True])
def test_interrupted_while_snapshots_are_sealed_anew(late: bool) -> None:
    for verb in ("put", "delete"):
        for skip in range(4):
            repository, _ = rotated()
            sound = repository.store
            faults = [Fault(verb, prefix, StoreError("cut off"), late=late, skip=skip) for prefix in ("snap", "trash")]
            repository.store = FaultyStore(sound, faults)
            try:
                prune(repository, reencrypt=True)
            except StoreError:
                pass
            repository.store = sound
            prune(repository, reencrypt=True)
            assert len(load_all(repository)) == 2 and load_trash(repository) == []
            assert check(repository, "data").findings == []
