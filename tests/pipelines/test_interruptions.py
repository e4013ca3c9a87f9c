"""A run that is stopped or killed loses nothing that was stored, and stores nothing twice."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from model.chunking import KIB, MIB
from model.errors import Interrupted, Refused, StoreFull
from pipelines import fitting
from pipelines.options import Progress, Watch
from repository.index import ChunkIndex
from repository.snapshot import load_all
from repository.store.wrappers import Fault, FaultyStore
from tests.pipelines.helpers import Place, differences, noise

ROOT = Path(__file__).parents[2]


class StopAfter(Watch):
    """Sets `stop` once so many bytes are done."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def progress(self, progress: Progress) -> None:
        if progress.bytes_done >= self.size:
            self.stop.set()


def stored_ids(place: Place) -> np.ndarray:
    tables = ChunkIndex.load(place.repository, None).tables
    return np.concatenate([table.ids for table in tables])


def test_a_stopped_backup_commits_nothing_and_wastes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "PACK_MAX", 4 * MIB)
    tree = noise(tmp_path / "tree", 120, 2 * MIB)
    place = Place(tmp_path / "repository")
    with pytest.raises(Interrupted):
        place.backup(tree, watch=StopAfter(1))
    assert load_all(place.repository) == []
    kept = len(stored_ids(place))
    assert kept > 0
    report = place.backup(tree)
    ids = stored_ids(place)
    assert len(np.unique(ids, axis=0)) == len(ids), "no chunk was stored twice"
    assert report.bytes_new < 240 * MIB
    assert report.snapshot is not None
    place.restore(report.snapshot, tmp_path / "out")
    assert differences(tree, tmp_path / "out" / os.fspath(tree)[1:]) == ""


def test_a_full_store_fails_the_run_and_commits_nothing(tmp_path: Path) -> None:
    tree = noise(tmp_path / "tree", 30, 2 * MIB)
    place = Place(tmp_path / "repository")
    whole = place.repository.store
    place.repository.store = FaultyStore(
        whole, [Fault("put", "packs/", StoreFull("no room left", subject="test"), skip=1)]
    )
    with pytest.raises(StoreFull):
        place.backup(tree)
    place.repository.store = whole
    assert load_all(place.repository) == []
    assert place.backup(tree).problems == []


@pytest.mark.parametrize(("prefix", "skip"), [("packs/", 4), ("snapshots/", 0)])
def test_what_a_failed_run_stored_is_not_sent_again(
    prefix: str, skip: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitting, "PACK_MAX", 8 * MIB)
    tree = noise(tmp_path / "tree", 30, 2 * MIB)
    place = Place(tmp_path / "repository", lanes=1)
    whole = place.repository.store
    place.repository.store = FaultyStore(whole, [Fault("put", prefix, Refused("not now", subject="test"), skip=skip)])
    with pytest.raises(Refused):
        place.backup(tree)
    place.repository.store = whole
    assert load_all(place.repository) == []
    assert len(stored_ids(place)) > 0
    assert place.backup(tree).problems == []
    ids = stored_ids(place)
    assert len(np.unique(ids, axis=0)) == len(ids)


BACKUP = """
import sys
from pathlib import Path
from pipelines.backup import BackupRequest, backup
from pipelines.options import EngineOptions, Watch
from repository.repository import Repository
from repository.store import LocalStore
repository = Repository.open(LocalStore(sys.argv[1]), "correct horse")
print("opened", flush=True)
backup(repository, BackupRequest((sys.argv[2].encode(),)), EngineOptions(executor="threads", lanes=2), Watch())
"""


@pytest.mark.slow
def test_killed_at_any_time_the_next_backup_succeeds(tmp_path: Path) -> None:
    tree = noise(tmp_path / "tree", 400, 600 * KIB)
    place = Place(tmp_path / "repository")
    rng = random.Random(3)
    for _ in range(20):
        process = subprocess.Popen(
            [sys.executable, "-c", BACKUP, tmp_path / "repository", tree], cwd=ROOT, stdout=subprocess.PIPE
        )
        assert process.stdout is not None and process.stdout.readline() == b"opened\n"
        time.sleep(rng.random() * 0.7)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    report = place.backup(tree)
    assert report.problems == [] and report.snapshot is not None
    for snapshot in load_all(place.repository)[-2:]:
        out = tmp_path / snapshot.id
        assert place.restore(snapshot, out).problems == []
        assert differences(tree, out / os.fspath(tree)[1:]) == ""


def test_a_stopped_restore_goes_on_where_it_stopped(tmp_path: Path) -> None:
    tree = noise(tmp_path / "tree", 100, 2 * MIB)
    place = Place(tmp_path / "repository")
    snapshot = place.backup(tree).snapshot
    assert snapshot is not None
    with pytest.raises(Interrupted):
        place.restore(snapshot, tmp_path / "out", watch=StopAfter(1))
    report = place.restore(snapshot, tmp_path / "out", verify=True)
    assert report.problems == []
    assert report.skipped > 0
    assert differences(tree, tmp_path / "out" / os.fspath(tree)[1:]) == ""
