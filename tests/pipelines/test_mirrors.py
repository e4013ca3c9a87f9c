"""Backups into several stores at once: each of them restores alone, and one that fails catches up."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pytest

from model.chunking import KIB, MIB, ChunkerParams
from model.errors import LoxError, Refused, StoreFull, UsageError
from pipelines import fitting
from pipelines.backup import BackupReport, BackupRequest
from pipelines.mirrors import MirrorReport, mirrored_backup
from pipelines.options import Watch
from repository.check import check
from repository.repository import Repository
from repository.snapshot import load_all
from repository.store import LocalStore, MemoryStore, Store
from repository.store.wrappers import Fault, FaultyStore, RecordingStore
from tests.pipelines.helpers import Place, differences


def tree_of(root: Path, seed: int, files: int = 12, size: int = 2 * MIB) -> Path:
    root.mkdir(exist_ok=True)
    dice = random.Random(seed)
    for number in range(files):
        (root / f"file{seed}-{number}").write_bytes(dice.randbytes(size))
    return root


def run(place: Place, tree: Path, *mirrors: Store, **more: bool) -> tuple[BackupReport, list[MirrorReport]]:
    request = BackupRequest((os.fsencode(tree),), **more)  # type: ignore[arg-type]
    return mirrored_backup(place.repository, mirrors, request, place.engine, Watch(), lambda what, done, total: None)


def assert_alone(place: Place, store: Store, tree: Path, out: Path) -> None:
    """The store, without any other, restores the last snapshot and has nothing damaged."""
    alone = Place.__new__(Place)
    alone.executor, alone.lanes = place.executor, place.lanes
    alone.repository = Repository.open(store, "correct horse")
    assert check(alone.repository, "data").findings == []
    assert alone.restore(load_all(alone.repository)[-1], out).problems == []
    assert differences(tree, out / os.fspath(tree)[1:]) == ""


@pytest.mark.parametrize("executor", ["inline", "threads", pytest.param("ray", marks=pytest.mark.ray)])
def test_two_mirrors_restore_alone(executor: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "PACK_MAX", 8 * MIB)
    place = Place(tmp_path / "repository", executor)
    mirrors = [LocalStore(str(tmp_path / name)) for name in ("one", "two")]
    for seed in (1, 2):
        tree = tree_of(tmp_path / "tree", seed)
        report, states = run(place, tree, *mirrors)
        assert report.snapshot is not None and [state.trouble for state in states] == ["", ""]
        for state in states:
            assert state.sync is not None
            assert (state.sync.copied, state.sync.snapshots) == (1, 1), "all but the snapshot went along"
    primary = [each for each in place.repository.store.list() if not each[0].startswith("sessions/")]
    for store in mirrors:
        assert list(store.list()) == primary
    shutil.rmtree(tmp_path / "repository")
    place.executor = "threads"  # what restores has no matter to what was stored
    for name, store in zip(("a", "b"), mirrors, strict=True):
        assert_alone(place, store, tree, tmp_path / name)


def test_a_new_mirror_gets_what_was_there_before(tmp_path: Path) -> None:
    place = Place(tmp_path / "repository")
    tree = tree_of(tmp_path / "tree", 1)
    place.backup(tree)
    tree_of(tree, 2, files=1)
    mirror = MemoryStore()
    report, (state,) = run(place, tree, mirror)
    assert report.bytes_new < 3 * MIB, "it is not sent to the repository again"
    assert state.sync is not None and state.sync.snapshots == 2 and state.sync.bytes > 24 * MIB
    assert_alone(place, mirror, tree, tmp_path / "out")


@pytest.mark.slow
def test_a_mirror_that_fails_costs_the_run_nothing_and_catches_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitting, "PACK_MAX", 8 * MIB)
    place = Place(tmp_path / "repository")
    mirror = MemoryStore()
    for seed, (prefix, skip) in enumerate([("packs/", 1), ("index/", 0), ("snapshots/", 0), ("", 0)]):
        tree = tree_of(tmp_path / "tree", seed)
        recorded = RecordingStore(mirror)
        broken = FaultyStore(recorded, [Fault("put", prefix, StoreFull("no room left", subject="test"), skip=skip)])
        report, (state,) = run(place, tree, broken)
        assert report.snapshot is not None and report.problems == []
        assert state.sync is None and "no room left" in state.trouble
        assert recorded.of("put", "snapshots/") == [], "no snapshot where something is missing"
        assert_alone(place, place.repository.store, tree, tmp_path / f"primary{seed}")
    silent = FaultyStore(mirror, [Fault("get", "", Refused("no answer", subject="test"))])
    report, (state,) = run(place, tree, silent)
    assert report.snapshot is not None and "no answer" in state.trouble
    _, (state,) = run(place, tree, mirror)
    assert state.trouble == "" and state.sync is not None and state.sync.snapshots == 6
    assert_alone(place, mirror, tree, tmp_path / "mirror")


@pytest.mark.slow
def test_wherever_a_mirror_fails_it_is_sound_and_the_next_run_brings_the_rest(tmp_path: Path) -> None:
    tree = tree_of(tmp_path / "tree", 1, files=4, size=100 * KIB)
    place = Place(tmp_path / "repository", "inline", lanes=1, chunker=ChunkerParams(average=16 * KIB))
    places = 0
    for verb in ("put", "get", "list", "size"):
        for skip in range(100):
            (tree / "changing").write_bytes(b"%d" % places)
            mirror = MemoryStore()
            fault = Fault(verb, "", Refused("not now", subject="test"), skip=skip, times=1)
            report, (state,) = run(place, tree, FaultyStore(mirror, [fault]))
            assert report.snapshot is not None
            if fault.times:
                break
            places += 1
            if mirror.exists("config"):
                alone = Repository.attach(mirror, place.repository.credentials())
                assert check(alone, "data").findings == []
            if state.trouble:
                _, (state,) = run(place, tree, mirror)
            assert state.trouble == "" and len(load_all(Repository.attach(mirror, place.repository.credentials()))) >= 1
            if skip >= 8:
                break  # from here on they are all packs of earlier rounds
    assert places > 12


def test_the_primary_decides(tmp_path: Path) -> None:
    place = Place(tmp_path / "repository")
    tree = tree_of(tmp_path / "tree", 1, files=2)
    mirror, whole = MemoryStore(), place.repository.store
    place.repository.store = FaultyStore(whole, [Fault("put", "packs/", StoreFull("no room left", subject="test"))])
    with pytest.raises(LoxError, match="no room left"):
        run(place, tree, mirror)
    place.repository.store = whole
    assert not list(mirror.list("snapshots/"))
    _, (state,) = run(place, tree, mirror)
    assert state.trouble == ""
    assert_alone(place, mirror, tree, tmp_path / "out")


def test_what_is_no_mirror_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    place, other = Place(tmp_path / "repository"), Place(tmp_path / "other")
    tree = tree_of(tmp_path / "tree", 1, files=1)
    for wrong in (other.repository.store, place.repository.store):
        with pytest.raises(UsageError):
            run(place, tree, wrong)
    assert load_all(place.repository) == []


def test_a_dry_run_leaves_mirrors_alone(tmp_path: Path) -> None:
    place, mirror = Place(tmp_path / "repository"), RecordingStore(MemoryStore())
    _, states = run(place, tree_of(tmp_path / "tree", 1, files=1), mirror, dry_run=True)
    assert states == [] and mirror.of("put") == []
