"""A repository as after years (tests/bench/history.py, smaller): it is one like any other."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.backup import BackupRequest, backup
from pipelines.options import EngineOptions, Watch
from repository.annotations import load_annotations
from repository.check import check
from repository.repository import Repository
from repository.snapshot import load_all
from repository.store import LocalStore
from repository.store.wrappers import RecordingStore
from repository.trash import load_trash
from tests.bench.history import History, write_history
from tests.repository.samples import content_of

HISTORY = History(snapshots=60, chunks=6000, hosts=3, notes=5, trashed=4)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("history") / "repository"
    write_history(path, "secret", HISTORY)
    return path


@pytest.fixture
def repository(place: Path) -> Repository:
    return Repository.open(RecordingStore(LocalStore(os.fspath(place))), "secret")


def test_everything_in_it_is_real(repository: Repository) -> None:
    report = check(repository, "data")
    assert report.findings == [] and report.chunks >= HISTORY.chunks
    snapshots = load_all(repository)
    assert len(snapshots) == HISTORY.snapshots - HISTORY.trashed and not snapshots.unreadable
    assert len(load_annotations(repository).notes) == HISTORY.notes
    assert len(load_trash(repository)) == HISTORY.trashed
    twelfth = snapshots[11 - HISTORY.trashed]  # those forgotten were older; its numbers begin with 1100
    second_file = content_of(repository, twelfth, b"srv/data/00000/file-0000001.bin")
    assert second_file == b"".join(number.to_bytes(8, "little") for number in range(1116, 1132))


def test_a_second_backup_reads_neither_index_objects_nor_snapshots_again(
    repository: Repository, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"content" * 1000)
    request = BackupRequest((os.fsencode(tmp_path),), host="box")
    engine = EngineOptions(executor="inline")
    first = backup(repository, request, engine, Watch()).snapshot
    store = repository.store
    assert first is not None and isinstance(store, RecordingStore)
    before = len(store.of("get"))
    second = backup(repository, replace(request, tags=("again",)), engine, Watch())
    read = [call.name for call in store.of("get")[before:]]
    assert second.snapshot is not None and second.snapshot.parent == first.id
    assert [name for name in read if name.startswith("snapshots/")] == [first.name]  # the only one that is new
    assert len([name for name in read if name.startswith("index/")]) == 1


@pytest.mark.parametrize("again", [False, True])
def test_listing_needs_neither_numpy_nor_arrow(place: Path, again: bool) -> None:
    script = (
        "import sys\nfrom lox.__main__ import main\ncode = main(['snapshots'])\n"
        "sys.exit(code or ', '.join({'numpy', 'pyarrow'} & sys.modules.keys()) or 0)"
    )
    environment = {**os.environ, "LOX_REPOSITORY": os.fspath(place), "LOX_PASSWORD": "secret"}
    for _ in range(1 + again):
        done = subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False
        )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == len(load_all(Repository.open(LocalStore(os.fspath(place)), "secret"))) + 1
