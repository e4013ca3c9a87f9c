"""What was lost is told from what was purged, and is not lost in the mirror too."""

from __future__ import annotations

import time

import pytest

from model.errors import Refused
from repository.check import check
from repository.mirror import sync
from repository.prune import prune
from repository.purged import load_purged, record_purged
from repository.snapshot import load_all
from repository.store import MemoryStore
from repository.store.wrappers import Fault, FaultyStore
from repository.trash import forget, load_trash, purge
from tests.repository.prunes import ALL
from tests.repository.test_mirror import filled, objects, reopened


def test_a_lost_snapshot_is_not_taken_for_a_purged_one() -> None:
    """Three snapshots: one is forgotten and purged, one is lost, one is there."""
    source, target = MemoryStore(), MemoryStore()
    repository = filled(source, 3)
    sync(source, target)
    first, second, _ = load_all(repository)
    forget(repository, first.id, "by hand", 1)
    prune(repository, ALL)
    assert load_purged(repository) == {first.id}
    source.delete(second.name)
    before = objects(target)
    report = sync(source, target, delete=True, purged=load_purged(repository))
    assert (report.lost, report.deleted) == ([second.id], 0) and report.kept > 0
    assert before.items() <= objects(target).items()
    assert check(reopened(target), "data").findings == []
    sync(target, source)
    assert {one.id for one in load_all(repository)} >= {second.id}


def test_what_was_purged_goes_from_the_mirror_too() -> None:
    source, target = MemoryStore(), MemoryStore()
    repository = filled(source, 3)
    sync(source, target)
    forget(repository, load_all(repository)[0].id, "by hand", 1)
    prune(repository, ALL)
    assert sync(source, target, delete=True).lost, "without a key nobody knows that it was purged"
    report = sync(source, target, delete=True, purged=load_purged(repository))
    assert report.lost == [] and report.deleted > 0
    assert objects(target) == objects(source)


def test_the_trash_of_the_mirror_says_what_was_forgotten() -> None:
    source, target = MemoryStore(), MemoryStore()
    repository = filled(source, 2)
    forget(repository, load_all(repository)[0].id, "by hand", 1)
    sync(source, target)
    prune(repository, ALL)
    report = sync(source, target, delete=True)
    assert report.lost == [] and objects(target) == objects(source)


def test_lost_snapshots_go_if_that_is_wanted() -> None:
    source, target = MemoryStore(), MemoryStore()
    repository = filled(source, 2)
    sync(source, target)
    source.delete(load_all(repository)[0].name)
    prune(repository, ALL)
    assert sync(source, target, delete=True, purged=None).deleted > 0
    assert objects(target) == objects(source)


def test_of_very_many_purged_snapshots_the_latest_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("repository.purged.IDS_MAX", 100)
    repository = filled(MemoryStore())
    for number in range(200):
        record_purged(repository, [f"{number:032x}"])
    known = load_purged(repository)
    assert {f"{number:032x}" for number in range(140, 200)} <= known and len(known) <= 132
    assert len(list(repository.store.list("gc/purged/"))) <= 33
    record_purged(repository, [])
    assert load_purged(repository) == known


def test_purging_is_noted_before_it_is_done() -> None:
    """Interrupted at any operation: a snapshot that is gone was noted."""
    for verb in ("put", "delete"):
        for skip in range(30):
            store = MemoryStore()
            repository = filled(store, 2)
            gone = load_all(repository)[0]
            forget(repository, gone.id, "by hand", 1)
            repository.store = FaultyStore(store, [Fault(verb, "", Refused("cut off"), skip=skip, times=1)])
            try:
                purge(repository, 0, time.time_ns())
            except Refused:
                pass
            else:
                break
            repository.store = store
            assert load_trash(repository) or gone.id in load_purged(repository)
