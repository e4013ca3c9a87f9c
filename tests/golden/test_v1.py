"""Repositories of version 1, as they were written once, are read and written by today's program."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from pipelines.backup import BackupRequest, backup
from pipelines.options import Watch
from pipelines.restore import RestoreRequest, restore
from repository.check import check
from repository.repository import Repository
from repository.snapshot import load, load_all
from repository.store import LocalStore
from tests.golden.expected import EXPECTED, V1, WAYS
from tests.golden.make_v1 import CODECS, ENGINE, describe, recorded, take_step

ROOT = os.fsencode(EXPECTED["root"])


def open_copy(name: str, key: str, place: Path, mode: int = 0o644) -> Repository:
    """The golden repository in `place`, its files in the mode that git gives them."""
    shutil.copytree(V1 / name, place)
    for path in files_of(place):
        path.chmod(mode)
    return Repository.open(LocalStore(os.fspath(place)), EXPECTED["repositories"][name][key])


def files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def comparable(tree: dict[str, dict[str, Any]], place: Path) -> dict[str, dict[str, Any]]:
    """Without what this user or the file system of `place` cannot restore."""
    dropped, modes = (set(), 0o7777) if os.geteuid() == 0 else ({"owner"}, 0o1777)  # no setuid without its owner
    try:
        os.setxattr(place, "user.probe", b"")
    except OSError:
        dropped.add("xattrs")
    kept = {path: {key: entry[key] for key in entry.keys() - dropped} for path, entry in tree.items()}
    return {path: entry | {"mode": int(entry["mode"], 8) & modes} for path, entry in kept.items()}


@pytest.mark.parametrize("mode", [0o400, 0o644], ids=["as written", "as checked out"])
@pytest.mark.parametrize(("name", "key"), WAYS)
def test_it_is_sound_and_reading_changes_nothing(name: str, key: str, mode: int, tmp_path: Path) -> None:
    place = tmp_path / "repository"
    repository = open_copy(name, key, place, mode)
    report = check(repository, "data")
    assert (report.findings, report.notes) == ([], [])
    assert (report.snapshots, report.packs_read) == (len(CODECS), report.packs)
    assert {snapshot.id for snapshot in load_all(repository)} == {
        facts["id"] for facts in EXPECTED["repositories"][name]["snapshots"]
    }
    before = {path.relative_to(V1 / name): path.read_bytes() for path in files_of(V1 / name)}
    assert {path.relative_to(place): path.read_bytes() for path in files_of(place)} == before


@pytest.mark.parametrize("step", range(len(CODECS)), ids=CODECS)
@pytest.mark.parametrize(("name", "key"), WAYS)
def test_every_snapshot_is_restored(name: str, key: str, step: int, tmp_path: Path) -> None:
    repository = open_copy(name, key, tmp_path / "repository")
    facts = EXPECTED["repositories"][name]["snapshots"][step]
    snapshot = load(repository, facts["id"])
    assert (snapshot.parent, snapshot.tags, snapshot.paths) == (facts["parent"], (facts["codec"],), (b"/" + ROOT,))
    target = tmp_path / "out"
    report = restore(repository, RestoreRequest(snapshot, os.fsencode(target), verify=True), ENGINE, Watch())
    assert (report.problems, report.damaged) == ([], False)
    restored = target / EXPECTED["root"]
    assert comparable(describe(restored), tmp_path) == comparable(EXPECTED["trees"][step], tmp_path)
    assert (restored / "sparse").stat().st_blocks * 512 < 1 << 20
    assert recorded(repository, snapshot, ROOT) == {key: facts[key] for key in ("chunks", "extents")}


@pytest.mark.parametrize("name", ["encrypted", "plain"])
def test_the_same_tree_is_cut_and_named_the_same_today(name: str, tmp_path: Path) -> None:
    """A backup into the old repository stores no content again."""
    repository = open_copy(name, "password", tmp_path / "repository")
    root = tmp_path / "tree"
    for step in range(len(CODECS)):
        take_step(root, step)
    report = backup(repository, BackupRequest((os.fsencode(root),), mode="full"), ENGINE, Watch())
    assert report.problems == []
    assert report.bytes_read > 10 << 20
    assert report.bytes_new == 0
    assert check(repository, "data").sound


def test_the_key_file_opens_all_epochs() -> None:
    store, secrets = LocalStore(os.fspath(V1 / "encrypted")), EXPECTED["repositories"]["encrypted"]
    opened = [Repository.open(store, secrets[key]).keys.epochs for key in ("key_file", "password")]
    assert opened[0] == opened[1] and len(opened[0]) == 2


def test_what_a_write_only_machine_wrote_is_restored_and_it_goes_on(tmp_path: Path) -> None:
    expected, place = EXPECTED["written"], tmp_path / "repository"
    shutil.copytree(V1 / "written", place)
    for secret in (expected["password"], expected["recovery_code"]):
        repository = Repository.open(LocalStore(os.fspath(place)), secret)
        assert check(repository, "data").sound
        for number, facts in enumerate(expected["snapshots"]):
            snapshot = load(repository, facts["id"])
            assert snapshot.writer == facts["writer"]
            target = tmp_path / f"out {number} {len(secret)}"
            restore(repository, RestoreRequest(snapshot, os.fsencode(target)), ENGINE, Watch())
            found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files_of(target)}
            assert found == facts["files"]
    machine = Repository.open(LocalStore(os.fspath(place)), expected["write_only_key"])
    assert machine.keys.epoch == 2
    (tmp_path / "new").write_bytes(b"new")
    report = backup(machine, BackupRequest((os.fsencode(tmp_path / "new"),)), ENGINE, Watch())
    assert report.snapshot is not None and check(repository, "data").sound
