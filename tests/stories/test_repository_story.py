"""A tree that is edited, backed up, damaged, forgotten and restored at random, against a plain model of it.

The model is a dict: path → what is there. Each snapshot is remembered with the model of its moment, and whatever
happens afterwards, it must restore to exactly that.
"""

from __future__ import annotations

import os
import random
import shutil
import stat
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from model.chunking import KIB, MIB, ChunkerParams
from model.errors import Interrupted, StoreError, StoreFull
from pipelines.options import Progress, Watch
from repository.check import check
from repository.snapshot import Snapshot, load_all
from repository.store.wrappers import Fault, FaultyStore
from repository.trash import forget, load_trash, undelete
from tests.pipelines.helpers import Place

BIG, BIG_SIZE = "big", 10 * MIB
NAMES = ("a", "b", "c.log", "d d", "e\nf", "g")
SIZES = (0, 1, 4095, 20_000, 300_000)
CHUNKS = ChunkerParams(minimum=4 * KIB, average=16 * KIB, maximum=256 * KIB)
MODES = st.sampled_from(["incremental", "differential", "full"])
FAILING = st.sampled_from(["put", "delete", "nothing"])
EXECUTORS = st.sampled_from(["inline", "threads"])
WHERE = st.integers(0, 1 << 16)


@dataclass(frozen=True)
class Node:
    """What is at a path: `content` is None for a folder; `first` is the least path of a hard-link group."""

    mode: int
    content: bytes | None
    first: str


Tree = dict[str, Node]


def look(root: Path) -> Tree:
    """The tree below `root` as a model."""
    found: Tree = {}
    first: dict[int, str] = {}
    for path in sorted(root.rglob("*"), key=lambda path: path.parts):
        name, status = os.fspath(path.relative_to(root)), path.lstat()
        folder = stat.S_ISDIR(status.st_mode)
        group = name if folder else first.setdefault(status.st_ino, name)
        found[name] = Node(stat.S_IMODE(status.st_mode), None if folder else path.read_bytes(), group)
    return found


class StopAt(Watch):
    """Stops the run at its n-th sign of life."""

    def __init__(self, signs: int) -> None:
        super().__init__()
        self.signs = signs

    def progress(self, progress: Progress) -> None:
        self.signs -= 1
        if self.signs < 0:
            self.stop.set()


@dataclass
class Inode:
    """A file of the model, by whichever names."""

    mode: int
    content: bytearray


class Story(RuleBasedStateMachine):
    """The rules are what users, administrators and disks do."""

    def __init__(self) -> None:
        super().__init__()
        self.home = Path(tempfile.mkdtemp(prefix="lox-story-"))
        self.tree = self.home / "tree"
        self.tree.mkdir()
        self.place = Place(self.home / "repository", executor="inline", chunker=CHUNKS)
        self.folders: dict[str, int] = {}
        self.files: dict[str, Inode] = {}
        self.snapshots: dict[str, Tree] = {}
        self.forgotten: dict[str, Tree] = {}
        self.restored = 0

    def teardown(self) -> None:
        try:
            for trashed in load_trash(self.place.repository):
                undelete(self.place.repository, trashed)
            self.snapshots |= self.forgotten
            for snapshot in load_all(self.place.repository):
                self.restores(snapshot)
            assert set(self.snapshots) == {snapshot.id for snapshot in load_all(self.place.repository)}
        finally:
            shutil.rmtree(self.home, ignore_errors=True)

    # ---- the model

    def model(self) -> Tree:
        first: dict[int, str] = {}
        tree = {name: Node(mode, None, name) for name, mode in self.folders.items()}
        for name in sorted(self.files, key=lambda name: Path(name).parts):
            inode = self.files[name]
            tree[name] = Node(inode.mode, bytes(inode.content), first.setdefault(id(inode), name))
        return tree

    def some_file(self, where: int) -> str:
        return sorted(self.files)[where % len(self.files)]

    def free_name(self, where: int) -> str | None:
        folders = ["", *sorted(self.folders)]
        folder, name = folders[where % len(folders)], NAMES[where // len(folders) % len(NAMES)]
        path = os.path.join(folder, name)
        return None if path in self.files or path in self.folders else path

    # ---- edits

    @initialize(seed=st.integers(0, 5))
    def a_big_file(self, seed: int) -> None:
        self.make(BIG, random.Random(seed).randbytes(BIG_SIZE // 2) + bytes(BIG_SIZE // 2))

    def make(self, name: str, content: bytes) -> None:
        (self.tree / name).write_bytes(content)
        (self.tree / name).chmod(0o644)
        self.files[name] = Inode(0o644, bytearray(content))

    @rule(where=WHERE, size=st.sampled_from(SIZES), seed=st.integers(0, 3))
    def create(self, where: int, size: int, seed: int) -> None:
        if name := self.free_name(where):
            self.make(name, random.Random(seed).randbytes(size))

    @rule(where=WHERE)
    def make_folder(self, where: int) -> None:
        if name := self.free_name(where):
            (self.tree / name).mkdir()
            (self.tree / name).chmod(0o755)
            self.folders[name] = 0o755

    @precondition(lambda self: self.files)
    @rule(where=WHERE, at=st.floats(0, 1), data=st.binary(min_size=1, max_size=40))
    def modify(self, where: int, at: float, data: bytes) -> None:
        name = self.some_file(where)
        content = self.files[name].content
        begin = int(at * len(content))
        with open(self.tree / name, "r+b") as file:
            file.seek(begin)
            file.write(data)
        content[begin : begin + len(data)] = data

    @precondition(lambda self: BIG in self.files and len(self.files[BIG].content) > 6 * MIB)
    @rule(seed=st.integers(0, 3), at=st.floats(0, 1))
    def modify_the_big_file(self, seed: int, at: float) -> None:
        data = random.Random(seed).randbytes(MIB)
        content = self.files[BIG].content
        begin = int(at * (len(content) - len(data)))
        with open(self.tree / BIG, "r+b") as file:
            file.seek(begin)
            file.write(data)
        content[begin : begin + len(data)] = data

    @precondition(lambda self: self.files)
    @rule(where=WHERE, size=st.sampled_from(SIZES), seed=st.integers(0, 3))
    def append(self, where: int, size: int, seed: int) -> None:
        name, data = self.some_file(where), random.Random(seed).randbytes(size)
        with open(self.tree / name, "ab") as file:
            file.write(data)
        self.files[name].content += data

    @precondition(lambda self: self.files)
    @rule(where=WHERE, size=st.sampled_from([*SIZES, 9 * MIB, 12 * MIB]))
    def truncate(self, where: int, size: int) -> None:
        """Shorter, or longer by a hole."""
        name = self.some_file(where)
        os.truncate(self.tree / name, size)
        content = self.files[name].content
        content[:] = content[:size].ljust(size, b"\0")

    @precondition(lambda self: self.files)
    @rule(where=WHERE)
    def delete(self, where: int) -> None:
        name = self.some_file(where)
        (self.tree / name).unlink()
        del self.files[name]

    @precondition(lambda self: self.folders)
    @rule(where=WHERE)
    def delete_folder(self, where: int) -> None:
        folder = sorted(self.folders)[where % len(self.folders)]
        shutil.rmtree(self.tree / folder)
        self.folders = {name: mode for name, mode in self.folders.items() if not f"{name}/".startswith(f"{folder}/")}
        self.files = {name: inode for name, inode in self.files.items() if not name.startswith(f"{folder}/")}

    @precondition(lambda self: self.files)
    @rule(where=WHERE, there=WHERE)
    def rename(self, where: int, there: int) -> None:
        if new := self.free_name(there):
            old = self.some_file(where)
            (self.tree / old).rename(self.tree / new)
            self.files[new] = self.files.pop(old)

    @precondition(lambda self: self.files)
    @rule(where=WHERE, there=WHERE)
    def link(self, where: int, there: int) -> None:
        if new := self.free_name(there):
            old = self.some_file(where)
            os.link(self.tree / old, self.tree / new)
            self.files[new] = self.files[old]

    @precondition(lambda self: self.files)
    @rule(where=WHERE, mode=st.sampled_from([0o600, 0o640, 0o755, 0o4711]))
    def change_mode(self, where: int, mode: int) -> None:
        name = self.some_file(where)
        (self.tree / name).chmod(mode)
        self.files[name].mode = mode

    @precondition(lambda self: self.folders)
    @rule(where=WHERE, mode=st.sampled_from([0o700, 0o755, 0o1777]))
    def change_mode_of_folder(self, where: int, mode: int) -> None:
        name = sorted(self.folders)[where % len(self.folders)]
        (self.tree / name).chmod(mode)
        self.folders[name] = mode

    # ---- backups

    def back_up(self, mode: str, watch: Watch | None = None) -> None:
        report = self.place.backup(self.tree, mode=mode, watch=watch)
        assert report.problems == [] and report.snapshot is not None
        self.snapshots[report.snapshot.id] = self.model()

    @rule(mode=MODES, executor=EXECUTORS)
    def backup(self, mode: str, executor: str) -> None:
        self.place.executor = executor
        self.back_up(mode)

    @rule(nth=st.integers(0, 3), late=st.booleans(), mode=st.sampled_from(["incremental", "full"]))
    def backup_to_a_failing_store(self, nth: int, late: bool, mode: str) -> None:
        store = self.place.repository.store
        fault = Fault("put", error=StoreFull("no room left", subject="test"), late=late, skip=nth, times=1)
        self.place.repository.store = FaultyStore(store, [fault])
        try:
            self.back_up(mode)
        except StoreError:
            for snapshot in load_all(self.place.repository):  # its answer got lost, but it is there
                if snapshot.id not in self.snapshots:
                    assert late
                    self.snapshots[snapshot.id] = self.model()
        finally:
            self.place.repository.store = store

    @rule(signs=st.integers(0, 2), executor=EXECUTORS)
    def interrupted_backup(self, signs: int, executor: str) -> None:
        self.place.executor = executor
        try:
            self.back_up("incremental", StopAt(signs))
        except Interrupted:
            assert {snapshot.id for snapshot in load_all(self.place.repository)} == set(self.snapshots)

    @rule()
    def dry_run(self) -> None:
        before = sorted(self.place.repository.store.list())
        assert self.place.backup(self.tree, dry_run=True).snapshot is None
        assert sorted(self.place.repository.store.list()) == before

    # ---- the trash

    @precondition(lambda self: self.snapshots)
    @rule(which=WHERE, verb=FAILING, late=st.booleans())
    def forget(self, which: int, verb: str, late: bool) -> None:
        snapshot_id = sorted(self.snapshots)[which % len(self.snapshots)]
        self.moving(verb, late, lambda: forget(self.place.repository, snapshot_id, "story", 1))

    @precondition(lambda self: self.forgotten)
    @rule(which=WHERE, verb=FAILING, late=st.booleans())
    def undelete(self, which: int, verb: str, late: bool) -> None:
        trash = {one.id: one for one in load_trash(self.place.repository)}
        snapshot_id = sorted(self.forgotten)[which % len(self.forgotten)]
        self.moving(verb, late, lambda: undelete(self.place.repository, trash[snapshot_id]))

    def moving(self, verb: str, late: bool, move: Callable[[], object]) -> None:
        """Move a snapshot while the first `verb` fails; wherever it ends up, it is not lost."""
        store = self.place.repository.store
        fault = Fault(verb, error=StoreError("cut off"), late=late, times=1)
        self.place.repository.store = FaultyStore(store, [fault])
        try:
            move()
        except StoreError:
            pass
        finally:
            self.place.repository.store = store
        everything = self.snapshots | self.forgotten
        here = {snapshot.id for snapshot in load_all(self.place.repository)}
        assert here | {one.id for one in load_trash(self.place.repository)} == set(everything)
        self.snapshots = {name: tree for name, tree in everything.items() if name in here}
        self.forgotten = {name: tree for name, tree in everything.items() if name not in here}

    # ---- what must hold

    @precondition(lambda self: self.snapshots)
    @rule(which=WHERE, at=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
    def damage_that_is_found_and_healed(self, which: int, at: float, bit: int) -> None:
        packs = sorted(path for path in (self.place.path / "packs").rglob("*") if path.is_file())
        pack = packs[which % len(packs)]
        whole = pack.read_bytes()
        damaged = bytearray(whole)
        damaged[int(at * len(whole))] ^= 1 << bit
        pack.chmod(0o600)
        pack.write_bytes(damaged)
        assert not check(self.place.repository, "data").sound
        self.place.backup(self.tree, dry_run=True)  # whatever else is wrong with it, it ends
        pack.write_bytes(whole)

    @rule(level=st.sampled_from(["structure", "data"]))
    def check_is_clean(self, level: str) -> None:
        assert check(self.place.repository, level).findings == []

    @precondition(lambda self: self.snapshots)
    @rule(which=WHERE, executor=EXECUTORS)
    def restore(self, which: int, executor: str) -> None:
        self.place.executor = executor
        snapshots = load_all(self.place.repository)
        self.restores(snapshots[which % len(snapshots)], verify=True)

    @precondition(lambda self: self.snapshots)
    @rule(which=WHERE, where=WHERE)
    def restore_some(self, which: int, where: int) -> None:
        """One entry, and what is below it: by itself it is as whole as among the others."""
        snapshots = load_all(self.place.repository)
        snapshot = snapshots[which % len(snapshots)]
        model = self.snapshots[snapshot.id]
        if not model:
            return
        name = sorted(model)[where % len(model)]
        root = self.restores_to(snapshot, paths=(os.fsencode(self.tree / name)[1:],))
        expected = {path: node for path, node in model.items() if f"{path}/".startswith(f"{name}/")}
        found = {path: node for path, node in look(root).items() if f"{path}/".startswith(f"{name}/")}
        assert {path: (node.mode, node.content) for path, node in found.items()} == {
            path: (node.mode, node.content) for path, node in expected.items()
        }

    def restores(self, snapshot: Snapshot, verify: bool = False) -> None:
        root = self.restores_to(snapshot, verify=verify)
        found, expected = look(root), self.snapshots[snapshot.id]
        assert sorted(found) == sorted(expected)
        for name, node in expected.items():
            assert found[name] == node, name
        shutil.rmtree(root)

    def restores_to(self, snapshot: Snapshot, verify: bool = False, paths: tuple[bytes, ...] = ()) -> Path:
        self.restored += 1
        target = self.home / f"restored{self.restored}"
        assert self.place.restore(snapshot, target, verify=verify, paths=paths).problems == []
        return target / os.fspath(self.tree)[1:]


TestStory = Story.TestCase
TestStory.settings = settings(max_examples=30, stateful_step_count=30)
