"""The story of a repository that is copied and mirrored while it is edited, backed up, forgotten and failed.

Whatever happened, all snapshots that a copy or a mirror has restore to the model of their moment, with the source gone.
"""

from __future__ import annotations

import os
import shutil
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import precondition, rule

from model.errors import Interrupted, StoreError
from pipelines.backup import BackupRequest
from pipelines.copy import CopyRequest, copy
from pipelines.mirrors import mirrored_backup
from pipelines.options import Watch
from repository.check import check
from repository.mirror import sync
from repository.repository import Repository
from repository.snapshot import load_all
from repository.store import LocalStore
from repository.store.wrappers import Fault, FaultyStore
from repository.trash import forget, load_trash
from tests.pipelines.helpers import CHEAP, Place
from tests.stories.test_repository_story import CHUNKS, EXECUTORS, WHERE, StopAt, Story, Tree

TARGETS = st.sampled_from(["related", "stranger"])
VERBS = st.sampled_from(["put", "get", "list", "nothing", "nothing"])


class CopyStory(Story):
    """Adds copies to two repositories, one that names chunks alike and one that does not, and a mirror."""

    def __init__(self) -> None:
        super().__init__()
        store = LocalStore(os.fspath(self.home / "related"))
        related, _ = Repository.init(store, "pw", kdf=CHEAP, related=self.place.repository)
        stranger = Place(self.home / "stranger", executor="inline", chunker=CHUNKS).repository
        self.targets = {"related": related, "stranger": stranger}
        self.mirror = LocalStore(os.fspath(self.home / "mirror"))
        self.made: dict[str, Tree] = {}  # every snapshot there ever was

    def teardown(self) -> None:
        try:
            self.made |= self.snapshots | self.forgotten
            for name in self.targets:
                self.copy_all(name)
            sync(self.place.repository.store, self.mirror)
            shutil.rmtree(self.home / "repository")
            mirror = Repository.attach(self.mirror, self.place.repository.credentials())
            for repository in (*self.targets.values(), mirror):
                self.place.repository = repository
                assert check(repository, "data").findings == []
                self.snapshots = {}
                for snapshot in load_all(repository):
                    self.snapshots[snapshot.id] = self.made[snapshot.original[1] if snapshot.original else snapshot.id]
                    self.restores(snapshot)
        finally:
            shutil.rmtree(self.home, ignore_errors=True)

    def copy_all(self, name: str, watch: Watch | None = None, **more: Any) -> None:
        source = self.place.repository
        request = CopyRequest(tuple(load_all(source)), **more)
        report = copy(source, self.targets[name], request, self.place.engine, watch or Watch())
        assert report.failed == {}
        assert self.copied(name) | self.trashed(name) >= {snapshot.id for snapshot in request.snapshots}

    def copied(self, name: str) -> set[str]:
        originals = [snapshot.original for snapshot in load_all(self.targets[name])]
        assert len(set(originals)) == len(originals), "nothing is copied twice"
        return {original[1] for original in originals if original is not None}

    def trashed(self, name: str) -> set[str]:
        return {one.snapshot.original[1] for one in load_trash(self.targets[name]) if one.snapshot.original}

    @rule(name=TARGETS, executor=EXECUTORS, verify=st.booleans(), codec=st.sampled_from([None, None, "lz4"]))
    def copy(self, name: str, executor: str, verify: bool, codec: str | None) -> None:
        self.made |= self.snapshots
        self.place.executor = executor
        self.copy_all(name, verify=verify, codec=codec)

    @rule(
        name=TARGETS,
        executor=EXECUTORS,
        verb=VERBS,
        nth=st.integers(0, 12),
        signs=st.integers(0, 6),
        there=st.booleans(),
    )
    def failing_copy(self, name: str, executor: str, verb: str, nth: int, signs: int, there: bool) -> None:
        self.made |= self.snapshots
        self.place.executor = executor
        failing = self.targets[name] if there else self.place.repository
        store = failing.store
        failing.store = FaultyStore(store, [Fault(verb, error=StoreError("cut off"), skip=nth, times=1)])
        try:
            self.copy_all(name, StopAt(signs) if verb == "nothing" else None)
        except (StoreError, Interrupted):
            pass
        finally:
            failing.store = store
        assert check(self.targets[name], "data").findings == []

    @rule(name=TARGETS, which=WHERE)
    def forget_a_copy(self, name: str, which: int) -> None:
        if snapshots := load_all(self.targets[name]):
            forget(self.targets[name], snapshots[which % len(snapshots)].id, "story", 1)

    @rule(executor=EXECUTORS, verb=VERBS, nth=st.integers(0, 12))
    def mirrored_backup(self, executor: str, verb: str, nth: int) -> None:
        self.place.executor = executor
        mirror = FaultyStore(self.mirror, [Fault(verb, error=StoreError("cut off"), skip=nth, times=1)])
        request = BackupRequest((os.fsencode(self.tree),))
        report, (state,) = mirrored_backup(
            self.place.repository, [mirror], request, self.place.engine, Watch(), lambda what, done, total: None
        )
        assert report.problems == [] and report.snapshot is not None
        self.snapshots[report.snapshot.id] = self.model()
        self.made |= self.snapshots
        if self.mirror.exists("config"):
            held = Repository.attach(self.mirror, self.place.repository.credentials())
            assert check(held, "structure").findings == []
            assert state.trouble or {one.id for one in load_all(held)} >= set(self.snapshots)

    @precondition(lambda self: self.snapshots)
    @rule(which=WHERE)
    def copy_one(self, which: int) -> None:
        self.made |= self.snapshots
        source, target = self.place.repository, self.targets["related"]
        snapshots = load_all(source)
        wanted = snapshots[which % len(snapshots)]
        copy(source, target, CopyRequest((wanted,)), self.place.engine, Watch())
        assert wanted.id in self.copied("related") | self.trashed("related")


TestCopyStory = pytest.mark.slow(CopyStory.TestCase)
TestCopyStory.settings = settings(max_examples=12, stateful_step_count=25)
