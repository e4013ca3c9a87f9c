"""What is done to a repository while its operations are recorded: short scripts of steps, as an operator takes them.

A new kind of step is a method of `World`; a new script is a line in `SCENARIOS`.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from model.chunking import KIB, ChunkerParams
from pipelines.backup import BackupRequest, backup
from pipelines.copy import CopyRequest, copy
from pipelines.options import EngineOptions, Watch
from repository.annotations import Changes, Pin, annotate
from repository.keys import KdfParams
from repository.mirror import sync
from repository.prune import PrunePolicy, prune
from repository.repair import repair
from repository.repository import Repository
from repository.snapshot import SNAPSHOT_PREFIX, load_all
from repository.store import MemoryStore
from repository.trash import choose_trashed, forget, load_trash, purge, undelete
from tests.faults.oplog import Harm, OpLogStore, Put, objects_after
from tests.faults.promises import Fact, either, notes_of

CHEAP = KdfParams(memory_kib=64, iterations=1, lanes=1)
CHUNKS = ChunkerParams(minimum=4 * KIB, average=16 * KIB, maximum=256 * KIB)
ENGINE = EngineOptions(executor="inline", lanes=1)
EVERYTHING = PrunePolicy(max_unused=0.0, trash=0, unfinished=0)  # all that can go, at once
FIRST = "the password of init"

Tree = dict[str, bytes]
"""Path below the tree → content."""

Step = Callable[["World"], None]


def look(root: Path) -> Tree:
    """The files below `root`."""
    return {os.fspath(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def back_up(repository: Repository, tree: Path) -> str:
    """A backup without a problem; the id of its snapshot."""
    report = backup(repository, BackupRequest((os.fsencode(tree),), host="box"), ENGINE, Watch())
    assert report.problems == [] and report.snapshot is not None
    return report.snapshot.id


@dataclass(slots=True)
class World:
    """A tree, a repository in a recorded store, and all that was promised to whoever ran the steps."""

    tree: Path
    store: OpLogStore = field(default_factory=lambda: OpLogStore(MemoryStore()))
    made: dict[str, Tree] = field(default_factory=dict)  # what each snapshot restores to
    mortal: dict[str, int] = field(default_factory=dict)  # snapshots that may be gone for good, from which operation
    secrets: list[tuple[str, int, int | None]] = field(default_factory=list)  # what opens, from and until when
    facts: list[Fact] = field(default_factory=list)
    began: int = 0  # the operation from which crashes are put
    generation: int = 0
    again: Callable[[Repository], None] | None = None  # what whoever was interrupted does again
    _repository: Repository | None = None

    @property
    def now(self) -> int:
        return len(self.store.log)

    @property
    def repository(self) -> Repository:
        assert self._repository is not None, "init comes first"
        return self._repository

    @property
    def first_harm(self) -> int | None:
        """The operation before which nothing was damaged."""
        harmed = [at for at, operation in enumerate(self.store.log) if isinstance(operation, Harm)]
        return harmed[0] if harmed else None

    def committed(self, end: int) -> dict[str, Tree]:
        """The snapshots whose commit is among the first `end` operations and that nobody removed for good."""
        names = {operation.name for operation in self.store.log[:end] if isinstance(operation, Put)}
        return {
            snapshot: tree
            for snapshot, tree in self.made.items()
            if SNAPSHOT_PREFIX + snapshot in names and self.mortal.get(snapshot, end) >= end
        }

    # ---- steps

    def here(self) -> None:
        """What is before this is not crashed."""
        self.began = self.now

    def init(self) -> None:
        self._repository, code = Repository.init(self.store, FIRST, CHUNKS, kdf=CHEAP)
        assert code is not None
        self.secrets += [(FIRST, self.now, None), (code, self.now, None)]

    def edit(self) -> None:
        """New files, changed ones, and one that goes; one is larger than a chunk."""
        self.generation += 1
        dice = random.Random(self.generation)
        folder = self.tree / f"folder{self.generation}"
        folder.mkdir(parents=True)
        for number in range(4):
            (folder / f"file{number}").write_bytes(dice.randbytes(dice.choice([0, 100, 9000])))
        (folder / "text").write_bytes(b"some words and some more\n" * 400)
        (self.tree / "changing").write_bytes(dice.randbytes(60_000))
        old = self.tree / f"folder{self.generation - 1}" / "file0"
        old.unlink(missing_ok=True)

    def backup(self) -> None:
        self.edit()
        self.made[back_up(self.repository, self.tree)] = look(self.tree)

    def same_again(self) -> None:
        """A backup of what has not changed."""
        self.made[back_up(self.repository, self.tree)] = look(self.tree)

    def tag(self) -> None:
        oldest = min(load_all(self.repository), key=lambda one: one.time)
        annotate(self.repository, oldest.id, Changes(add=("monthly",)), time.time_ns())
        self._fact("tagged", lambda repository: "monthly" in notes_of(repository, oldest.id).tags)

    def pin(self) -> None:
        oldest = min(load_all(self.repository), key=lambda one: one.time)
        annotate(self.repository, oldest.id, Changes(pin=Pin(), comment="before the move"), time.time_ns())
        self._fact("pinned", lambda repository: notes_of(repository, oldest.id).pin == Pin())

    def unpin(self) -> None:
        self._end("pinned")
        oldest = min(load_all(self.repository), key=lambda one: one.time)
        annotate(self.repository, oldest.id, Changes(pin=False), time.time_ns())
        self._fact("not pinned", lambda repository: notes_of(repository, oldest.id).pin is None)

    def forget(self) -> None:
        oldest = min(load_all(self.repository), key=lambda one: one.time)
        forget(self.repository, oldest.id, "by name", time.time_ns())
        self._fact("forgotten", lambda repository: oldest.id not in {one.id for one in load_all(repository)})

    def undelete(self) -> None:
        self._end("forgotten")
        trashed = load_trash(self.repository)[0]
        undelete(self.repository, choose_trashed([trashed], trashed.id[:12]))
        self._fact("brought back", lambda repository: trashed.id in {one.id for one in load_all(repository)})

    def forget_again(self) -> None:
        self._end("brought back")
        self.forget()

    def purge(self) -> None:
        self._end("forgotten")
        self._end("tagged")
        begin = self.now
        for snapshot in purge(self.repository, 0, time.time_ns()):
            self.mortal[snapshot] = begin

    def prune(self) -> None:
        self._end("forgotten")
        begin = self.now
        gone = {one.id for one in load_trash(self.repository)}
        prune(self.repository, EVERYTHING)
        self.mortal |= dict.fromkeys(gone, begin)

    def copy(self) -> None:
        """What another repository has, which cuts and names chunks alike."""
        source, _ = Repository.init(MemoryStore(), FIRST, kdf=CHEAP, related=self.repository)
        trees: dict[str, Tree] = {}
        for _ in range(2):
            self.edit()
            trees[back_up(source, self.tree)] = look(self.tree)

        def again(target: Repository) -> dict[str, str]:
            report = copy(source, target, CopyRequest(tuple(load_all(source))), ENGINE, Watch())
            assert not report.failed and len(report.copied) + report.present == len(trees)
            return {made.id: original.id for original, made in report.copied}

        def once(target: Repository) -> None:
            self.made |= {copied: trees[original] for copied, original in again(target).items()}
            originals = [one.original[1] for one in load_all(target) if one.original is not None]
            assert sorted(originals) == sorted(trees), "each is there, and none twice"

        self.made |= {copied: trees[original] for copied, original in again(self.repository).items()}
        self.again = once

    def mirror(self) -> None:
        """A second place of a repository that has a history."""
        source = World(self.tree)
        for step in (World.init, World.backup, World.backup, World.tag, World.forget, World.backup):
            step(source)
        self.made |= source.made
        self.secrets += [(secret, self.now, None) for secret, _, _ in source.secrets]

        def again(target: Repository) -> None:
            sync(source.store, target.store, lanes=1)
            assert dict(source.store.list()).items() <= dict(target.store.list()).items()

        sync(source.store, self.store, lanes=1)
        self.again = again

    def rotate(self) -> None:
        self.repository.rotate()

    def add_password(self) -> None:
        self.repository.add_password("another one", "of the deputy", CHEAP)
        self.secrets.append(("another one", self.now, None))

    def change_password(self) -> None:
        begin = self.now
        self.repository.change_password("the new password", CHEAP)
        self._void(FIRST, begin)
        self.secrets.append(("the new password", self.now, None))
        # At every moment one of both is good: what was typed last may be the old one still.
        self._fact_between("old or new opens", lambda repository: either(repository, FIRST, "the new password"), begin)

    def add_recovery_code(self) -> None:
        _, code = self.repository.add_recovery_code("for the safe")
        self.secrets.append((code, self.now, None))

    def remove_password(self) -> None:
        (slot,) = (slot for slot in self.repository.list_keys().slots if slot.label == "of the deputy")
        self._void("another one", self.now)
        self.repository.remove_key(slot.id)

    def repair(self) -> None:
        report = repair(self.repository, apply=True, level="data")
        assert report.applied

    # ---- what disks do

    def flip_a_data_pack(self) -> None:
        name = self._largest("packs/")
        data = bytearray(self.store.get(name))
        data[2000] ^= 1
        self.store.harm(name, bytes(data))

    def lose_a_data_pack(self) -> None:
        self.store.harm(self._largest("packs/"), None)

    def flip_an_index_object(self) -> None:
        name = self._largest("index/")
        data = bytearray(self.store.get(name))
        data[-40] ^= 1
        self.store.harm(name, bytes(data))

    def lose_an_index_object(self) -> None:
        self.store.harm(self._largest("index/"), None)

    def _largest(self, prefix: str) -> str:
        """Of the last backup: what it stored is still in the tree, so it can be healed."""
        puts = [operation for operation in self.store.log if isinstance(operation, Put)]
        while not puts.pop().name.startswith(SNAPSHOT_PREFIX):
            pass
        before = [at for at, put in enumerate(puts) if put.name.startswith(SNAPSHOT_PREFIX)]
        mine = [put for put in puts[before[-1] if before else 0 :] if put.name.startswith(prefix)]
        return max(mine, key=lambda put: len(put.data)).name

    # ---- promises

    def _fact(self, what: str, holds: Callable[[Repository], bool]) -> None:
        self.facts.append(Fact(what, holds, self.now))

    def _fact_between(self, what: str, holds: Callable[[Repository], bool], begin: int) -> None:
        self.facts.append(Fact(what, holds, begin, self.now))

    def _end(self, what: str) -> None:
        """From the next operation on it need not hold any more."""
        self.facts = [
            Fact(fact.what, fact.holds, fact.begin, self.now) if fact.what == what and fact.end is None else fact
            for fact in self.facts
        ]

    def _void(self, secret: str, end: int) -> None:
        self.secrets = [(one, begin, end if one == secret else until) for one, begin, until in self.secrets]


_ONE = [World.init, World.backup, World.here]
_TWO = [World.init, World.backup, World.backup, World.here]

SCENARIOS: dict[str, list[Step]] = {
    "init and first backup": [World.init, World.backup],
    "later backups": [*_ONE, World.backup, World.same_again, World.backup],
    "prune": [*_TWO, World.backup, World.forget, World.prune, World.same_again, World.prune, World.backup],
    "notes": [*_ONE, World.tag, World.pin, World.unpin],
    "trash": [*_TWO, World.tag, World.forget, World.undelete, World.forget_again, World.purge, World.backup],
    "keys": [*_ONE, World.add_password, World.change_password, World.add_recovery_code, World.remove_password],
    "key rotation": [*_ONE, World.add_password, World.remove_password, World.rotate, World.backup, World.rotate],
    "copy": [*_ONE, World.copy, World.same_again],
    "mirror": [World.mirror],
    "repair of a flipped pack": [*_TWO, World.flip_a_data_pack, World.repair, World.same_again],
    "repair of a lost pack": [*_TWO, World.lose_a_data_pack, World.repair, World.same_again],
    "repair of a flipped index object": [*_TWO, World.flip_an_index_object, World.repair, World.same_again],
    "repair of a lost index object": [*_TWO, World.lose_an_index_object, World.repair, World.same_again],
}


def play(name: str, folder: Path) -> World:
    """Everything of a scenario, recorded."""
    world = World(folder / "tree")
    world.tree.mkdir()
    for step in SCENARIOS[name]:
        step(world)
    assert objects_of(world) == dict(world.store.list())
    return world


def objects_of(world: World) -> dict[str, int]:
    """Names and sizes that the log says are in the store: the log misses nothing."""
    return {name: len(data) for name, data in objects_after(world.store.log).items()}
