"""Notes on snapshots: whatever order they come in, everybody agrees on what holds, and what is unclear protects."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from model.errors import Damaged, NewerFormat
from repository.annotations import (
    NOTES_PREFIX,
    Annotations,
    Changes,
    Note,
    Pin,
    annotate,
    load_annotations,
    remove_notes,
)
from repository.documents import encode_document
from repository.repository import Repository
from repository.seal import ObjectKind
from repository.snapshot import Snapshot
from tests.repository.samples import back_up, new_repository

TREE = {b"data": None}
WORDS = st.lists(st.sampled_from(["a", "b", "ü c"]), max_size=2).map(tuple)
CHANGES = st.builds(
    Changes,
    add=WORDS,
    remove=WORDS,
    pin=st.sampled_from([None, False, Pin(), Pin(7), Pin(-1)]),
    hold=WORDS,
    release=WORDS,
    comment=st.sampled_from([None, "", "zeile\n2"]),
)


def overwrite(repository: Repository, name: str, plain: bytes) -> None:
    """Another object in the place of one, as only somebody with the keys could put it."""
    repository.store.delete(name)
    repository.put_object(ObjectKind.MARK, name, plain)


@given(CHANGES, st.integers(-(1 << 70), 1 << 70))
def test_notes_survive_writing_and_reading(changes: Changes, time: int) -> None:
    note = Note(time, changes, "notes/x")
    assert Note.decode("notes/x", note.encode()) == note


@given(st.lists(st.tuples(st.integers(0, 3), CHANGES), max_size=8), st.randoms(use_true_random=False))
def test_the_order_of_reading_does_not_matter(given: list[tuple[int, Changes]], rng: object) -> None:
    notes = [Note(time, changes, f"notes/x/{number:02d}") for number, (time, changes) in enumerate(given)]
    snapshot = sample()
    forward = Annotations({"x": notes}).of(snapshot)
    assert Annotations({"x": notes[::-1]}).of(snapshot) == forward
    assert Annotations({"y": notes}).of(snapshot).tags == {"made"}


def sample() -> Snapshot:
    repository = new_repository(encrypted=False)
    return back_up(repository, TREE, tags=("made",))._replace(id="x")


def test_tags_pins_holds_and_comments_add_up() -> None:
    repository = new_repository()
    snapshot = back_up(repository, TREE, tags=("made", "old"))
    steps = [
        Changes(add=("new",), remove=("old",)),
        Changes(pin=Pin(100), hold=("audit", "case 7")),
        Changes(comment="before the move", release=("audit",)),
    ]
    for changes in steps:
        annotate(repository, snapshot.id, changes, 50)
    state = load_annotations(repository).of(snapshot)
    assert state.tags == {"made", "new"} and state.pin == Pin(100) and state.holds == {"case 7"}
    assert state.comment == "before the move"
    assert state.protections(99) == ("pinned", "held: case 7") and state.protections(100) == ("held: case 7",)
    annotate(repository, snapshot.id, Changes(pin=Pin(), release=("case 7",), comment=""), 50)
    state = load_annotations(repository).of(snapshot)
    assert state.protections(1 << 62) == ("pinned",) and state.comment == ""
    remove_notes(repository, [snapshot.id])
    assert load_annotations(repository).of(snapshot).tags == {"made", "old"}


def test_what_is_said_last_holds_though_the_clock_is_behind() -> None:
    repository = new_repository()
    snapshot = back_up(repository, TREE)
    annotate(repository, snapshot.id, Changes(comment="first"), 1000)
    for number in range(8):
        annotate(repository, snapshot.id, Changes(comment=f"later {number}"), 5)
        assert load_annotations(repository).of(snapshot).comment == f"later {number}"


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"version": 2}, NewerFormat),
        ({"time": "now"}, Damaged),
        ({"changes": []}, Damaged),
        ({"changes": {"add": "a"}}, Damaged),
        ({"changes": {"add": [1]}}, Damaged),
        ({"changes": {"pin": True}}, Damaged),
        ({"changes": {"pin": {"until": "x"}}}, Damaged),
        ({"changes": {"comment": 5}}, Damaged),
    ],
)
def test_a_note_that_cannot_be_read_protects_its_snapshot(changes: dict[str, object], error: type[Exception]) -> None:
    good: dict[str, object] = {"version": 1, "time": 1, "changes": {"add": ["a"]}}
    with pytest.raises(error):
        Note.decode("notes/x", encode_document(good | changes))
    repository = new_repository()
    snapshot, other = back_up(repository, TREE), back_up(repository, TREE)
    annotate(repository, snapshot.id, Changes(add=("kept",)), 1)
    repository.put_object(ObjectKind.MARK, f"{NOTES_PREFIX}{snapshot.id}/{0:032x}", encode_document(good | changes))
    found = load_annotations(repository)
    assert found.of(snapshot).protections(0) == ("notes unreadable",) and found.of(snapshot).tags == {"kept"}
    assert found.of(other).protections(0) == ()
