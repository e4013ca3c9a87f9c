"""restore(backup(tree)) == tree, for every kind of entry and every executor."""

from __future__ import annotations

import os
import random
import socket
import tempfile
import time
from pathlib import Path

import pytest

from model.chunking import KIB, MIB, ChunkerParams
from pipelines.options import Watch
from repository.store import MemoryStore
from tests.pipelines.helpers import Place, as_nobody, differences


def build_tree(root: Path, seed: int = 1) -> None:
    """A few of everything a file tree can hold."""
    rng = random.Random(seed)
    for number in range(120):
        path = root / f"dir{number % 7}" / f"sub{number % 3}" / f"file{number}.dat"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(rng.randbytes(rng.choice([0, 1, 100, 4 * KIB, 5000, 70 * KIB])))
        os.utime(path, ns=(10**18 + number, 10**18 + 7 * number))
    (root / "empty").mkdir()
    (root / "text").write_bytes(b"the same line again and again\n" * 40_000)
    (root / "large.bin").write_bytes(rng.randbytes(21 * MIB + 12345))
    os.link(root / "text", root / "empty" / "hard link")
    os.symlink("../text", root / "dir1" / "link")
    os.symlink(b"\xff nowhere", os.fsencode(root / "dangling"))
    os.mkfifo(root / "pipe")
    with open(os.fsencode(root) + b"/\xff\xfe name\nwith newline", "wb") as file:
        file.write(b"odd name")
    (root / ("n" * 255)).write_bytes(b"longest name")
    os.chmod(root / "dir2" / "sub2", 0o1750)
    with open(root / "sparse", "wb") as file:
        file.truncate(32 * MIB)
        file.seek(20 * MIB)
        file.write(rng.randbytes(300 * KIB))
        file.truncate(48 * MIB)
    with socket.socket(socket.AF_UNIX) as server:
        directory = os.open(root, os.O_RDONLY)
        server.bind(f"/proc/self/fd/{directory}/socket")
        os.close(directory)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("source") / "tree"
    root.mkdir()
    build_tree(root)
    return root


@pytest.mark.parametrize("executor", ["inline", "threads", pytest.param("ray", marks=pytest.mark.ray)])
def test_a_restored_tree_equals_its_source(executor: str, tree: Path, tmp_path: Path) -> None:
    place = Place(tmp_path / "repository", executor=executor)
    report = place.backup(tree)
    assert report.problems == []
    assert report.snapshot is not None
    restored = place.restore(report.snapshot, tmp_path / "out")
    assert restored.problems == []
    (tmp_path / "out" / os.fspath(tree)[1:] / "socket").exists()
    assert differences(tree, tmp_path / "out" / os.fspath(tree)[1:]) == ""
    sparse = tmp_path / "out" / os.fspath(tree)[1:] / "sparse"
    assert sparse.stat().st_blocks * 512 < 4 * MIB


@pytest.mark.parametrize("encryption", ["none", "aes-256-gcm"])
@pytest.mark.parametrize("codec", ["none", "lz4", "gzip", "zstd"])
def test_every_codec_and_encryption_round_trips(encryption: str, codec: str, tree: Path, tmp_path: Path) -> None:
    place = Place(tmp_path / "repository", encryption=encryption)
    report = place.backup(tree / "dir1", tree / "text", codec=codec)
    assert report.snapshot is not None
    place.restore(report.snapshot, tmp_path / "out")
    base = tmp_path / "out" / os.fspath(tree)[1:]
    assert differences(tree / "dir1", base / "dir1") == ""
    assert (base / "text").read_bytes() == (tree / "text").read_bytes()


def test_executors_make_the_same_manifest(tree: Path, tmp_path: Path) -> None:
    rows = []
    place = Place(tmp_path / "repository", executor="inline", lanes=1)
    for executor, lanes in (("inline", 1), ("threads", 1), ("threads", 3)):
        place.executor, place.lanes = executor, lanes
        snapshot = place.backup(tree, mode="full").snapshot
        assert snapshot is not None
        rows.append(place.rows(snapshot, tree).drop_columns("atime"))  # reading a link's target moves it
    assert rows[0].num_rows > 120
    assert rows[0].equals(rows[1]) and rows[0].equals(rows[2])


def test_a_second_backup_reads_and_stores_nothing(tree: Path, tmp_path: Path) -> None:
    place = Place(tmp_path / "repository")
    time.sleep(0.1)
    first = place.backup(tree)
    second = place.backup(tree)
    assert (second.bytes_read, second.bytes_new) == (0, 0)
    assert second.files_unchanged == second.files == first.files
    assert second.snapshot is not None and first.snapshot is not None
    assert second.snapshot.parent == first.snapshot.id
    place.restore(second.snapshot, tmp_path / "out")
    assert differences(tree, tmp_path / "out" / os.fspath(tree)[1:]) == ""


def test_modes_choose_what_is_read(tmp_path: Path) -> None:
    root = tmp_path / "tree"
    root.mkdir()
    old = 10**18
    for name in ("a", "b", "c"):
        (root / name).write_bytes(name.encode() * 1000)
        os.utime(root / name, ns=(old, old))
    time.sleep(0.1)
    place = Place(tmp_path / "repository")
    assert place.backup(root, mode="full").bytes_read == 3000
    assert place.backup(root).bytes_read == 0
    (root / "a").write_bytes(b"A" * 500)
    time.sleep(0.1)
    assert place.backup(root).bytes_read == 500
    assert place.backup(root).bytes_read == 0
    assert place.backup(root, mode="differential").bytes_read == 500
    assert place.backup(root, mode="full").bytes_read == 2500


def test_a_large_file_has_the_same_chunks_however_many_lanes_cut_it(tmp_path: Path) -> None:
    root = tmp_path / "tree"
    root.mkdir()
    rng = random.Random(5)
    (root / "random").write_bytes(rng.randbytes(37 * MIB + 1))
    (root / "zeros").write_bytes(bytes(40 * MIB))
    (root / "mixed").write_bytes(rng.randbytes(9 * MIB) + bytes(11 * MIB) + rng.randbytes(9 * MIB))
    place = Place(tmp_path / "one", lanes=1, executor="inline", encryption="none")
    first = place.backup(root)
    for lanes in (2, 4):
        place.executor, place.lanes = "threads", lanes
        again = place.backup(root, mode="full")
        assert again.bytes_read == first.bytes_read
        assert again.bytes_new == 0
    assert again.snapshot is not None
    place.restore(again.snapshot, tmp_path / "out")
    assert differences(root, tmp_path / "out" / os.fspath(root)[1:]) == ""


def test_inserting_a_byte_into_a_large_file_stores_little(tmp_path: Path) -> None:
    root = tmp_path / "tree"
    root.mkdir()
    data = random.Random(6).randbytes(40 * MIB)
    (root / "file").write_bytes(data)
    place = Place(tmp_path / "repository")
    place.backup(root)
    (root / "file").write_bytes(data[: 17 * MIB] + b"!" + data[17 * MIB :])
    assert place.backup(root).bytes_new < 2 * MIB


def test_fixed_chunks(tmp_path: Path) -> None:
    root = tmp_path / "tree"
    root.mkdir()
    (root / "image").write_bytes(random.Random(7).randbytes(20 * MIB + 5))
    place = Place(tmp_path / "repository", chunker=ChunkerParams(kind="fixed", average=1 * MIB))
    first = place.backup(root)
    with open(root / "image", "r+b") as file:
        file.seek(9 * MIB)
        file.write(b"changed")
    assert place.backup(root).bytes_new == 1 * MIB
    assert first.snapshot is not None
    place.restore(first.snapshot, tmp_path / "out")
    assert (tmp_path / "out" / os.fspath(root)[1:] / "image").stat().st_size == 20 * MIB + 5


def test_delete_spares_what_the_backup_had_left_out(tmp_path: Path) -> None:
    root = tmp_path / "tree"
    (root / "cache").mkdir(parents=True)
    (root / "cache" / "CACHEDIR.TAG").write_bytes(b"Signature: 8a477f597d28d172789f06886806bc55")
    for name in ("kept.txt", "left out.log", "too large", "cache/one"):
        (root / name).write_bytes(b"x" * (5000 if name == "too large" else 10))
    place = Place(root / "repository")
    excludes = (b"*.log", os.fsencode(root / "repository"))
    snapshot = place.backup(root, excludes=excludes, exclude_caches=True, exclude_larger_than=4000).snapshot
    assert snapshot is not None
    (root / "newer").write_bytes(b"made after the backup")
    report = place.restore(snapshot, Path("/"), paths=(os.fsencode(root)[1:],), delete=True)
    assert report.problems == []
    left = sorted(path.name for path in root.iterdir())
    assert left == ["cache", "kept.txt", "left out.log", "repository", "too large"]
    assert (root / "cache" / "one").exists()
    assert place.backup(root, mode="full").problems == []


class Listener(Watch):
    wants_items = True

    def __init__(self) -> None:
        super().__init__()
        self.items: dict[bytes, str] = {}
        self.problems: list[tuple[bytes, str]] = []

    def item(self, path: bytes, action: str, size: int) -> None:
        self.items[path] = action

    def problem(self, path: bytes, text: str) -> None:
        self.problems.append((path, text))


def test_the_watcher_hears_what_happened_to_each_entry(tmp_path: Path) -> None:
    root = tmp_path / "tree"
    root.mkdir()
    for name in ("one", "two"):
        (root / name).write_bytes(b"x")
    time.sleep(0.1)
    place = Place(tmp_path / "repository")
    place.backup(root)
    (root / "two").write_bytes(b"changed")
    (root / "three").write_bytes(b"new")
    watch = Listener()
    place.backup(root, watch=watch)
    base = os.fsencode(root)[1:]
    heard = {path[len(base) + 1 :]: action for path, action in watch.items.items() if path.startswith(base + b"/")}
    assert heard == {b"one": "unchanged", b"two": "changed", b"three": "new"}


@pytest.mark.root
def test_unreadable_files_are_told_recorded_and_read_as_soon_as_they_can_be() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        check_unreadable_files(Path(folder) / "tree")


def check_unreadable_files(root: Path) -> None:
    (root / "closed").mkdir(parents=True)
    for name in ("good", "bad", "closed/inside"):
        (root / name).write_bytes(name.encode())
    os.link(root / "bad", root / "bad too")
    os.chmod(root / "bad", 0)
    os.chmod(root / "closed", 0)
    time.sleep(0.1)  # what changed just before a backup is read again by the next
    place = Place(root, store=MemoryStore())
    watch = Listener()
    with as_nobody():
        report = place.backup(root, watch=watch)
    told = {path.rpartition(b"/")[2]: text for path, text in report.problems}
    assert told.keys() == {b"bad", b"bad too", b"closed"}
    assert told[b"bad"] == "permission denied"
    assert sorted(watch.problems) == sorted(set(report.problems) & set(watch.problems))
    assert report.snapshot is not None and report.snapshot.problems == 3
    again = place.backup(root)
    assert again.problems == []
    assert again.bytes_read == len("bad") + len("closed/inside")
