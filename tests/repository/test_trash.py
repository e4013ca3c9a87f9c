"""Forgetting and bringing back, stopped at every step: the snapshot is always somewhere, and again means done."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from model.errors import Damaged, Missing, NewerFormat, NotFound, StoreError, UsageError
from repository.annotations import Changes, Pin, annotate, load_annotations
from repository.check import check
from repository.documents import decode_document, encode_document
from repository.repository import Repository
from repository.seal import ObjectKind
from repository.snapshot import Snapshot, load_all
from repository.store import LocalStore, MemoryStore
from repository.store.wrapped import WrappedStore
from repository.store.wrappers import Fault, FaultyStore
from repository.trash import TRASH_PREFIX, choose_trashed, forget, load_live, load_trash, purge, undelete
from tests.repository.samples import back_up, content_of, new_repository
from tests.repository.test_annotations import overwrite

TREE = {b"data": None, b"data/file": b"content" * 50}
DAY = 86_400 * 10**9
NOW = 1_800_000_000 * 10**9


def bring_back(repository: Repository, snapshot_id: str) -> None:
    for one in load_trash(repository):
        if one.id == snapshot_id:
            undelete(repository, one)


def places(repository: Repository, snapshot_id: str) -> tuple[bool, bool]:
    """Whether it is in its place, and whether it is in the trash."""
    here = any(one.id == snapshot_id for one in load_all(repository))
    return here, any(one.id == snapshot_id for one in load_trash(repository))


def test_a_forgotten_snapshot_comes_back_as_it_was() -> None:
    repository = new_repository()
    first, second = back_up(repository, TREE, tags=("a",)), back_up(repository, TREE | {b"data/more": b"x"})
    forget(repository, first.id, "policy", NOW)
    assert [one.id for one in load_all(repository)] == [second.id]
    (trashed,) = load_trash(repository)
    assert (trashed.id, trashed.time, trashed.rule, trashed.snapshot) == (first.id, NOW, "policy", first)
    assert check(repository, "data").findings == [] and check(repository).notes == []
    assert undelete(repository, trashed)
    assert load_trash(repository) == [] and first in load_all(repository)
    assert content_of(repository, first, b"data/file") == TREE[b"data/file"]
    with pytest.raises(Missing):
        forget(repository, "0" * 32, "by name", NOW)


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize(
    ("step", "verb"), [("forget", "put"), ("forget", "delete"), ("undelete", "put"), ("undelete", "delete")]
)
def test_wherever_it_is_stopped_the_snapshot_is_somewhere_and_again_finishes(step: str, verb: str, late: bool) -> None:
    repository = new_repository()
    snapshot = back_up(repository, TREE)

    def action() -> None:
        if step == "forget":
            forget(repository, snapshot.id, "policy", NOW)
        else:
            bring_back(repository, snapshot.id)

    goal = (False, True)
    if step == "undelete":
        forget(repository, snapshot.id, "policy", NOW)
        goal = (True, False)
    sound = repository.store
    repository.store = FaultyStore(sound, [Fault(verb, error=StoreError("cut off"), late=late, times=1)])
    with pytest.raises(StoreError):
        action()
    repository.store = sound
    assert any(places(repository, snapshot.id))
    assert [one.id for one in load_live(repository)] == [snapshot.id]
    try:
        action()
    except Missing:  # the interrupted one had got to the end
        assert places(repository, snapshot.id) == goal
    assert places(repository, snapshot.id) == goal
    bring_back(repository, snapshot.id)
    assert load_all(repository) == [snapshot]


SCRIPT = """
import os, signal, sys
from repository.repository import Repository
from repository.store import LocalStore
from repository.store.wrapped import WrappedStore
from repository.trash import forget, load_trash, undelete
path, what, snapshot, steps = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
class Dying(WrappedStore):
    left = steps
    def _count(self):
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self.left -= 1
    def put(self, name, parts):
        self._count()
        super().put(name, parts)
    def delete(self, name):
        self._count()
        super().delete(name)
repository = Repository.open(LocalStore(path), None)
repository.store = Dying(repository.store)
if what == "forget":
    forget(repository, snapshot, "policy", 1)
else:
    undelete(repository, load_trash(repository)[0])
"""


def test_sigkill_between_the_steps(tmp_path: Path) -> None:
    repository = new_repository(encrypted=False, store=LocalStore(str(tmp_path / "repository")))
    snapshot = back_up(repository, TREE)
    killed = 0
    for what, goal in (("forget", (False, True)), ("undelete", (True, False))):
        for steps in range(9):
            command = [sys.executable, "-c", SCRIPT, str(tmp_path / "repository"), what, snapshot.id, str(steps)]
            ended = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
            assert any(places(repository, snapshot.id))
            if ended.returncode == 0:
                break
            assert ended.returncode == -signal.SIGKILL, ended.stderr
            killed += 1
        assert places(repository, snapshot.id) == goal
    assert killed >= 4
    assert content_of(repository, snapshot, b"data/file") == TREE[b"data/file"]


class Meddling(WrappedStore):
    """Does something else just before one delete, as another process might."""

    def __init__(self, inner: object, prefix: str, meddle: Callable[[], None]) -> None:
        super().__init__(inner)  # type: ignore[arg-type]
        self.prefix, self.meddle = prefix, meddle

    def delete(self, name: str) -> None:
        if name.startswith(self.prefix) and self.prefix:
            self.prefix = ""
            self.meddle()
        super().delete(name)


@pytest.mark.parametrize("first", ["forget", "undelete"])
def test_forgetting_and_bringing_back_at_once_loses_nothing(first: str) -> None:
    repository = new_repository()
    snapshot = back_up(repository, TREE)
    inner = repository.store
    if first == "forget":
        repository.store = Meddling(inner, "snapshots/", lambda: bring_back(repository, snapshot.id))
        forget(repository, snapshot.id, "policy", NOW)
    else:
        forget(repository, snapshot.id, "policy", NOW)
        repository.store = Meddling(inner, "trash/", lambda: forget(repository, snapshot.id, "policy", NOW))
        bring_back(repository, snapshot.id)
    repository.store = inner
    assert any(places(repository, snapshot.id))
    bring_back(repository, snapshot.id)
    assert load_all(repository) == [snapshot]


def test_live_snapshots_are_found_while_they_are_moved() -> None:
    """Listed in one place before it moves, and in the other after it has: it must be found all the same."""
    repository = new_repository()
    snapshot = back_up(repository, TREE)

    class Moving(WrappedStore):
        def list(self, prefix: str = ""):  # type: ignore[no-untyped-def]
            found = list(super().list(prefix))
            repository.store = inner
            if prefix == "snapshots/":
                forget(repository, snapshot.id, "policy", NOW) if found else bring_back(repository, snapshot.id)
            repository.store = self
            return iter(found)

    inner = repository.store
    for _ in range(2):
        repository.store = Moving(inner)
        assert [one.id for one in load_live(repository)] == [snapshot.id]
        repository.store = inner


def test_forgetting_twice_brings_back_one_and_the_last_time_counts() -> None:
    repository = new_repository()
    snapshot = back_up(repository, TREE)
    document = repository.get_object(ObjectKind.SNAPSHOT, snapshot.name)
    forget(repository, snapshot.id, "first", NOW)
    repository.put_object(ObjectKind.SNAPSHOT, snapshot.name, document)  # as after an interruption a month ago
    forget(repository, snapshot.id, "second", NOW + 30 * DAY)
    (trashed,) = load_trash(repository)
    assert (trashed.time, trashed.rule, len(trashed.names)) == (NOW + 30 * DAY, "second", 2)
    assert purge(repository, 7 * DAY, NOW + 31 * DAY) == []
    assert undelete(repository, trashed) and load_trash(repository) == []


def test_purging_removes_what_is_old_enough_and_its_notes() -> None:
    repository = new_repository()
    old, young, live = (back_up(repository, TREE) for _ in range(3))
    for snapshot in (old, young, live):
        annotate(repository, snapshot.id, Changes(comment="x"), NOW)
    forget(repository, old.id, "policy", NOW)
    forget(repository, young.id, "policy", NOW + 5 * DAY)
    assert purge(repository, 7 * DAY, NOW + 7 * DAY - 1) == []
    assert purge(repository, 7 * DAY, NOW + 7 * DAY) == [old.id]
    assert [one.id for one in load_trash(repository)] == [young.id]
    assert set(load_annotations(repository).notes) == {young.id, live.id}
    assert purge(repository, 0, NOW + 5 * DAY) == [young.id]


def test_purging_believes_the_store_rather_than_a_clock_that_stood_at_1970(tmp_path: Path) -> None:
    repository = new_repository(store=LocalStore(str(tmp_path / "repository")))
    snapshot = back_up(repository, TREE)
    forget(repository, snapshot.id, "policy", 1)
    written = max(
        os.stat(path).st_mtime_ns for path in (tmp_path / "repository" / "trash").rglob("*") if path.is_file()
    )
    assert purge(repository, 7 * DAY, written + DAY) == []
    assert purge(repository, 7 * DAY, written + 8 * DAY) == [snapshot.id]


def test_a_leftover_of_a_live_snapshot_is_purged_without_its_notes() -> None:
    repository = new_repository()
    snapshot = back_up(repository, TREE)
    document = repository.get_object(ObjectKind.SNAPSHOT, snapshot.name)
    annotate(repository, snapshot.id, Changes(add=("a",)), NOW)
    forget(repository, snapshot.id, "policy", NOW)
    repository.put_object(ObjectKind.SNAPSHOT, snapshot.name, document)
    assert purge(repository, 0, NOW) == [snapshot.id]
    assert load_all(repository) == [snapshot] and load_annotations(repository).of(snapshot).tags == {"a"}


@pytest.mark.parametrize("changes", [Changes(pin=Pin()), Changes(pin=Pin(NOW + 1)), Changes(hold=("audit",))])
def test_pinned_and_held_snapshots_are_not_forgotten(changes: Changes) -> None:
    repository = new_repository()
    snapshot = back_up(repository, TREE)
    annotate(repository, snapshot.id, changes, NOW)
    with pytest.raises(UsageError):
        forget(repository, snapshot.id, "by name", NOW)
    assert places(repository, snapshot.id) == (True, False)
    annotate(repository, snapshot.id, Changes(pin=False, release=("audit",)), NOW)
    forget(repository, snapshot.id, "by name", NOW)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"version": 2}, NewerFormat),
        ({"snapshot": "zz"}, Damaged),
        ({"snapshot": "7b7d"}, Damaged),
        ({"time": None}, Damaged),
    ],
)
def test_trash_that_cannot_be_read_is_not_taken_for_empty(change: dict[str, object], error: type[Exception]) -> None:
    repository = new_repository()
    snapshot, other = back_up(repository, TREE), back_up(repository, TREE)
    forget(repository, snapshot.id, "policy", NOW)
    forget(repository, other.id, "policy", NOW)
    name = next(name for name, _ in repository.store.list(f"{TRASH_PREFIX}{snapshot.id}/"))
    document = decode_document(repository.get_object(ObjectKind.MARK, name), name, 1 << 20)
    overwrite(repository, name, encode_document(document | change))
    with pytest.raises(error):
        load_trash(repository)
    with pytest.raises(error):
        load_live(repository)
    told: list[str] = []
    assert [one.id for one in load_trash(repository, lambda name, _: told.append(name))] == [other.id]
    assert told == [name]
    assert purge(repository, 0, NOW) == [other.id]
    assert repository.store.exists(name), "what cannot be read is not thrown away"


def test_another_snapshot_under_the_same_id_is_not_overwritten() -> None:
    repository = new_repository()
    snapshot = back_up(repository, TREE)
    forget(repository, snapshot.id, "policy", NOW)
    repository.put_object(ObjectKind.SNAPSHOT, snapshot.name, snapshot._replace(host="evil").encode())
    with pytest.raises(Damaged):
        bring_back(repository, snapshot.id)
    assert places(repository, snapshot.id) == (True, True)


def test_choosing_from_the_trash() -> None:
    repository = new_repository()
    ids = [back_up(repository, TREE).id for _ in range(2)]
    for snapshot_id in ids:
        forget(repository, snapshot_id, "policy", NOW)
    trash = load_trash(repository)
    assert choose_trashed(trash, ids[0][:12].upper()).id == ids[0]
    for wanted in ("", "zz"):
        with pytest.raises(NotFound):
            choose_trashed(trash, wanted)


def test_memory_tells_no_times_and_local_files_do(tmp_path: Path) -> None:
    memory, local = MemoryStore(), LocalStore(str(tmp_path))
    for store in (memory, local):
        store.put("config", [b"x"])
    assert memory.written("config") is None
    assert local.written("config") == os.stat(tmp_path / "config").st_mtime_ns
    assert WrappedStore(local).written("config") == local.written("config")
    with pytest.raises(Missing):
        local.written("keys/none")


def test_snapshots_of_the_samples_are_equal_after_a_round_trip() -> None:
    repository = new_repository()
    snapshot = back_up(repository, TREE, extra={"later": [1]})
    assert Snapshot.decode(snapshot.id, snapshot.encode()) == snapshot
    forget(repository, snapshot.id, "policy", NOW)
    assert load_trash(repository)[0].snapshot.extra == {"later": [1]}
