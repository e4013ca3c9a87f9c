"""One snapshot made by many hosts: the same as by one, whatever happens to the hosts meanwhile."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from model.chunking import KIB, MIB
from model.errors import RunFailed, UsageError
from pipelines.backup import BackupReport, BackupRequest, backup
from pipelines.options import EngineOptions, Progress, StageOptions, Watch
from pipelines.restore import RestoreRequest, restore
from repository.snapshot import load_all
from tests.clusters import Nodes, nodes
from tests.pipelines.helpers import Place, differences

pytestmark = pytest.mark.ray
FILES = 1000


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Many small files and one in many pieces, some of it compressible."""
    root = tmp_path_factory.mktemp("source") / "tree"
    rng = random.Random(8)
    letters = bytes(range(97, 123)) * 9 + bytes(22)
    for number in range(FILES):
        folder = root / f"folder{number % 40}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"file{number}").write_bytes(rng.randbytes(rng.randrange(40 * KIB)).translate(letters))
    (root / "large").write_bytes(rng.randbytes(24 * MIB).translate(letters))
    return root


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    with nodes(tmp_path_factory.mktemp("cluster") / "token", site="a") as cluster:
        cluster.add(site="b")
        yield cluster


@dataclass
class Many:
    """A repository and a cluster to back up with."""

    place: Place
    cluster: Nodes

    def backup(self, tree: Path, placement: Mapping[str, Mapping[str, str]] | None = None, **more: Any) -> BackupReport:
        stages = {stage: StageOptions(placement=labels) for stage, labels in (placement or {}).items()}
        engine = EngineOptions("ray", more.pop("lanes", None), stages=stages, cluster=self.cluster.options)
        watch = more.pop("watch", None) or Watch()
        return backup(self.place.repository, BackupRequest((os.fsencode(tree),), **more), engine, watch)


@pytest.fixture
def many(tmp_path: Path, cluster: Nodes) -> Many:
    return Many(Place(tmp_path / "repository"), cluster)


def same_as_on_one_host(many: Many, tree: Path, report: BackupReport) -> None:
    """All rows of the tree are bit for bit the same (folders above it change with other tests), and no chunk is new."""
    assert report.snapshot is not None
    assert report.problems == []
    alone = many.place.backup(tree, mode="full")
    assert alone.snapshot is not None
    ours, theirs = (many.place.rows(snapshot, tree) for snapshot in (report.snapshot, alone.snapshot))
    differing = [name for name in ours.column_names if ours[name] != theirs[name]]
    assert ours.num_rows > FILES
    assert differing == []
    assert alone.bytes_new == 0, "every chunk was found"


def hosts_of(report: BackupReport) -> set[str]:
    return {host.rpartition("/")[2] for _, host in report.trace.placed}


def test_two_hosts_make_the_snapshot_of_one(many: Many, tree: Path, tmp_path: Path) -> None:
    report = many.backup(tree)
    assert hosts_of(report) == {node.node_id[:6] for node in many.cluster.list()}
    assert report.files == FILES + 1
    same_as_on_one_host(many, tree, report)
    assert report.snapshot is not None
    many.place.restore(report.snapshot, tmp_path / "out")
    assert differences(tree, tmp_path / "out" / os.fspath(tree)[1:]) == ""
    again = many.backup(tree)
    assert (again.bytes_read, again.files_unchanged) == (0, FILES + 1)


def test_stages_on_different_hosts_make_it_too(many: Many, tree: Path) -> None:
    placement = {"read": {"site": "a"}, "upload": {"site": "b"}}
    report = many.backup(tree, placement, lanes=1)
    a, b = (node.node_id[:6] for node in many.cluster.list())
    assert {lane.partition("-")[0]: host.rpartition("/")[2] for lane, host in report.trace.placed} == {
        "read..encrypt": a,
        "upload": b,
    }
    same_as_on_one_host(many, tree, report)


def test_dry_runs_store_nothing(many: Many, tree: Path) -> None:
    report = many.backup(tree, dry_run=True)
    assert (report.snapshot, report.files) == (None, FILES + 1)
    assert list(load_all(many.place.repository)) == []


def test_only_backups_run_on_many_hosts(many: Many, tree: Path, tmp_path: Path) -> None:
    snapshot = many.place.backup(tree / "folder1").snapshot
    assert snapshot is not None
    engine = EngineOptions("ray", cluster=many.cluster.options)
    with pytest.raises(UsageError, match="only a backup"):
        restore(many.place.repository, RestoreRequest(snapshot, os.fsencode(tmp_path / "out")), engine, Watch())


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


def test_a_host_is_lost_in_the_middle(tree: Path, tmp_path: Path) -> None:
    with nodes(tmp_path / "token", site="a") as cluster:
        lost = cluster.add(site="b", cpus=2)
        many = Many(Place(tmp_path / "repository"), cluster)
        when = When(10 * MIB, lambda: cluster.remove(lost))
        report = many.backup(tree, watch=when, level=12)
        assert report.trace.deaths >= 1
        assert report.trace.replayed > 0
        assert lost.node_id[:6] in hosts_of(report)
        assert report.trace.placed[-1][1].endswith(cluster.list()[0].node_id[:6])
        same_as_on_one_host(many, tree, report)


def test_all_hosts_with_a_label_are_lost_and_the_next_run_heals(
    tree: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with nodes(tmp_path / "token", site="a") as cluster:
        lost = cluster.add(site="b", cpus=2)
        many = Many(Place(tmp_path / "repository"), cluster)
        when = When(15 * MIB, lambda: cluster.remove(lost))
        with pytest.raises(RunFailed, match="no host is left for the lanes: site=b"):
            many.backup(tree, {"read": {"site": "b"}}, watch=when, level=15)
        assert capfd.readouterr().out == "", "Ray says nothing where JSON may be expected"
        assert list(load_all(many.place.repository)) == []
        cluster.add(site="b")
        report = many.backup(tree, {"read": {"site": "b"}})
        same_as_on_one_host(many, tree, report)
