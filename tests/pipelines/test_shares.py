"""A snapshot of two hosts, whose shares are done at once in this process: what users see of it."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.errors import RunFailed, UsageError
from pipelines.backup import BackupRequest, backup, session_of
from pipelines.keeping import left_out, of_host
from pipelines.many_hosts import ManyHosts
from pipelines.options import EngineOptions, Watch
from repository.claims import HostClaims
from repository.snapshot import Snapshot, load_all
from runtime.errands import Errand, ErrandControl
from runtime.executors import LocalExecutor
from runtime.stage import NeverStop
from tests.lox.running import Shell
from tests.pipelines.helpers import Place, differences


class Here(LocalExecutor):
    """Runs errands on threads of this process. `lives`: which life of each host comes to its end, 1 unless told."""

    def __init__(self, lives: Mapping[str, int] | None = None) -> None:
        super().__init__("threads")
        self._lives = lives or {}

    def run_errands(self, errands: Mapping[str, Errand], control: ErrandControl) -> tuple[dict[str, Any], int]:
        def lives(host: str) -> Any:
            for life in range(1, self._lives.get(host, 1)):
                errands[host](self._services, NeverStop(), life)
                control.on_lost(host, life)
            return errands[host](self._services, NeverStop(), self._lives.get(host, 1))

        with ThreadPoolExecutor(len(errands)) as pool:
            done = dict(zip(errands, pool.map(lives, errands), strict=True))
        control.on_tick()
        return done, 0


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    for number in range(30):
        (tree / f"folder{number % 4}").mkdir(parents=True, exist_ok=True)
        (tree / f"folder{number % 4}" / f"file{number}").write_bytes(os.urandom(5000))
    (tree / "out.tmp").write_bytes(b"out")
    return tree


def backup_both(place: Place, tree: Path, executor: Here | None = None) -> Snapshot:
    request = BackupRequest((os.fsencode(tree),), (b"*.tmp",), host="both", hosts=("a", "b"))
    with session_of(place.repository, request) as session:
        report = ManyHosts(place.repository, request, place.engine, Watch(), session).run(executor or Here())
    assert report.snapshot is not None
    assert report.problems == []
    return report.snapshot


def test_commands_show_a_folder_for_each_host(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    place, lox = Place(tmp_path / "repository"), Shell(tmp_path / "repository", monkeypatch, capfd)
    backup_both(place, tree)
    assert lox("ls", "latest").ok().out == "/a/\n/b/\n"
    assert len(lox("ls", "-R", "latest", f"/b{tree}").ok().out.splitlines()) == 34
    assert f"/a{tree}/out.tmp: it was excluded" in lox("why", "latest", f"/a{tree}/out.tmp").ok(1).err
    assert "state     new" in lox("why", "latest", f"/b{tree}/folder1").ok().out
    refused = lox("restore", "latest", "--in-place", f"/a{tree}").ok(2).err
    assert "the files came from several hosts: a, b" in refused
    assert "--of-host a" in refused
    assert "no part of this host: c: it is of a, b" in lox("restore", "latest", "--of-host", "c", "-t", "x").ok(1).err
    (tree / "out.tmp").unlink()
    (tree / "folder1" / "file1").write_bytes(b"worse")
    (tree / "folder1" / "more").write_bytes(b"more")
    backup_both(place, tree)
    first, second = load_all(place.repository)
    assert second.parent == first.id
    told = lox("diff", first.id, second.id).ok().out.splitlines()
    assert [line for line in told if os.fspath(tree) in line] == [
        f"m  /a{tree}", f"m  /a{tree}/folder1", f"M  /a{tree}/folder1/file1", f"+  /a{tree}/folder1/more",
        f"m  /b{tree}", f"m  /b{tree}/folder1", f"M  /b{tree}/folder1/file1", f"+  /b{tree}/folder1/more",
    ]  # fmt: skip
    assert [one["hosts"] for one in lox("snapshots", "--json").ok().lines] == [["a", "b"]] * 2
    wanted = tmp_path / "wanted"
    lox("restore", first.id, "--of-host", "b", "--target", wanted).ok()
    (tree / "kept.tmp").write_bytes(b"never backed up, so never deleted")
    lox("restore", first.id, "--of-host", "b", "--in-place", "--delete", "--yes", tree).ok()
    (tree / "kept.tmp").unlink()
    os.utime(tree, ns=(0, (wanted / os.fspath(tree)[1:]).stat().st_mtime_ns))
    assert differences(wanted / os.fspath(tree)[1:], tree) == "", "its own rows, in place, and nothing beside them"


def test_what_was_left_out_is_known_for_each_host(tree: Path, tmp_path: Path) -> None:
    snapshot = backup_both(Place(tmp_path / "repository"), tree)
    left = os.fsencode(tree)[1:] + b"/other.tmp"
    assert left_out(snapshot, b"a/" + left, False) == "it was excluded"
    assert left_out(snapshot, left, False) == "it is not below the paths that were backed up"
    assert left_out(of_host(snapshot, "a"), left, False) == "it was excluded"


class Behind(Here):
    """The clock of b is an hour behind."""

    def run_errands(self, errands: Mapping[str, Errand], control: ErrandControl) -> tuple[dict[str, Any], int]:
        done, deaths = super().run_errands(errands, control)
        return done | {"b": replace(done["b"], started=done["b"].started - 3600 * 10**9)}, deaths


def test_the_clock_that_is_most_behind_says_what_to_trust(tree: Path, tmp_path: Path) -> None:
    place = Place(tmp_path / "repository")
    time.sleep(0.1)  # or they are too young to be trusted unread
    first, second = backup_both(place, tree, Behind()), backup_both(place, tree)
    assert first.time - first.started > 3599 * 10**9
    assert second.stats["files_unchanged"] == 0, "what b changed in that hour may have the time of change it had before"
    assert backup_both(place, tree).stats["files_unchanged"] == 60


class KilledOnTheWay(Here):
    """The first process of b dies when it has claimed the content of a file, which a relies on and then b has not."""

    def __init__(self, file: Path, chunk_id: bytes) -> None:
        super().__init__()
        self._file = file
        self._ids = np.frombuffer(chunk_id, np.uint8).reshape(1, 32)

    def run_errands(self, errands: Mapping[str, Errand], control: ErrandControl) -> tuple[dict[str, Any], int]:
        self._services["claims"].claim(self._ids, HostClaims.owners("b", 1) + "lane")
        done = {"a": errands["a"](self._services, NeverStop(), 1)}
        control.on_lost("b", 1)
        self._file.write_bytes(b"something else")
        return done | {"b": errands["b"](self._services, NeverStop(), 2)}, 1


def test_a_broken_promise_commits_nothing(tree: Path, tmp_path: Path) -> None:
    place, file = Place(tmp_path / "repository"), tree / "folder1" / "file1"
    content = file.read_bytes()
    executor = KilledOnTheWay(file, place.repository.keys.chunk_id(content))
    with pytest.raises(RunFailed, match="content that several hosts have is not stored: 1 chunks"):
        backup_both(place, tree, executor)
    assert list(load_all(place.repository)) == []
    file.write_bytes(content)
    snapshot = backup_both(place, tree, Here({"b": 2}))
    place.restore(snapshot, tmp_path / "out", of_host="b")
    (tree / "out.tmp").unlink()
    assert differences(tree / "folder1", tmp_path / "out" / os.fspath(tree / "folder1")[1:]) == ""


def test_hosts_need_a_cluster_and_no_placement(tree: Path, tmp_path: Path) -> None:
    place, request = Place(tmp_path / "repository"), BackupRequest((b"/etc",), hosts=("a", "b"))
    with pytest.raises(UsageError, match="hosts are those of a cluster: a, b"):
        backup(place.repository, request, EngineOptions("ray"), Watch())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--hosts", "a,,b", "/etc"], "--hosts names each host once"),
        (["--hosts", "a,a", "/etc"], "--hosts names each host once"),
        (["--hosts", "a,b", "--host", "a", "/etc"], "several hosts have the name of one of them: a"),
        (["--hosts", "a,b", "etc"], "a path of other hosts must be absolute: etc"),
        (["--hosts", "a,b", "/etc/../x"], "a path of other hosts must be absolute"),
        (["--hosts", "a/x,b", "/etc"], "not a name of a host: 'a/x'"),
        (["--hosts", "\x1b[2J,b", "/etc"], "not a usable host: \\x1b[2J+b"),
        (["--hosts", ",".join(f"host{number:04}" for number in range(40)), "/etc"], "need a name of their own"),
    ],
)
def test_hosts_that_make_no_sense_are_refused(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    Place(tmp_path / "repository")
    lox = Shell(tmp_path / "repository", monkeypatch, capfd)
    assert (
        said
        in lox("backup", "--executor", "ray", "--ray-address", "localhost:1", "--ray-token", "x", *arguments).ok(2).err
    )
