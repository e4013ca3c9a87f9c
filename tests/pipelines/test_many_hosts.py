"""One snapshot of the file systems of two hosts: the same, host by host, as of each alone; and hosts that fail.

The two hosts are nodes on this one and see the same files; tests/pipelines/test_separate_hosts.py has two with files
of their own.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from model.chunking import KIB, MIB
from model.errors import Interrupted, NotFound, RunFailed, UsageError
from pipelines.backup import BackupReport, BackupRequest, backup
from pipelines.options import EngineOptions, Progress, Watch
from repository.host_parts import DEVICES
from repository.snapshot import load_all
from tests.clusters import Nodes, nodes
from tests.pipelines.helpers import Place, differences

pytestmark = pytest.mark.ray
FILES = 600
SLOW = 12  # level of compression


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small files, one in pieces under two names, and a link."""
    root = tmp_path_factory.mktemp("source") / "tree"
    rng = random.Random(28)
    for number in range(FILES):
        folder = root / f"folder{number % 12}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"file{number}").write_bytes(rng.randbytes(rng.randrange(30 * KIB)))
    (root / "large").write_bytes(rng.randbytes(20 * MIB))
    os.link(root / "large", root / "another name")
    (root / "link").symlink_to("large")
    return root


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What takes long to compress at `SLOW`, or a run is over before anything can happen to it; but not so long that
    what is under way takes longer than a run that has failed waits for."""
    path = tmp_path_factory.mktemp("slow") / "slow"
    path.write_bytes(random.Random(29).randbytes(20 * MIB).hex().encode())
    return path


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    with nodes(tmp_path_factory.mktemp("cluster") / "token", host="nas") as cluster:
        cluster.add(host="nas-2")
        yield cluster


def many(place: Place, cluster: Nodes, *trees: Path, hosts: tuple[str, ...] = ("nas", "nas-2"), **more: Any) -> Any:
    watch = more.pop("watch", None) or Watch()
    paths = tuple(os.fsencode(tree) for tree in trees)
    wanted = {"host": "all", "excludes": (b"*.tmp",), "hosts": hosts} | more
    engine = EngineOptions("ray", cluster=cluster.options)
    return backup(place.repository, BackupRequest(paths, **wanted), engine, watch)


def same_as_alone(place: Place, report: BackupReport, tree: Path) -> None:
    """Every row of every host is that of a backup of the host alone, but for its folder and the numbers of devices."""
    alone = place.backup(tree, mode="full", excludes=(b"*.tmp",))
    assert report.snapshot is not None and alone.snapshot is not None
    assert alone.bytes_new == 0, "every chunk was found"
    theirs = place.rows(alone.snapshot, tree).drop_columns("atime").to_pylist()  # to list a folder is to move that
    for number, host in enumerate(report.snapshot.hosts):
        ours = place.rows(report.snapshot, Path(f"/{host}{tree}")).drop_columns("atime").to_pylist()
        for row in ours:
            row["path"] = row["path"].removeprefix(os.fsencode(host) + b"/")
            row["device"] -= number * DEVICES
        assert ours == theirs


def test_two_hosts_have_a_folder_each(cluster: Nodes, tree: Path, tmp_path: Path) -> None:
    place = Place(tmp_path / "repository")
    report = many(place, cluster, tree)
    assert (report.problems, report.files) == ([], 2 * (FILES + 3))
    assert {host for _, host in report.trace.placed} == {"nas", "nas-2"}
    for line in report.trace.stages:
        assert line.busy + line.starved + line.blocked == pytest.approx(report.trace.wall * line.lanes)
    assert [(host, numbers["files"]) for host, numbers in report.hosts.items()] == [("nas", 603), ("nas-2", 603)]
    once = sum(path.stat().st_size for path in tree.rglob("file*")) + 20 * MIB
    assert once <= report.bytes_new < once * 1.02, "what both have is stored once, whoever comes first"
    same_as_alone(place, report, tree)
    place.restore(report.snapshot, tmp_path / "out")
    for host in ("nas", "nas-2"):
        assert differences(tree, tmp_path / "out" / host / os.fspath(tree)[1:]) == ""
    place.restore(report.snapshot, tmp_path / "one", of_host="nas-2", paths=(os.fsencode(tree)[1:],))
    assert differences(tree, tmp_path / "one" / os.fspath(tree)[1:]) == ""
    assert os.listdir(tmp_path / "one") == [os.fspath(tree).split("/")[1]]
    with pytest.raises(NotFound, match="no part of this host: nas1"):
        place.restore(report.snapshot, tmp_path / "none", of_host="nas1")


def test_without_deduplication_each_host_stores_what_it_reads(cluster: Nodes, tree: Path, tmp_path: Path) -> None:
    place = Place(tmp_path / "repository")
    report = many(place, cluster, tree, deduplicate=False)
    once = sum(path.stat().st_size for path in tree.rglob("file*")) + 20 * MIB
    assert (report.deduplicated, report.bytes_read, report.bytes_new) == (False, 2 * once, 2 * once)
    assert report.bytes_stored > 1.9 * once
    same_as_alone(place, report, tree)


def test_the_next_run_reads_what_changed_and_only_hosts_it_knows(cluster: Nodes, tmp_path: Path) -> None:
    tree, place = tmp_path / "tree", Place(tmp_path / "repository")
    for number in range(20):
        (tree / f"folder{number % 3}").mkdir(parents=True, exist_ok=True)
        (tree / f"folder{number % 3}" / f"file{number}").write_bytes(os.urandom(1000))
    time.sleep(0.1)  # or they are too young to be trusted unread
    (tree / "left.tmp").write_bytes(b"excluded, on all of them")
    first = many(place, cluster, tree, hosts=("nas-2",))
    place.backup(tree, host="all")  # of another kind: no parent
    (tree / "folder1" / "new").write_bytes(b"new")
    second = many(place, cluster, tree)
    assert second.snapshot.parent == first.snapshot.id
    assert (second.files_unchanged, second.files_new, second.bytes_read) == (20, 22, 20_000 + 2 * 3)
    same_as_alone(place, second, tree)
    items = Items()
    third = many(place, cluster, tree, watch=items)
    assert (third.bytes_read, third.files_unchanged) == (0, 42)
    assert (b"nas-2" + os.fsencode(tree / "folder1" / "new"), "unchanged") in items.seen


class Items(Watch):
    """Remembers what it is told, and in which thread."""

    wants_items = True

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[tuple[bytes, str]] = set()

    def item(self, path: bytes, action: str, size: int) -> None:
        assert threading.current_thread() is threading.main_thread()
        self.seen.add((path, action))


def test_trouble_with_a_file_is_told_with_its_host(cluster: Nodes, tmp_path: Path) -> None:
    tree, place = tmp_path / "tree", Place(tmp_path / "repository")
    tree.mkdir()
    (tree / "good").write_bytes(b"good")
    report = many(place, cluster, tree, tmp_path / "missing")
    missing = os.fsencode(tmp_path / "missing")
    assert report.problems == [(host + missing, "no such file or directory") for host in (b"nas", b"nas-2")]
    assert report.snapshot is not None and report.snapshot.problems == 2
    with pytest.raises(RunFailed, match=rf"a file could not be read whole: nas(-2)?: {tmp_path}/missing: no such file"):
        many(place, cluster, tree, tmp_path / "missing", unreadable_file="fail")
    with pytest.raises(UsageError, match=rf"nothing to back up: nas(-2)?: {tmp_path}/missing: no such file"):
        many(place, cluster, tmp_path / "missing")


def test_a_host_that_is_not_there_ends_the_run_before_it_begins(cluster: Nodes, tree: Path, tmp_path: Path) -> None:
    place = Place(tmp_path / "repository")
    before = sorted(place.repository.store.list())
    with pytest.raises(RunFailed, match="a host is not in the cluster: nas-3: those that are there: nas, nas-2"):
        many(place, cluster, tree, hosts=("nas", "nas-3"))
    assert sorted(place.repository.store.list()) == before


@pytest.mark.parametrize("name", ["", "..", "a/b", "a\nb", "a\0b", "x" * 201])
def test_names_that_cannot_be_folders_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="not a name of a host"):
        BackupRequest((b"/etc",), hosts=("nas", name))


def test_dry_runs_store_nothing(cluster: Nodes, tree: Path, tmp_path: Path) -> None:
    place = Place(tmp_path / "repository")
    before = sorted(place.repository.store.list())
    report = many(place, cluster, tree, dry_run=True)
    assert (report.snapshot, report.files) == (None, 2 * (FILES + 3))
    assert sorted(place.repository.store.list()) == before


class When(Watch):
    """Does something once, when so many bytes have been read."""

    def __init__(self, size: int, act: Callable[[], None]) -> None:
        super().__init__()
        self._size = size
        self._act: Callable[[], None] | None = act

    def progress(self, progress: Progress) -> None:
        if self._act is not None and progress.bytes_done > self._size:
            act, self._act = self._act, None
            act()


class Stopped(When):
    """Wants out when so many bytes have been read."""

    def __init__(self, size: int) -> None:
        super().__init__(size, lambda: self.stop.set())  # noqa: PLW0108 - there is no `stop` yet


def workers() -> list[psutil.Process]:
    """The processes of errands on nodes that this process has started."""
    return [one for one in psutil.Process().children(recursive=True) if "ErrandHost" in command_line(one)]


def command_line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def test_a_killed_process_begins_anew(cluster: Nodes, tree: Path, slow: Path, tmp_path: Path) -> None:
    place = Place(tmp_path / "repository")
    killed: list[int] = []

    def kill() -> None:
        for process in workers()[:1]:
            killed.append(process.pid)
            os.kill(process.pid, signal.SIGKILL)

    report = many(place, cluster, tree, slow, watch=When(15 * MIB, kill), level=SLOW)
    assert len(killed) == report.trace.deaths == 1
    same_as_alone(place, report, tree)


def size_of(tree: Path, slow: Path) -> int:
    """Bytes of what both hosts have."""
    return sum(path.stat().st_size for path in (*tree.rglob("file*"), tree / "large", slow))


def test_a_run_that_is_stopped_leaves_what_it_stored(cluster: Nodes, tree: Path, slow: Path, tmp_path: Path) -> None:
    place = Place(tmp_path / "repository")
    watch = Stopped(15 * MIB)
    with pytest.raises(Interrupted):
        many(place, cluster, tree, slow, watch=watch, level=SLOW)
    assert list(load_all(place.repository)) == []
    assert not workers()
    report = many(place, cluster, tree, slow)
    assert report.bytes_new < size_of(tree, slow) - MIB, "some of it was found"
    same_as_alone(place, report, tree)


def test_a_host_that_is_lost_ends_the_run_and_the_next_one_finds_what_was_stored(
    tree: Path, slow: Path, tmp_path: Path
) -> None:
    with nodes(tmp_path / "token", host="nas") as cluster:
        lost = cluster.add(host="nas-2")
        place = Place(tmp_path / "repository")
        with pytest.raises(RunFailed, match=r"nas-2"):
            many(place, cluster, tree, slow, watch=When(70 * MIB, lambda: cluster.remove(lost)), level=SLOW)
        assert list(load_all(place.repository)) == []
        cluster.add(host="nas-2")
        report = many(place, cluster, tree, slow)
        assert report.bytes_new < size_of(tree, slow) - MIB, "what the other host stored is found"
        same_as_alone(place, report, tree)
        cluster.add(host="nas")
        with pytest.raises(RunFailed, match="several nodes of the cluster have this name: nas") as caught:
            many(place, cluster, tree)
        assert "host=NAME" in caught.value.hint
        assert report.snapshot._replace(hosts=()).roots != report.snapshot.roots
