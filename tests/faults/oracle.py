"""Judging a store that a crash left behind: nothing that was promised is lost, and work goes on without help."""

from __future__ import annotations

import itertools
import os
import shutil
from pathlib import Path

from model.errors import Damaged, LoxError, NewerFormat, NoKey, NoRepository
from pipelines.options import Watch
from pipelines.restore import RestoreRequest, restore
from repository.check import check
from repository.config import CONFIG_NAME
from repository.epochs import COPY, EPOCHS_FOLDER
from repository.prune import prune
from repository.repair import repair
from repository.repository import Repository
from repository.slots import FOLDER
from repository.snapshot import Snapshot, load, load_all
from repository.store import Store
from repository.trash import forget, load_trash, undelete
from tests.faults.scenarios import CHEAP, CHUNKS, ENGINE, EVERYTHING, FIRST, Tree, World, back_up, look

_numbers = itertools.count()


class Oracle:
    """What holds after the first `end` operations of a world, whatever came in their way."""

    def __init__(self, world: World, end: int, folder: Path) -> None:
        self.world = world
        self.end = end
        self.folder = folder
        self.committed = world.committed(end)
        self.wounded = world.first_harm is not None and world.first_harm < end

    def judge(self, store: Store, torn: str | None = None) -> bool:
        """Whether `repair` was needed to go on: only for a `torn` object or real damage, never after a mere crash."""
        os.environ["LOX_CACHE_DIR"] = str(self.folder / f"cache{next(_numbers)}")  # as another host has it
        try:
            return self._judge(store, torn)
        finally:
            shutil.rmtree(os.environ["LOX_CACHE_DIR"], ignore_errors=True)

    def _judge(self, store: Store, torn: str | None) -> bool:
        if not store.exists(CONFIG_NAME):
            self.begins_again(store, torn)
            return False
        if torn == CONFIG_NAME:
            self.config_is_damaged(store)
            return False
        repository = self.opens(store)
        for fact in self.world.facts:
            if fact.begin <= self.end and (fact.end is None or self.end <= fact.end) and torn is None:
                assert fact.holds(repository), fact.what
        self.is_sound(repository, torn)
        if self.world.again is not None and torn is None:
            self.world.again(repository)
        needed = self.goes_on(repository, torn)
        self.collects_garbage(repository)
        assert needed is False or torn is not None or self.wounded
        self.everything_restores(repository)
        return needed

    # ---- before there is a repository

    def begins_again(self, store: Store, torn: str | None) -> None:
        """No config, no repository: init simply works."""
        assert self.committed == {}
        keys = any(True for _ in store.list(FOLDER))
        try:
            Repository.open(store, FIRST)
            raise AssertionError("a repository without a config opened")
        except NoRepository:
            assert not keys
        except Damaged as error:
            assert keys and "lox init" in error.hint
        repository, code = Repository.init(store, FIRST, CHUNKS, kdf=CHEAP)
        assert code is not None
        Repository.open(store, code)
        newest = back_up(repository, self.world.tree)
        self.restores(repository, load(repository, newest))
        assert {finding.subject for finding in check(repository, "data").findings} <= {torn}

    def config_is_damaged(self, store: Store) -> None:
        """A torn config is damage, whatever the password; nothing is ever stored beside it."""
        for secret in (FIRST, "a wrong one"):
            try:
                Repository.open(store, secret)
            except Damaged as error:
                assert error.subject == CONFIG_NAME
            else:
                raise AssertionError("a torn config opened")

    # ---- what is there

    def opens(self, store: Store) -> Repository:
        """With every secret that was promised to."""
        secrets = [
            secret
            for secret, begin, until in self.world.secrets
            if begin <= self.end and (until is None or self.end <= until)
        ]
        assert secrets
        return [Repository.open(store, secret) for secret in secrets][-1]

    def is_sound(self, repository: Repository, torn: str | None) -> None:
        """A check finds what is torn or damaged, and nothing else."""
        report = check(repository, "data")
        if torn is None and not self.wounded:
            assert report.findings == []
            harmless = "in no index", "one of the two documents of an epoch is missing"  # a rotation puts them in turn
            assert all(any(text in note for text in harmless) for note in report.notes), report.notes
        elif not self.wounded:
            for finding in report.findings:
                assert finding.subject in (torn, f"{torn}{COPY}"), (torn, finding)
                assert finding.snapshots == []
            unsaid = torn is not None and torn.startswith(("sessions/", "gc/quarantine/"))
            assert report.findings or unsaid or "in no index" in " ".join(report.notes), f"nothing was said of {torn}"
        here = {snapshot.id: snapshot for snapshot in load_all(repository)}
        if not self.wounded:
            for snapshot in here.values():
                self.restores(repository, snapshot)

    def goes_on(self, repository: Repository, torn: str | None) -> bool:
        """The next backup and forget work; if damage keeps them from it, they do after a repair."""
        needed = False
        try:
            newest = back_up(repository, self.world.tree)
        except Damaged as error:
            assert torn is not None or self.wounded
            assert "lox repair" in error.hint, error
            needed = True
        except NoKey:
            assert torn is not None
            self.epoch_is_given_up(repository, torn)
            newest = back_up(repository, self.world.tree)
        if needed or self.wounded:
            repair(repository, apply=True, level="data")
            newest = back_up(repository, self.world.tree)
            assert repair(repository, apply=True, level="data").nothing_to_do
        forget(repository, newest, "oracle", 1)
        unreadable: list[tuple[str, LoxError]] = []
        trashed = {one.id: one for one in load_trash(repository, lambda name, error: unreadable.append((name, error)))}
        assert {name for name, _ in unreadable} <= {torn}
        assert newest in trashed
        for one in trashed.values():
            undelete(repository, one)
        return needed

    def epoch_is_given_up(self, repository: Repository, torn: str) -> None:
        """An epoch that nobody can read may be the newest: nothing is written until it is deleted, as we are told."""
        assert torn.startswith(EPOCHS_FOLDER)
        try:
            repository.rotate()
        except NoKey as error:
            assert f"delete the object {torn}" in error.hint
        else:
            raise AssertionError("an epoch follows on one that cannot be read")
        repository.store.delete(torn)

    def collects_garbage(self, repository: Repository) -> None:
        """Nobody who died is waited for, and nothing is left to do; where it is not known what is needed, all stays."""
        packs = {name for name, _ in repository.store.list("packs/")}
        try:
            prune(repository, EVERYTHING)
        except (Damaged, NewerFormat):
            assert self.is_dark(repository)
            assert packs <= {name for name, _ in repository.store.list("packs/")}
            return
        assert not self.is_dark(repository)
        last = prune(repository, EVERYTHING)
        assert (last.unused, last.rewritten, last.waiting, last.unfinished) == (0, 0, 0, 0), last

    def is_dark(self, repository: Repository) -> bool:
        """Whether there is something of which nobody knows what it needs."""
        unreadable: list[str] = []
        load_trash(repository, lambda name, error: unreadable.append(name))
        return bool(unreadable or load_all(repository).unreadable)

    def everything_restores(self, repository: Repository) -> None:
        """All that was committed is there and equal."""
        here = {snapshot.id: snapshot for snapshot in load_all(repository)}
        assert set(self.committed) <= set(here)
        for snapshot in here.values():
            self.restores(repository, snapshot)

    def restores(self, repository: Repository, snapshot: Snapshot) -> None:
        target = self.folder / f"out{next(_numbers)}"
        request = RestoreRequest(snapshot, os.fsencode(target))
        report = restore(repository, request, ENGINE, Watch())
        assert report.problems == []
        assert look(target / os.fspath(self.world.tree)[1:]) == self.expected(snapshot.id)
        shutil.rmtree(target)

    def expected(self, snapshot_id: str) -> Tree:
        """Snapshots that the oracle made itself are of the tree as it is."""
        return self.world.made.get(snapshot_id) or look(self.world.tree)
