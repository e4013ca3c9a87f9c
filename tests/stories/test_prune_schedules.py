"""Backups, forgetting, bringing back, pruning and repairing at the same time, one store operation at a time, in an
order drawn by a seed: whatever was reported as done can be restored, and a prune afterwards leaves nothing behind."""

from __future__ import annotations

import os
import random
from collections.abc import Callable

import pytest

from model.errors import Missing, NotFound, Refused, RunFailed, UsageError
from repository import prune as prune_module
from repository import sweep
from repository.check import check
from repository.claims import ClaimTable
from repository.condemned import load_condemned
from repository.index import ChunkIndex, save_index
from repository.manifest import ManifestWriter
from repository.metadata import MetadataStore
from repository.prune import PrunePolicy, prune
from repository.reliance import Reliance, commit
from repository.repair import repair
from repository.repository import Repository
from repository.session_state import SessionState, load_sessions
from repository.sessions import open_session
from repository.snapshot import Snapshot, load_all
from repository.store import MemoryStore
from repository.store.wrappers import Fault, FaultyStore
from repository.trash import forget, load_trash, undelete
from tests.repository.samples import Tree, back_up, content_of, new_repository, store_content, table_of
from tests.repository.turns import Stage, by_chance, by_script

ALL = PrunePolicy(max_unused=0.0, trash=0, unfinished=0)
SETTLED = 4  # runs
FAST, SLOW = 48, int(os.environ.get("PRUNE_ORDERS", "320"))
EXPECTED = (RunFailed, Missing, NotFound, UsageError)


def tree_of(rng: random.Random) -> Tree:
    """A few files out of few different pieces, so that trees share chunks."""
    pieces = [bytes([number]) * 100 for number in range(40)]
    files = {b"data/%d" % number: b"".join(rng.choices(pieces, k=rng.randint(1, 5))) for number in range(3)}
    return {b"data": None} | files


def back_up_beside(repository: Repository, tree: Tree, renewals: int = 0) -> Snapshot:
    """As `backup` goes about it, without files and stages."""
    with open_session(repository, "backup") as session:
        index = ChunkIndex.load(repository, None, only_present=True, without=session.condemned)
        reliance = Reliance(index)
        claims = ClaimTable(reliance)
        receipts = store_content(repository, claims, tree)
        session.has_stored = bool(receipts)
        for _ in range(renewals):
            session.renew()
        metadata = MetadataStore(repository, claims)
        writer = ManifestWriter(metadata.store)
        writer.add(table_of(tree, repository))
        root = writer.finish()
        receipts += metadata.finish()
        reliance.add(receipts)
        save_index(repository, receipts)
        draft = Snapshot(2, 1, 3, "box", "root", (b"/data",), "full", root)

        def save() -> tuple[Snapshot, str]:
            saved = draft.save(repository)
            return saved, saved.name

        return commit(session, reliance, repository, save)


class Crowd:
    """Actors on one repository, and what they have reported as done."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.stage = Stage(by_chance(self.rng))
        self.home = new_repository(encrypted=False, store=MemoryStore())
        self.trees: dict[str, Tree] = {}
        self.roots: dict[str, Snapshot] = {}
        for _ in range(6):
            tree = tree_of(self.rng)
            self._remember(back_up(self.home, tree), tree)
        for snapshot_id in self.rng.sample(sorted(self.trees), 4):  # what only these need is garbage from the start
            forget(self.home, snapshot_id, "test", 1)

    def _remember(self, snapshot: Snapshot, tree: Tree) -> None:
        self.trees[snapshot.id], self.roots[snapshot.id] = tree, snapshot

    def view(self, name: str) -> Repository:
        return Repository(self.stage.store(self.home.store, name), self.home.config, self.home.keys)

    def backup(self, name: str) -> Callable[[], None]:
        tree, repository, renewals = tree_of(self.rng), self.view(name), self.rng.randint(0, 2)
        return lambda: self._remember(back_up_beside(repository, tree, renewals), tree)

    def careful(self, name: str) -> Callable[[], None]:
        """A backup with credentials that cannot delete."""
        tree, repository, renewals = tree_of(self.rng), self.view(name), self.rng.randint(0, 2)
        repository.store = FaultyStore(repository.store, [Fault("delete", error=Refused("append only"))])
        return lambda: self._remember(back_up_beside(repository, tree, renewals), tree)

    def prune(self, name: str) -> Callable[[], None]:
        repository = self.view(name)

        def act() -> None:
            prune(repository, ALL)

        return act

    def repair(self, name: str) -> Callable[[], None]:
        repository = self.view(name)

        def act() -> None:
            repair(repository, apply=True)

        return act

    def forget(self, name: str) -> Callable[[], None]:
        repository, some = self.view(name), self.rng.sample(sorted(self.trees), 2)

        def act() -> None:
            for snapshot_id in some:
                forget(repository, snapshot_id, "test", 1)

        return act

    def undelete(self, name: str) -> Callable[[], None]:
        repository = self.view(name)

        def act() -> None:
            with open_session(repository, "undelete"):
                for one in load_trash(repository)[:1]:
                    undelete(repository, one)

        return act

    def verify(self) -> None:
        """Every snapshot that is there is whole; those nobody forgot are there."""
        there = load_all(self.home)
        assert not there.unreadable
        assert check(self.home, "data").findings == []
        for snapshot in there:
            assert snapshot.id in self.trees, "committed, though it was reported as failed"
            for path, content in self.trees[snapshot.id].items():
                if content is not None:
                    assert content_of(self.home, snapshot, path) == content


def play(seed: int) -> set[str]:
    """What actors met with, in short."""
    crowd = Crowd(seed)
    rng = crowd.rng
    chance = rng.choice([0.0, 0.0, 0.3, 1.0])  # of being presumed dead by mistake

    def seems_dead(repository: Repository, state: SessionState, now: int | None) -> bool:
        return rng.random() < chance

    kinds: dict[str, Callable[[str], Callable[[], None]]] = {
        # Who cannot delete cannot take back what it finds to be broken after it was presumed dead by mistake.
        "backup": crowd.careful if chance == 0.0 and rng.random() < 0.5 else crowd.backup,
        "prune": crowd.prune,
        "forget": crowd.forget,
        "undelete": crowd.undelete,
        "repair": crowd.repair,
    }
    cast = ["backup", "prune", *rng.choices(list(kinds), weights=[4, 4, 3, 2, 1], k=rng.randint(1, 3))]
    forgotten = {name for name in cast if name == "forget"}
    actors = {f"{kind}{number}": kinds[kind](f"{kind}{number}") for number, kind in enumerate(cast)}
    before, kept = set(crowd.trees), {snapshot.id for snapshot in load_all(crowd.home)}
    with pytest.MonkeyPatch.context() as patch:
        if rng.random() < 0.5:  # packs of runs under way are condemned, too
            patch.setattr(prune_module, "protected_since", lambda repository, others: 1 << 62)
        patch.setattr(sweep, "seems_dead", seems_dead)
        crowd.stage.play(actors)
    for name, error in crowd.stage.errors.items():
        if not isinstance(error, EXPECTED):
            raise AssertionError(f"{name} in seed {seed}") from error
        if name.startswith("prune") and not isinstance(error, RunFailed):
            raise AssertionError(f"{name} in seed {seed}") from error
    crowd.verify()
    if not forgotten:
        assert {snapshot.id for snapshot in load_all(crowd.home)} >= (set(crowd.trees) - before) | kept
    _settle(crowd)
    return {type(error).__name__ + str(error)[:20] for error in crowd.stage.errors.values()}


def _settle(crowd: Crowd) -> None:
    """Once all is quiet, pruning comes to an end: packs that were needed after all, and second copies of chunks, are
    rewritten one run later."""
    for _ in range(SETTLED):
        report = prune(crowd.home, ALL)
        crowd.verify()
        assert load_condemned(crowd.home) == [] and load_sessions(crowd.home) == []
        if not (report.rewritten or report.rescued):
            break
    before = sorted(name for name, _ in crowd.home.store.list())
    report = prune(crowd.home, ALL)
    assert (report.deleted, report.rewritten, report.unused) == (0, 0, 0)
    assert sorted(name for name, _ in crowd.home.store.list()) == before


@pytest.mark.parametrize("block", range(4))
def test_whatever_the_order_nothing_is_lost(block: int) -> None:
    seen: set[str] = set()
    for seed in range(block * FAST // 4, (block + 1) * FAST // 4):
        seen |= play(seed)
    assert seen, "actors are expected to be in each other's way now and then"


@pytest.mark.slow
@pytest.mark.parametrize("block", range(8))
def test_many_orders(block: int) -> None:
    for seed in range(FAST + block * SLOW // 8, FAST + (block + 1) * SLOW // 8):
        play(seed)


MINE, OTHER = {b"data": None, b"data/kept": b"k" * 300}, {b"data": None, b"data/gone": b"g" * 300 + b"h" * 300}
AGAIN = {b"data": None, b"data/again": b"g" * 300 + b"n" * 300}  # needs a chunk that only the forgotten one needs


def meet(writer_ops: int, prune_ops: int, dead: bool) -> tuple[str, int, int]:
    """A backup that relies on garbage stops after so many operations, a prune goes on for so many, then both end, one
    after the other; `dead`: the prune presumes the backup dead. What became of the backup, and their operations."""
    stage = Stage(by_script(("backup", writer_ops), ("prune", prune_ops), ("backup", 1 << 30)))
    home = new_repository(encrypted=False, store=MemoryStore())
    kept, gone = back_up(home, MINE), back_up(home, OTHER)
    forget(home, gone.id, "test", 1)
    made: list[Snapshot] = []
    views = {name: Repository(stage.store(home.store, name), home.config, home.keys) for name in ("backup", "prune")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prune_module, "protected_since", lambda repository, others: 1 << 62)
        patch.setattr(sweep, "seems_dead", lambda repository, state, now: dead)
        stage.play(
            {
                "backup": lambda: made.append(back_up_beside(views["backup"], AGAIN, 1)),
                "prune": lambda: none(prune(views["prune"], ALL)),
            }
        )
    assert all(isinstance(error, RunFailed) for error in stage.errors.values()), stage.errors
    assert {snapshot.id for snapshot in load_all(home)} == {kept.id, *(snapshot.id for snapshot in made)}
    assert check(home, "data").findings == []
    for snapshot in made:
        assert content_of(home, snapshot, b"data/again") == AGAIN[b"data/again"]
    return "made" if made else "refused", stage.turns["backup"], stage.turns["prune"]


def none(value: object) -> None:
    """Say no more about it."""


@pytest.mark.slow
@pytest.mark.parametrize("dead", [False, True])
def test_a_backup_that_relies_on_garbage(dead: bool) -> None:
    """At any moment of the backup all of the prune, and at any moment of the prune all of the backup."""
    _, backup_ops, prune_ops = meet(1 << 30, 0, dead)
    outcomes = {meet(ops, 1 << 30, dead)[0] for ops in range(backup_ops + 1)}
    assert outcomes == ({"made", "refused"} if dead else {"made"})
    assert {meet(0, ops, dead)[0] for ops in range(0, prune_ops + 1, 2)} >= {"made"}


@pytest.mark.slow
@pytest.mark.parametrize("dead", [False, True])
def test_a_backup_that_relies_on_garbage_stopped_anywhere_of_a_prune_stopped_anywhere(dead: bool) -> None:
    _, backup_ops, prune_ops = meet(1 << 30, 0, dead)
    for writer_ops in range(backup_ops + 1):
        for ops in range(writer_ops % 4, prune_ops + 20, 4):
            meet(writer_ops, ops, dead)
