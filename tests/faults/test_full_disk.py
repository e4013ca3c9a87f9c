"""A repository on a real file system that fills up: A5 and A6 of the fault catalogue.

Whatever does not fit any more fails as a whole, with the exit code for it; nothing half-made counts; once there is room
again the same command works.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from model.errors import StoreFull
from model.exits import ExitCode
from repository.check import check
from repository.index import ChunkIndex
from repository.pack import pack_name
from repository.prune import prune
from repository.repair import repair
from repository.reserve import hold_reserve
from repository.snapshot import load_all
from repository.trash import forget, load_trash, undelete
from tests.faults.promises import either
from tests.faults.scenarios import CHEAP, CHUNKS, EVERYTHING
from tests.lox.running import PASSWORD, spawn
from tests.pipelines.helpers import Place, differences

pytestmark = pytest.mark.root
KIB, MIB = 1 << 10, 1 << 20


def slow(value: int) -> Any:
    """A parameter for the slow suite."""
    return pytest.param(value, marks=pytest.mark.slow)


class SmallDisk:
    """An ext4 of its own in a file; `fill` leaves only so much room, `free` gives it back."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ballast = path / "ballast"

    def fill(self, left: int = 0) -> None:
        with open(self._ballast, "ab") as ballast:
            for size in (64 * KIB, KIB):
                with contextlib.suppress(OSError):
                    while True:
                        os.write(ballast.fileno(), bytes(size))
            os.fsync(ballast.fileno())
        if left:
            os.truncate(self._ballast, max(0, self._ballast.stat().st_size - left))
            os.sync()

    def use_up_inodes(self) -> None:
        self._ballast.mkdir()
        with contextlib.suppress(OSError):
            for number in range(100_000):
                (self._ballast / str(number)).touch()

    def free(self) -> None:
        if self._ballast.is_dir():
            shutil.rmtree(self._ballast)
        else:
            self._ballast.unlink()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """32 MiB."""
    if shutil.which("mkfs.ext4") is None:
        pytest.skip("no mkfs.ext4: apt-get install e2fsprogs")
    image, place = tmp_path / "disk.img", tmp_path / "disk"
    place.mkdir()
    with open(image, "wb") as file:
        file.truncate(32 * MIB)
    subprocess.run(["mkfs.ext4", "-q", "-b", "1024", "-m", "0", "-N", "512", str(image)], check=True)
    mounted = subprocess.run(["mount", "-o", "loop", str(image), str(place)], check=False, capture_output=True)
    if mounted.returncode:
        pytest.skip("no loop devices here: run as root outside of a restricted container")
    yield SmallDisk(place)
    subprocess.run(["umount", str(place)], check=True)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """3 MiB, of which one file is half."""
    root, dice = tmp_path / "tree", random.Random(5)
    for number in range(30):
        file = root / f"folder{number % 3}" / f"file{number}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(dice.randbytes(50 * KIB))
    (root / "large").write_bytes(dice.randbytes(1500 * KIB))
    return root


def place_on(disk: SmallDisk) -> Place:
    return Place(disk.path / "repository", executor="inline", lanes=1, chunker=CHUNKS)


def assert_no_phantoms(place: Place) -> None:
    """Every pack that the index names is there in its length, and a check finds nothing."""
    index = ChunkIndex.load(place.repository, None)
    sizes = dict(place.repository.store.list("packs/"))
    for pack_id, size in zip(index.packs, index.pack_table["size"].tolist(), strict=True):
        assert sizes.get(pack_name(pack_id)) == size
    assert check(place.repository, "data").findings == []
    assert not list(place.path.rglob(".tmp-*")), "leftovers take room from what is to come"


@pytest.mark.slow
def test_the_commands_say_that_the_store_is_full(disk: SmallDisk, tree: Path, tmp_path: Path) -> None:
    env = {
        "LOX_REPOSITORY": str(disk.path / "repository"),
        "LOX_PASSWORD": PASSWORD,
        "LOX_NEW_PASSWORD": "another",
        "LOX_CACHE_DIR": str(tmp_path / "cache"),
    }

    def lox(*arguments: str, code: int = 0) -> str:
        done = spawn(*arguments, env=env)
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout + done.stderr

    disk.fill()
    assert "no space left" in lox("init", code=ExitCode.STORE_FULL).lower()
    disk.free()
    lox("init")
    disk.fill(MIB)
    told = lox("backup", str(tree), code=ExitCode.STORE_FULL)
    assert "free some room" in told
    assert "no snapshot" in lox("restore", "latest", "--target", str(tmp_path / "out"), code=1)
    disk.free()
    lox("backup", str(tree))
    disk.fill()
    for arguments in (
        ["key", "add"],
        ["key", "passwd"],
        ["tag", "--add", "x", "latest"],
    ):
        lox(*arguments, code=ExitCode.STORE_FULL)
    lox("check", "--read-data")
    lox("restore", "latest", "--target", str(tmp_path / "out"))
    assert differences(tree, tmp_path / "out" / os.fspath(tree)[1:]) == ""
    lox("forget", "latest", "--allow-last")  # the reserve that init held is given up
    assert "freed" in lox("prune", "--trash", "0d", "--unfinished", "0d")
    assert list((disk.path / "repository/gc/reserve").iterdir()), "there is room for a new one"
    assert not [path for path in (disk.path / "repository/packs").rglob("*") if path.is_file()], "and for a backup"


@pytest.mark.parametrize("left", [0, 400, 3000, *(slow(left) for left in (4, 40, 1600, *range(3050, 3300, 25)))])
def test_a_backup_that_does_not_fit_commits_nothing(disk: SmallDisk, tree: Path, tmp_path: Path, left: int) -> None:
    """With `left` KiB: it ends before the first pack, within packs, in the metadata, the index, or fits just so."""
    place = place_on(disk)
    disk.fill(left * KIB)
    try:
        snapshot = place.backup(tree).snapshot
        assert snapshot is not None and left > 3000
    except StoreFull as error:
        assert error.hint
        assert load_all(place.repository) == []
    assert_no_phantoms(place)
    disk.free()
    report = place.backup(tree)
    assert report.problems == [] and report.snapshot is not None
    assert_no_phantoms(place)
    place.restore(report.snapshot, tmp_path / "out")
    assert differences(tree, tmp_path / "out" / os.fspath(tree)[1:]) == ""


def test_without_free_inodes_it_is_full_too(disk: SmallDisk, tree: Path) -> None:
    place = place_on(disk)
    disk.use_up_inodes()
    with pytest.raises(StoreFull):
        place.backup(tree)
    assert load_all(place.repository) == []
    disk.free()
    assert place.backup(tree).problems == []
    assert_no_phantoms(place)


Maintenance = Callable[[Place], object]

MAINTENANCE: dict[str, Maintenance] = {
    "forget": lambda place: forget(place.repository, load_all(place.repository)[0].id, "by name", 1),
    "undelete": lambda place: undelete(place.repository, load_trash(place.repository)[0]),
    "key add": lambda place: place.repository.add_password("another", "deputy", CHEAP),
    "key passwd": lambda place: place.repository.change_password("another", CHEAP),
    "repair": lambda place: repair(place.repository, apply=True, level="data"),
}


@pytest.mark.parametrize("left", [0, slow(4), slow(12)])
@pytest.mark.parametrize("what", MAINTENANCE)
def test_maintenance_that_does_not_fit_loses_nothing(
    disk: SmallDisk, tree: Path, tmp_path: Path, what: str, left: int
) -> None:
    """Nothing goes before what takes its place is there; the same again converges."""
    place = place_on(disk)
    place.backup(tree)
    (tree / "new").write_bytes(b"new" * 9000)
    place.backup(tree)
    snapshots = {one.id for one in load_all(place.repository)}
    if what == "undelete":
        MAINTENANCE["forget"](place)
    if what == "repair":
        damage(place)
    disk.fill(left * KIB)
    full = False
    try:
        MAINTENANCE[what](place)
    except StoreFull:
        full = True
    assert full or left
    everywhere = {one.id for one in [*load_all(place.repository), *load_trash(place.repository)]}
    assert everywhere == snapshots
    assert either(place.repository, "correct horse", "another")
    disk.free()
    if full:
        MAINTENANCE[what](place)
    if what == "repair":
        place.backup(tree, mode="full")
    for trashed in load_trash(place.repository):
        undelete(place.repository, trashed)
    assert_no_phantoms(place)
    newest = load_all(place.repository)[-1]
    place.restore(newest, tmp_path / "out")
    assert differences(tree, tmp_path / "out" / os.fspath(tree)[1:]) == ""


@pytest.mark.parametrize("left", [0, 400, *(slow(left) for left in (4, 12, 40, 900, 1600, *range(2200, 2320, 20)))])
def test_a_prune_that_does_not_fit_loses_nothing(disk: SmallDisk, tree: Path, tmp_path: Path, left: int) -> None:
    """With `left` KiB: what is needed of half-dead packs is there again, and findable, before they go."""
    place = place_on(disk)
    place.backup(tree)
    for file in sorted(tree.rglob("file*"))[::2]:
        file.write_bytes(random.Random(file.name).randbytes(50 * KIB))
    place.backup(tree)
    old, new = load_all(place.repository)
    forget(place.repository, old.id, "by name", 1)
    before = packs_of(place)
    disk.fill(left * KIB)
    full = False
    try:
        prune(place.repository, EVERYTHING)
    except StoreFull as error:
        full = True
        assert error.hint
    print(f"{left} KiB: {'full' if full else 'fits'}")
    assert full or left
    assert_no_phantoms(place)
    place.restore(new, tmp_path / "out")
    assert differences(tree, tmp_path / "out" / os.fspath(tree)[1:]) == ""
    disk.free()
    prune(place.repository, EVERYTHING)
    last = prune(place.repository, EVERYTHING)
    assert (last.unused, last.rewritten, last.waiting, last.unfinished) == (0, 0, 0, 0)
    assert packs_of(place) < before - 600 * KIB, "half of the small files"
    assert_no_phantoms(place)
    place.restore(new, tmp_path / "again")
    assert differences(tree, tmp_path / "again" / os.fspath(tree)[1:]) == ""


@pytest.mark.parametrize("left", [0, slow(1), slow(2), slow(4), slow(8)])
def test_a_full_disk_can_be_cleaned_up(disk: SmallDisk, tree: Path, tmp_path: Path, left: int) -> None:
    """Not even the session of a prune fits, and nothing is forgotten yet: the reserve is given up for both."""
    place = place_on(disk)
    hold_reserve(place.repository.store)
    place.backup(tree)
    for file in [*tree.rglob("file*"), tree / "large"]:
        file.write_bytes(random.Random(file.name).randbytes(20 * KIB))
    place.backup(tree)
    old, new = load_all(place.repository)
    before = packs_of(place)
    disk.fill(left * KIB)
    forget(place.repository, old.id, "by name", 1)
    report = prune(place.repository, EVERYTHING)
    assert report.deleted and packs_of(place) < before - 2000 * KIB
    assert hold_reserve(place.repository.store)
    assert_no_phantoms(place)
    place.restore(new, tmp_path / "out")
    assert differences(tree, tmp_path / "out" / os.fspath(tree)[1:]) == ""


def packs_of(place: Place) -> int:
    """Bytes of all packs."""
    return sum(size for _, size in place.repository.store.list("packs/"))


def damage(place: Place) -> None:
    """A flipped bit in the content of the largest pack."""
    largest = max(place.path.glob("packs/*/*"), key=lambda path: path.stat().st_size)
    largest.chmod(0o600)
    with open(largest, "r+b") as pack:
        pack.seek(5000)
        byte = pack.read(1)
        pack.seek(5000)
        pack.write(bytes([byte[0] ^ 1]))


def test_the_error_is_the_systems(disk: SmallDisk) -> None:
    """The premise: this file system does run out of room, and says so."""
    disk.fill()
    with pytest.raises(OSError) as caught:
        (disk.path / "x").write_bytes(bytes(100_000))
    assert caught.value.errno == errno.ENOSPC
