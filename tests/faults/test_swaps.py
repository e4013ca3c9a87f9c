"""Any two objects of a repository change places: F2 of the fault catalogue.

What is sealed opens only under its own name, kind and repository. So every exchange is noticed, no content is ever
taken for another's, and what the exchange did not touch still restores.
"""

from __future__ import annotations

import itertools
import time

import pytest

from model.errors import Damaged, LoxError, NewerFormat, WrongPassword
from repository.annotations import Changes, annotate, load_annotations
from repository.check import check
from repository.condemned import Reason, condemn, load_condemned
from repository.repository import Repository
from repository.snapshot import Snapshot, load_all
from repository.store import MemoryStore
from repository.trash import forget, load_trash
from tests.faults.forging import exchange
from tests.faults.oplog import store_of
from tests.repository.samples import CHEAP, Tree, back_up, content_of, new_repository

TREE: Tree = {b"d": None, **{b"d/file%02d" % number: b"content %d " % number * 30 for number in range(6)}}
TREES: list[Tree] = [TREE, {**TREE, b"d/more": b"more" * 90}, {**TREE, b"d/file01": b"changed" * 40}]
PLACES = ("config", "keys", "packs", "index", "snapshots", "notes", "trash", "gc")


class Sample:
    """A repository with at least two objects of every kind, and what its snapshots hold."""

    def __init__(self, encrypted: bool) -> None:
        self.repository = new_repository(encrypted)
        self.password = "secret" if encrypted else None
        self.trees: dict[str, Tree] = {}
        for tree in [*TREES, TREE, TREE]:
            self.trees[back_up(self.repository, tree).id] = tree
        if encrypted:
            self.repository.add_password("another", "deputy", CHEAP)
        ids = list(self.trees)
        for snapshot in ids[:2]:
            annotate(self.repository, snapshot, Changes(add=("tagged",), hold=("law",)), time.time_ns())
        for snapshot in ids[3:]:
            forget(self.repository, snapshot, "by name", time.time_ns())
        for pack in (bytes(16), bytes(15) + b"\1"):
            condemn(self.repository, [pack], Reason.UNUSED, time.time_ns())
        everything = [*load_all(self.repository), *(one.snapshot for one in load_trash(self.repository))]
        self.roots = {one.id: one.root for one in everything}
        store = self.repository.store
        self.objects = {name: store.get(name) for name, _ in store.list()}

    def truth(self, snapshot: Snapshot) -> Tree:
        """What it must restore to. Without encryption the name of a snapshot is no part of it: any of ours will do."""
        if self.password is not None:
            assert snapshot.root == self.roots[snapshot.id]
            return self.trees[snapshot.id]
        return next(self.trees[one] for one, root in self.roots.items() if root == snapshot.root)

    def swapped(self, one: str, other: str) -> MemoryStore:
        return store_of(self.objects | {one: self.objects[other], other: self.objects[one]})


@pytest.fixture(scope="module", params=[True, False], ids=["encrypted", "not encrypted"])
def sample(request: pytest.FixtureRequest) -> Sample:
    return Sample(request.param)


def opens_to_the_truth(sample: Sample, store: MemoryStore) -> set[str]:
    """Reads all there is; the objects that were refused. Nothing that opens may be anything but what was stored."""
    refused: set[str] = set()
    try:
        repository = Repository.open(store, sample.password)
    except WrongPassword as error:
        assert "could not be read" in error.why, "that a slot is damaged, or of another repository, is said"
        return {error.why}
    except LoxError as error:
        return {error.subject, str(error)}
    snapshots = load_all(repository)
    refused |= {name for name, _ in snapshots.unreadable}
    for snapshot in snapshots:
        for path, content in sample.truth(snapshot).items():
            try:
                assert content is None or content_of(repository, snapshot, path) == content
            except Damaged as error:
                refused.add(error.subject)
    for trashed in load_trash(repository, lambda name, error: refused.add(name)):
        sample.truth(trashed.snapshot)
    refused |= {told for notes in load_annotations(repository).unreadable.values() for told in notes}
    load_condemned(repository, lambda error: refused.add(error.subject))
    refused |= {finding.subject for finding in check(repository, "data").findings}
    return refused


def test_the_sample_has_two_of_everything(sample: Sample) -> None:
    places = [name.partition("/")[0] for name in sample.objects]
    for place in PLACES:
        at_least = 1 if place == "config" else 0 if place == "keys" and sample.password is None else 2
        assert places.count(place) >= at_least, place
    assert opens_to_the_truth(sample, store_of(sample.objects)) == set()


@pytest.mark.parametrize("every", [pytest.param(1, marks=pytest.mark.slow), 11])
def test_any_two_objects_that_change_places_are_found_out(sample: Sample, every: int) -> None:
    pairs = list(itertools.combinations(sorted(sample.objects), 2))[::every]
    unnoticed = []
    for one, other in pairs:
        refused = opens_to_the_truth(sample, sample.swapped(one, other))
        if not any(name in told for told in refused for name in (one, other)):
            unnoticed.append((one.partition("/")[0], other.partition("/")[0]))
    print(f"{len(pairs)} pairs of {len(sample.objects)} objects; not noticed: {sorted(set(unnoticed))}")
    if sample.password is None:  # nothing but the name says which is which: see docs/format.md, section 3
        assert {place for pair in unnoticed for place in pair} <= {"index", "snapshots", "notes", "trash", "gc"}
        assert all(one == other or {one, other} <= {"notes", "trash", "gc"} for one, other in unnoticed)
    else:  # the name of a key slot means nothing
        assert set(unnoticed) <= {("keys", "keys")}


@pytest.mark.slow
def test_objects_of_another_repository_are_refused(sample: Sample) -> None:
    """Of the same password, even."""
    other = Sample(sample.password is not None)
    for name, data in other.objects.items():
        mine = next(one for one in sample.objects if one.partition("/")[0] == name.partition("/")[0])
        store = store_of(sample.objects)
        exchange(store, mine, data)
        refused = opens_to_the_truth(sample, store)
        assert any(mine in told for told in refused) or name.startswith("keys/") or (name == "config" and refused), name
        store = store_of(sample.objects)
        if name not in sample.objects:
            store.put(name, [data])
            try:
                assert opens_to_the_truth(sample, store) or name.startswith("keys/")
            except (Damaged, NewerFormat) as error:
                assert name in error.subject
