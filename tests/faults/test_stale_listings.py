"""A store that lags behind, as some object stores do: B4 to B6 of the fault catalogue.

Nobody takes the lag for damage that is acted upon, nobody restores less than there is without saying so, and once the
store has caught up nothing is left of it.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from model.errors import Damaged, LoxError, Missing
from pipelines.options import Watch
from pipelines.restore import RestoreRequest, restore
from repository.annotations import load_annotations
from repository.check import check
from repository.condemned import load_condemned
from repository.repair import repair
from repository.repository import Repository
from repository.snapshot import load, load_all
from repository.store import MemoryStore
from repository.trash import forget, load_trash, purge, undelete
from tests.faults.scenarios import CHEAP, CHUNKS, ENGINE, Tree, back_up, look
from tests.faults.stale import StaleStore


class Scene:
    """A repository of two snapshots, and a connection that has seen the first one only."""

    def __init__(self, folder: Path, prefixes: tuple[str, ...], reads: bool) -> None:
        self.folder = folder
        self.tree = folder / "tree"
        self.tree.mkdir()
        self.store = MemoryStore()
        self.repository, _ = Repository.init(self.store, "secret", CHUNKS, kdf=CHEAP)
        self.trees: dict[str, Tree] = {}
        self.backup()
        self.stale = StaleStore(self.store, prefixes, reads)
        self.backup()
        self.lagging = Repository.attach(self.stale, self.repository.credentials())

    def backup(self) -> str:
        (self.tree / f"file{len(self.trees)}").write_bytes(os.urandom(50_000))
        snapshot = back_up(self.repository, self.tree)
        self.trees[snapshot] = look(self.tree)
        return snapshot

    def restored(self, repository: Repository, snapshot_id: str) -> Tree | None:
        """What it restores to; None if that was refused or told to be incomplete."""
        out = self.folder / f"out{time.monotonic_ns()}"
        snapshot = load(repository, snapshot_id)
        try:
            report = restore(repository, RestoreRequest(snapshot, os.fsencode(out)), ENGINE, Watch())
        except LoxError:
            return None
        return None if report.problems else look(out / os.fspath(self.tree)[1:])


LAGS = {
    "all listings": ("",),
    "the index": ("index/",),
    "packs": ("packs/",),
    "index and packs": ("index/", "packs/"),
    "snapshots": ("snapshots/",),
}
EVERY = pytest.mark.parametrize("lag", LAGS)
READS = pytest.mark.parametrize("reads", [False, True], ids=["lists", "lists and reads"])


@pytest.fixture
def scene(lag: str, reads: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    monkeypatch.setenv("LOX_CACHE_DIR", str(tmp_path / "cache"))
    return Scene(tmp_path, LAGS[lag], reads)


@EVERY
@READS
def test_who_reads_gets_the_truth_or_an_error(scene: Scene) -> None:
    first, second = scene.trees
    assert scene.restored(scene.lagging, first) == scene.trees[first]
    seen = {snapshot.id for snapshot in load_all(scene.lagging)}
    assert first in seen
    if second in seen:
        assert scene.restored(scene.lagging, second) in (scene.trees[second], None)
    scene.stale.catch_up()
    for snapshot, tree in scene.trees.items():
        assert scene.restored(scene.lagging, snapshot) == tree
    assert check(scene.lagging, "data").findings == []


@EVERY
@READS
def test_who_writes_stores_more_and_loses_nothing(scene: Scene) -> None:
    (scene.tree / "new").write_bytes(os.urandom(40_000))
    try:
        snapshot = back_up(scene.lagging, scene.tree)
        scene.trees[snapshot] = look(scene.tree)
    except (Damaged, Missing):
        assert scene.stale._reads, "a listing that lags is no reason to fail"
    scene.stale.catch_up()
    for repository in (scene.repository, scene.lagging):
        for snapshot, tree in scene.trees.items():
            assert scene.restored(repository, snapshot) == tree
        assert check(repository, "data").findings == []


@EVERY
@READS
def test_a_repair_in_the_lag_takes_nothing_away(scene: Scene) -> None:
    """It may do more than was needed; nothing that a snapshot needs is gone or given up for it."""
    before = dict(scene.store.list())
    try:
        repair(scene.lagging, apply=True, level="data")
    except LoxError:
        pass
    assert before.items() <= dict(scene.store.list()).items()
    scene.stale.catch_up()
    for snapshot, tree in scene.trees.items():
        assert scene.restored(scene.repository, snapshot) == tree


@pytest.mark.parametrize(("lag", "reads"), [("all listings", False)])
def test_what_is_listed_though_it_is_gone(scene: Scene) -> None:
    """Deleted by others since it was listed: left out, and deleting it again is no error."""
    scene.stale.catch_up()
    first, second = scene.trees
    forget(scene.repository, first, "by name", 1)
    assert [snapshot.id for snapshot in load_all(scene.lagging)] == [second]
    with pytest.raises(Missing):
        forget(scene.lagging, first, "by name", 2)
    scene.stale.catch_up()
    (trashed,) = load_trash(scene.repository)
    undelete(scene.repository, trashed)
    assert load_trash(scene.lagging) == [] and len(load_all(scene.lagging)) == 1, "on its way back, and not seen yet"
    assert purge(scene.lagging, 0, time.time_ns()) == []
    load_annotations(scene.lagging), load_condemned(scene.lagging)
    scene.stale.catch_up()
    assert {snapshot.id for snapshot in load_all(scene.lagging)} == {first, second}
    slot = scene.repository.add_password("another", "deputy", CHEAP)
    scene.stale.catch_up()
    scene.repository.remove_key(slot.id)
    assert Repository.open(scene.stale, "secret").id == scene.repository.id
    assert slot.id not in {one.id for one in scene.lagging.list_keys().slots}


@pytest.mark.parametrize(("lag", "reads"), [("all listings", False)])
def test_a_purge_in_the_lag_does_not_take_what_came_back(scene: Scene) -> None:
    """Brought back since it was listed: purging the trash does not touch it."""
    first, _ = scene.trees
    forget(scene.repository, first, "by name", 1)
    scene.stale.catch_up()
    undelete(scene.repository, load_trash(scene.repository)[0])
    purge(scene.lagging, 0, time.time_ns())
    assert scene.restored(scene.repository, first) == scene.trees[first]
    assert check(scene.repository, "data").findings == []
