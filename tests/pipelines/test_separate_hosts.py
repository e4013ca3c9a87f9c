"""``lox backup`` on two hosts with a network between them, TLS, and the shipped units; and hosts that are not fit."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from repository.repository import Repository
from repository.snapshot import load_all
from repository.store import LocalStore
from tests.pipelines.helpers import Place, differences
from tests.separate_hosts import Hosts, hosts, possible

pytestmark = [pytest.mark.ray, pytest.mark.root]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    """Two hosts; on the second one another file system lies over the folder "hidden", with a tree of its own in it."""
    if not possible():
        pytest.skip("networks cannot be made here: needs root, CAP_NET_ADMIN, iproute2 and openssl")
    folder = tmp_path_factory.mktemp("hosts")
    (folder / "hidden").mkdir()
    with hosts(folder) as two:
        two.start("lox-ray-head.service", 0, "site=a")
        two.wait(1)
        own = folder / "hidden" / "own"
        files = f"mkdir -p {own}/logs; echo two > {own}/name; echo more > {own}/logs/new; echo no > {own}/logs/x.tmp"
        two.start("lox-ray-worker.service", 1, "site=b,net=wan", f"mount -t tmpfs none {folder / 'hidden'}; {files}")
        two.wait(2)
        yield two


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return planted(tmp_path / "tree")


def planted(root: Path) -> Path:
    """A tree of some files and one in pieces."""
    rng = random.Random(3)
    for number in range(300):
        folder = root / f"folder{number % 10}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"file{number}").write_bytes(rng.randbytes(rng.randrange(30_000)))
    (root / "large").write_bytes(rng.randbytes(30_000_000))
    return root


def backup(two: Hosts, place: Place, tree: Path, *options: str) -> tuple[int, list[dict[str, Any]], str]:
    """Exit code, JSON lines and standard error of a backup on both hosts."""
    environment = {"LOX_REPOSITORY": os.fspath(place.path), "LOX_PASSWORD": "correct horse"}
    run = two.lox("backup", "--json", "--executor", "ray", *options, os.fspath(tree), environment=environment)
    out, err = run.communicate(timeout=120)
    return run.returncode, [json.loads(line) for line in out.splitlines()], err


def hosts_of(lines: list[dict[str, Any]]) -> set[str]:
    return {lane["host"].partition("/")[0] for lane in lines[-1]["lanes"]}


def test_two_hosts_with_tls_make_one_snapshot(two: Hosts, tree: Path, tmp_path: Path) -> None:
    place = Place(tmp_path / "repository")
    code, lines, err = backup(two, place, tree, "--ray-port", "6390")
    assert (code, err) == (0, "")
    assert hosts_of(lines) == {"nas1", "nas2"}
    snapshot = load_all(place.repository)[0]
    assert place.restore(snapshot, tmp_path / "out").problems == []
    assert differences(tree, tmp_path / "out" / os.fspath(tree)[1:]) == ""
    code, lines, _ = backup(two, place, tree, "--set", "placement.read={net: wan}", "--mode", "full")
    assert code == 0
    assert hosts_of(lines) == {"nas2"}
    assert lines[-1]["bytes_new"] == 0


def test_a_host_that_sees_another_store_ends_the_run(two: Hosts, tree: Path) -> None:
    place = Place(two.folder / "hidden" / "repository")
    code, _, err = backup(two, place, tree, "--set", "placement.read={site: b}")
    assert code == 1
    assert "a host does not see the repository: nas2: " in err
    assert "put it where all hosts reach it" in err
    assert list(load_all(place.repository)) == []
    code, _, err = backup(two, place, tree, "--set", "placement.read={site: a}")
    assert (code, err) == (0, "")


def test_a_host_that_sees_another_source_ends_the_run(two: Hosts, tmp_path: Path) -> None:
    place, tree = Place(tmp_path / "repository"), planted(two.folder / "hidden" / "tree")
    code, _, err = backup(two, place, tree, "--set", "placement.read={site: b}")
    assert code == 1
    assert f"a host does not see what is backed up: nas2: {tree}: no such file or directory there" in err
    assert "on the host that scans" in err
    assert list(load_all(place.repository)) == []


def test_a_wrong_token_is_refused(two: Hosts, tree: Path, tmp_path: Path) -> None:
    other = tmp_path / "token"
    other.touch(0o600)
    other.write_text("another token of more than 32 characters")
    code, _, err = backup(two, Place(tmp_path / "repository"), tree, "--ray-token", os.fspath(other))
    assert code == 1
    assert "cannot join the Ray cluster: 10.213.77.1:6379" in err


def test_each_host_backs_up_its_own_files(two: Hosts, tmp_path: Path) -> None:
    place, own = Place(tmp_path / "repository"), two.folder / "hidden" / "own"
    planted(own / "data")
    (own / "name").write_text("one\n")
    (own / "secret.tmp").write_text("left out here too")
    options = ("--hosts", "nas2,nas1", "--exclude", "*.tmp")
    code, lines, err = backup(two, place, own, *options)
    assert (code, err) == (0, "")
    assert hosts_of(lines) == {"nas1", "nas2"}
    snapshot = load_all(place.repository)[0]
    assert (snapshot.host, snapshot.hosts) == ("nas1+nas2", ("nas1", "nas2"))
    (own / "secret.tmp").unlink()
    place.restore(snapshot, tmp_path / "out")
    inside = os.fspath(own)[1:]
    assert differences(own / "data", tmp_path / "out" / "nas1" / inside / "data") == ""
    theirs = tmp_path / "out" / "nas2" / inside
    assert sorted(os.fspath(path.relative_to(theirs)) for path in theirs.rglob("*")) == ["logs", "logs/new", "name"]
    assert [(tmp_path / "out" / host / inside / "name").read_text() for host in ("nas1", "nas2")] == ["one\n", "two\n"]
    code, lines, _ = backup(two, place, own, *options)
    assert (code, lines[-1]["bytes_read"], lines[-1]["files_unchanged"]) == (0, 0, 304)
    code, _, err = backup(two, place, own, "--hosts", "nas1,nas3")
    assert code == 1
    assert "a host is not in the cluster: nas3: those that are there: nas1, nas2" in err
    code, _, err = backup(two, Place(two.folder / "hidden" / "another"), own, *options)
    assert code == 1
    assert "a host does not see the repository: nas2: " in err


def test_what_each_host_stores_reaches_the_mirrors(two: Hosts, tmp_path: Path) -> None:
    """One mirror that both hosts see, and one that is a folder of the host that started the run: on the other one
    nothing is left under its name."""
    place, own, far = Place(tmp_path / "repository"), two.folder / "hidden" / "own", tmp_path / "far"
    near = two.folder / "hidden" / "mirror"
    planted(own / "data")
    mirrors = ("--mirror", os.fspath(far), "--mirror", os.fspath(near))
    code, lines, err = backup(two, place, own, "--hosts", "nas1,nas2", *mirrors)
    assert (code, err) == (0, ""), lines[-1]
    for mirror in (far, near):
        assert objects(mirror) == objects(place.path)
    code, _, err = backup(two, place, near, "--hosts", "nas2")
    assert (code, "nas2" in err) == (2, True), f"there is no such folder on nas2: {err}"
    assert load_all(Repository.open(LocalStore(os.fspath(far)), "correct horse"))[0].hosts == ("nas1", "nas2")


def objects(folder: Path) -> dict[str, int]:
    """Packs, index objects and snapshots in a store, and how long they are."""
    found = [path for name in ("packs", "index", "snapshots") for path in (folder / name).rglob("*") if path.is_file()]
    return {os.fspath(path.relative_to(folder)): path.stat().st_size for path in found}
