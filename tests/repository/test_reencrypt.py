"""Storing anew what is under old keys: afterwards they open nothing of what snapshots need."""

from __future__ import annotations

import time

import pytest

from model.errors import LoxError, StoreError
from repository.annotations import Changes, Note, Pin, annotate, load_annotations
from repository.check import check
from repository.config import CONFIG_NAME
from repository.keyring import KeyRing
from repository.pack import PackReader
from repository.pack_keys import HEADER_SIZE
from repository.prune import PrunePolicy, prune
from repository.purged import load_purged, record_purged
from repository.repository import Repository
from repository.seal import Cipher, ObjectKind
from repository.snapshot import load_all
from repository.store.wrappers import Fault, FaultyStore
from repository.trash import forget, load_trash, undelete
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


def sealed_objects(repository: Repository, old: KeyRing) -> set[str]:
    """Names of the sealed objects these keys open, whatever they are; but for the config, which nobody can replace."""
    found = set()
    for name, _ in repository.store.list():
        for kind in ObjectKind:
            try:
                Cipher(old).open_object(kind, name, repository.store.get(name))
            except LoxError:
                continue
            found.add(name)
    return found - {CONFIG_NAME}


def test_notes_trash_and_what_is_noted_on_machines_are_sealed_anew() -> None:
    repository = new_repository()
    kept, gone = back_up(repository, TREE), back_up(repository, TREE | {b"data/more": b"x"})
    # In one moment, by two hosts: then names decide, and sealing anew must not change who has the last word.
    for name, changes in (("1" * 32, Changes(comment="first")), ("2" * 32, Changes(comment="last", add=("x",)))):
        note = Note(5, changes, f"notes/{kept.id}/{name}")
        repository.put_object(ObjectKind.MARK, note.name, note.encode())
    repository.issue_writer("server")
    revoked = repository.list_writers()[0]
    repository.revoke_writer(revoked)
    repository.issue_writer("another")
    forget(repository, gone.id, "by hand", time.time_ns())
    record_purged(repository, ["00" * 16])
    writers = repository.list_writers()
    old = KeyRing.of(repository.keys.epochs[0].key, repository.id)
    repository.rotate()
    assert {name.split("/")[0] for name in sealed_objects(repository, old)} >= {"notes", "trash", "keys", "gc"}

    report = prune(repository, PrunePolicy(), reencrypt=True)
    assert report.resealed_others == 2 + 3 + 1 + 1 and report.left_old == {}
    assert sealed_objects(repository, old) == set()
    assert repository.list_writers() == writers
    assert load_annotations(repository).of(kept).comment == "last"
    assert [one.id for one in load_trash(repository)] == [gone.id] and load_purged(repository) == {"00" * 16}
    assert undelete(repository, load_trash(repository)[0])
    assert check(repository, "data").findings == []
    again = prune(repository, PrunePolicy(), reencrypt=True)
    assert (again.resealed, again.resealed_others, again.left_old) == (0, 0, {})


@pytest.mark.parametrize("late", [False, True])
def test_interrupted_while_notes_are_sealed_anew(late: bool) -> None:
    for verb in ("put", "delete"):
        for prefix in ("notes", "keys/writers"):
            repository, old = rotated()
            repository.issue_writer("server")
            repository.rotate()
            writers = repository.list_writers()
            sound = repository.store
            repository.store = FaultyStore(sound, [Fault(verb, prefix, StoreError("cut off"), late=late)])
            with pytest.raises(StoreError):
                prune(repository, reencrypt=True)
            repository.store = sound
            prune(repository, reencrypt=True)
            assert repository.list_writers() == writers
            assert sum(load_annotations(repository).of(one).pin is not None for one in load_all(repository)) == 1
            assert sealed_objects(repository, old) == set()
            assert len(list(sound.list("notes/"))) == 1 and len(list(sound.list("keys/writers/"))) == 1


def test_what_cannot_be_sealed_anew_is_told() -> None:
    repository, _ = rotated()
    sealed = repository.cipher.seal_object(ObjectKind.INDEX, "index/00", b"x")
    repository.store.put("gc/quarantine/index/00", [sealed])
    repository.rotate()
    report = prune(repository, PrunePolicy(max_rewrite=0), reencrypt=True)
    assert report.left_old == {"gc/quarantine": 1, "index": 2}
