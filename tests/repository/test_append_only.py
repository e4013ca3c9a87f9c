"""Writers that cannot delete, seen by a prune that can, and stores that lock what is deleted."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from model.errors import Missing, Refused, RunFailed, StoreError
from repository import session_state
from repository.condemned import Reason, condemn, load_condemned
from repository.deleting import HINT
from repository.index import ChunkIndex
from repository.prune import prune
from repository.reliance import Reliance, commit
from repository.repair import repair
from repository.repository import Repository
from repository.seal import ObjectKind
from repository.session_state import DEAD_AFTER, SESSION_PREFIX, End, load_sessions, presume_dead
from repository.sessions import Session, open_session
from repository.snapshot import load_all
from repository.store import LocalStore, MemoryStore, Store
from repository.store.objects import translated
from repository.store.wrappers import Fault, FaultyStore
from repository.sweep import look_around, only_look
from repository.trash import forget, load_trash, purge
from tests.repository.prunes import ALL, LAZY, Home
from tests.repository.samples import back_up, new_repository

TREE = {b"data": None, b"data/file": b"content" * 50}


def appending(repository: Repository) -> Repository:
    """The same for somebody who cannot delete."""
    store = FaultyStore(repository.store, [Fault("delete", error=Refused("store failed", why="append only"))])
    return Repository(store, repository.config, repository.keys)


@contextmanager
def elsewhere() -> Iterator[None]:
    """Sessions made here are of a host that cannot be asked."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session_state, "_place", lambda: "another boot")
        yield


def ends(repository: Repository) -> list[End | None]:
    return sorted((state.end for state in load_sessions(repository)), key=lambda end: end or "")


def test_a_session_of_another_host_that_cannot_delete_ends_when_it_says_so() -> None:
    home = Home(MemoryStore())
    home.pass_by(gone=b"g" * 300)
    writer = appending(home.repository)
    with elsewhere(), open_session(writer, "backup") as session:
        session.renew()
        with pytest.raises(Refused, match="lox prune has to delete"):
            session.require_deletes("lox prune")
    assert ends(home.repository) == [None, None, None, End.DONE]
    assert only_look(home.repository, 1 << 62).live == []
    report = prune(home.repository, LAZY)
    assert report.waiting_for == [] and report.deleted > 0
    assert load_sessions(home.repository) == []


@pytest.mark.parametrize("has_stored", [False, True])
def test_what_a_failed_run_of_it_stored_is_kept_for_a_while(has_stored: bool) -> None:
    home = Home(MemoryStore())
    writer = appending(home.repository)
    with pytest.raises(StoreError, match="no more"), elsewhere(), open_session(writer, "backup") as session:
        session.has_stored = has_stored
        raise StoreError("no more")
    assert ends(home.repository) == [None, None, End.UNFINISHED if has_stored else End.DONE]
    assert len(only_look(home.repository, 1 << 62).unfinished) == has_stored
    with open_session(home.repository, "prune") as session:
        others = look_around(home.repository, session, 1 << 62)
        assert others.live == [] and [state.end for state in others.unfinished] == [End.UNFINISHED] * has_stored
    assert ends(home.repository) == [End.UNFINISHED] * has_stored


def test_while_it_lasts_it_holds_up_what_it_has_not_read_and_nothing_else() -> None:
    """Its first object, which it cannot delete, says that it has read no mark and began at no time."""
    repository = new_repository(store=MemoryStore())
    (known,) = condemn(repository, [os.urandom(16)], Reason.UNUSED, 1)
    with elsewhere():
        writer = Session(appending(repository), "backup")
    (unknown,) = condemn(repository, [os.urandom(16)], Reason.UNUSED, 2)
    assert len(load_sessions(repository)) == 2
    with open_session(repository, "prune") as session:
        for others in (look_around(repository, session), only_look(repository, 0)):
            (state,) = [state for state in others.live if state.id == writer.id]
            assert state.knows(frozenset([known.name])) and not state.knows(frozenset([unknown.name]))
            assert state.since == writer._state.since
    assert writer.held(), "nobody took it for ended"


def test_the_word_of_others_ends_nothing() -> None:
    """One who presumes a session dead writes first and deletes then: between the two, a third must not take it for
    ended by its own word."""
    repository = new_repository()
    with elsewhere():
        writer = Session(repository, "backup")
    (state,) = load_sessions(repository)
    name = f"{SESSION_PREFIX}{state.id}/{'0' * 32}"
    repository.put_object(ObjectKind.MARK, name, replace(state, end=End.PRESUMED).encode())
    with open_session(repository, "prune") as session:
        assert [each.id for each in look_around(repository, session, 0).live] == [writer.id]
    assert writer.held()


def test_a_crash_while_it_is_cleared_away_leaves_its_last_word() -> None:
    repository = new_repository()
    with elsewhere(), open_session(appending(repository), "backup"):
        pass
    for skip in range(2):
        store = FaultyStore(repository.store, [Fault("delete", SESSION_PREFIX, StoreError("crash"), skip=skip)])
        crashing = Repository(store, repository.config, repository.keys)
        mine = Session(repository, "prune")
        with pytest.raises(StoreError, match="crash"):
            look_around(crashing, mine, 0)
        mine.close()
        assert End.DONE in ends(repository)


def test_one_that_was_killed_is_presumed_dead_with_all_it_left(tmp_path: Path) -> None:
    repository = new_repository(store=LocalStore(str(tmp_path)))
    with elsewhere():
        killed = Session(appending(repository), "backup")
    states = load_sessions(repository)
    assert len(states) == 2
    old = time.time() - 2 * DEAD_AFTER / 1e9
    for state in states:
        os.utime(tmp_path / state.name, (old, old))
    with open_session(repository, "prune") as session:
        others = look_around(repository, session, 1 << 62)
    assert others.live == [] and [state.end for state in others.unfinished] == [End.PRESUMED]
    assert others.unfinished[0].since == killed._state.since, "so that what it stored can be told"
    assert ends(repository) == [End.PRESUMED]


def test_forgetting_without_deleting_is_no_forgetting() -> None:
    repository = new_repository()
    snapshot = back_up(repository, TREE)
    with pytest.raises(Refused, match="forgetting has to delete") as caught:
        forget(appending(repository), snapshot.id, "test", 1)
    assert "stays" in caught.value.hint
    assert [one.id for one in load_all(repository)] == [one.id for one in load_trash(repository)] == [snapshot.id]
    assert purge(repository, 0, time.time_ns()) == [snapshot.id]
    assert [one.id for one in load_all(repository)] == [snapshot.id] and load_trash(repository) == []


def test_repair_says_so_before_it_does_anything() -> None:
    repository = new_repository()
    back_up(repository, TREE)
    repository.store.put("gc/condemned/" + "0" * 32, [b"nonsense"])
    before = {name for name, _ in repository.store.list() if not name.startswith(SESSION_PREFIX)}
    with pytest.raises(Refused, match="lox repair has to delete") as caught:
        repair(appending(repository), apply=True)
    assert caught.value.hint == HINT
    assert before == {name for name, _ in repository.store.list() if not name.startswith(SESSION_PREFIX)}


def test_what_it_cannot_take_back_is_named() -> None:
    repository = new_repository()
    snapshot = back_up(repository, TREE)
    writer = appending(repository)
    session = Session(writer, "backup")
    reliance = Reliance(ChunkIndex.load(repository, None, only_present=True))
    reliance.contains(reliance._index.tables[0].ids)

    def save() -> tuple[None, str]:
        presume_dead(repository, session.id, load_sessions(repository))
        condemn(repository, reliance.packs(), Reason.UNUSED, 1)
        return None, snapshot.name

    with pytest.raises(RunFailed, match="cannot delete it") as caught:
        commit(session, reliance, writer, save)
    assert caught.value.subject == snapshot.name and "presumed dead" in caught.value.why


def test_packs_that_the_store_locks_are_deleted_by_a_later_run() -> None:
    home = Home(MemoryStore())
    home.pass_by(a=b"a" * 300)
    home.pass_by(b=b"b" * 300)
    sound = home.repository.store
    locked = sorted(home.packs())[:1]
    home.repository.store = FaultyStore(sound, [Fault("delete", locked[0], Refused("store failed", why="locked"))])
    report = prune(home.repository, ALL)
    assert report.deleted > 0 and report.locked == report.waiting == 1 and sorted(home.packs()) == locked
    with pytest.raises(Refused, match="refuses what pruning needs"):  # all there is to delete
        prune(home.repository, ALL)
    assert len(load_condemned(home.repository)) == 1
    home.repository.store = sound
    report = prune(home.repository, ALL)
    assert report.deleted == 1 and report.locked == 0 and not report.kept_deleted
    assert home.packs() == {} and load_condemned(home.repository) == []


def test_a_deleted_object_takes_its_second_name_with_it(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    store.put("packs/aa/one", [b"1" * 5000])
    store.put("packs/aa/two", [b"2"])
    folder = tmp_path / "packs" / "aa"
    os.link(folder / "one", folder / ".tmp-0123456789abcdef")
    (folder / ".tmp-of-another").write_bytes(b"being written")
    store.delete("packs/aa/one")
    assert {path.name for path in folder.iterdir()} == {"two", ".tmp-of-another"}


class GenericError(Exception):
    """As obstore names what it has no other name for."""


LISTED = "Generic S3 error: DeleteObjects request failed for key r/a: No (code: {})\n\nDebug source:\n ..."


@pytest.mark.parametrize(
    ("text", "kind", "why"),
    [
        (LISTED.format("AccessDenied"), Refused, "AccessDenied"),
        (LISTED.format("SlowDown"), StoreError, "SlowDown"),
        (LISTED.format("SomethingNew"), StoreError, "SomethingNew"),
        (LISTED.format("403"), Refused, "HTTP 403"),
        (LISTED.format("404"), Missing, "HTTP 404"),
        ("status code: 409 <Code>BlobImmutableDueToPolicy</Code>", Refused, "HTTP 409 BlobImmutableDueToPolicy"),
    ],
)
def test_what_a_server_says_of_one_of_a_list(text: str, kind: type[StoreError], why: str) -> None:
    error = translated(GenericError(text), "a")
    assert isinstance(error, kind) and error.why == why
    assert type(error).__name__ == {"SlowDown": "Transient", "SomethingNew": "StoreError"}.get(why, kind.__name__)


def test_stores_without_versions_say_so(tmp_path: Path) -> None:
    stores: list[Store] = [MemoryStore(), LocalStore(str(tmp_path))]
    for store in stores:
        store.put("config", [b"x"])
        assert store.keeps_deleted("config") is False and store.rules_for_deleted() == ""
