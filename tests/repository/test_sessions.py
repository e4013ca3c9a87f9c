"""Sessions: seen while they last, told apart from dead ones, and fenced off before anything is deleted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from model.errors import Damaged, Refused, RunFailed, StoreError
from repository import session_state as states
from repository.condemned import Reason, condemn
from repository.index import ChunkIndex, save_index
from repository.pack import pack_name
from repository.reliance import Reliance, commit
from repository.repository import Repository
from repository.session_state import DEAD_AFTER, SESSION_PREFIX, load_sessions, presume_dead, seems_dead
from repository.sessions import Session, open_session, reading_session
from repository.snapshot import Snapshot, load_all
from repository.store import Bytes, LocalStore, Store
from repository.store.wrapped import WrappedStore
from repository.store.wrappers import Fault, FaultyStore
from repository.sweep import look_around
from tests.repository.samples import back_up, new_repository, random_ids, receipt_of

PACK = os.urandom(16)


def names(repository: Repository) -> list[str]:
    return [name for name, _ in repository.store.list(SESSION_PREFIX)]


def test_a_session_is_seen_while_it_lasts_and_says_which_marks_it_has_read() -> None:
    repository = new_repository()
    (mark,) = condemn(repository, [PACK], Reason.UNUSED, 1)
    with open_session(repository, "backup") as session:
        (state,) = load_sessions(repository)
        assert (state.id, state.purpose, state.who.pid) == (session.id, "backup", os.getpid())
        assert state.knows(frozenset([mark.name])) and session.condemned == {PACK}
        later = condemn(repository, [PACK], Reason.UNUSED, 2)[0]
        assert not load_sessions(repository)[0].knows(frozenset([later.name]))
        session.read_marks()
        assert load_sessions(repository)[0].knows(frozenset([later.name]))
        assert len(names(repository)) == 1, "renewing leaves one object"
        assert not seems_dead(repository, state, None) and session.held()
    assert names(repository) == []


def test_it_is_renewed_by_itself_and_a_store_that_is_away_for_a_while_does_no_harm() -> None:
    repository = new_repository()
    sound = repository.store
    repository.store = FaultyStore(sound, [Fault("put", SESSION_PREFIX, StoreError("away"), skip=3, times=2)])
    with open_session(repository, "backup", every=0.01) as session:
        first, deadline = session.name, time.monotonic() + 120
        seen = {first}
        while len(seen) < 5 and time.monotonic() < deadline:
            seen.add(session.name)
            time.sleep(0.005)
        assert len(seen) == 5 and session.held()
    assert names(repository) == []


@pytest.mark.parametrize("stored", [False, True])
def test_what_a_failed_run_stored_is_remembered(stored: bool) -> None:
    repository = new_repository()
    with pytest.raises(StoreError), open_session(repository, "backup") as session:
        session.has_stored = stored
        raise StoreError("no more")
    assert [state.ended for state in load_sessions(repository)] == [True] * stored


def test_who_may_not_write_reads_without_a_session() -> None:
    repository = new_repository()
    repository.store = FaultyStore(repository.store, [Fault("put", error=Refused("read-only"))])
    with reading_session(repository, "restore") as session:
        assert session is None
    with pytest.raises(Refused), open_session(repository, "backup"):
        raise AssertionError("not reached")


def test_with_a_damaged_mark_nothing_is_written_and_no_session_is_left() -> None:
    repository = new_repository()
    repository.store.put("gc/condemned/" + "0" * 32, [b"nonsense"])
    with pytest.raises(Damaged), open_session(repository, "backup"):
        raise AssertionError("not reached")
    assert names(repository) == []
    with reading_session(repository, "restore") as session:
        assert session is not None and session.condemned == frozenset()
    assert names(repository) == []


def test_credentials_that_cannot_delete_leave_objects_and_no_doubt() -> None:
    repository = new_repository()
    repository.store = FaultyStore(repository.store, [Fault("delete", error=Refused("append only"))])
    with open_session(repository, "backup") as session:
        session.renew()
        assert session.held() and len(names(repository)) == 3


def sleeper(path: Path) -> subprocess.Popen[str]:
    code = (
        "import sys, time\n"
        "from repository.repository import Repository\nfrom repository.sessions import open_session\n"
        "from repository.store import LocalStore\n"
        "with open_session(Repository.open(LocalStore(sys.argv[1]), None), 'backup'):\n"
        "    print('on', flush=True)\n    time.sleep(60)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None and child.stdout.readline() == "on\n"
    return child


def test_a_killed_process_of_this_host_is_dead_at_once_a_stopped_one_is_not(tmp_path: Path) -> None:
    repository = new_repository(encrypted=False, store=LocalStore(str(tmp_path)))
    child = sleeper(tmp_path)
    try:
        (state,) = load_sessions(repository)
        child.send_signal(signal.SIGSTOP)
        far_ahead = time.time_ns() + 10 * DEAD_AFTER
        assert not seems_dead(repository, state, far_ahead), "it may go on at any time"
    finally:
        child.kill()
        child.wait()
    assert seems_dead(repository, state, None)
    assert presume_dead(repository, state.id, [state])
    assert [each.ended for each in load_sessions(repository)] == [True], "what it stored may be used by the next run"


def test_another_host_is_dead_once_the_store_has_not_heard_of_it_for_long(tmp_path: Path) -> None:
    repository = new_repository(store=LocalStore(str(tmp_path)))
    session = elsewhere(repository)
    (state,) = load_sessions(repository)
    written = repository.store.written(state.name)
    assert written is not None
    assert not seems_dead(repository, state, written + DEAD_AFTER)
    assert seems_dead(repository, state, written + DEAD_AFTER + 1)
    assert not seems_dead(repository, state, None), "without a clock to trust nobody is presumed dead"
    session.close()


def test_what_cannot_be_read_of_a_session_keeps_it_alive_only_as_long_as_what_can(tmp_path: Path) -> None:
    """A renewal that was cut off, beside the object it was to replace."""
    repository = new_repository(encrypted=False, store=LocalStore(str(tmp_path)))
    child = sleeper(tmp_path)
    try:
        (state,) = load_sessions(repository)
        repository.store.put(f"{SESSION_PREFIX}{state.id}/{'0' * 32}", [b"torn"])
        with open_session(repository, "prune") as prune:
            assert {each.id for each in look_around(repository, prune).live} == {state.id}, "its process runs"
    finally:
        child.kill()
        child.wait()
    with open_session(repository, "prune") as prune:
        assert look_around(repository, prune).live == []
        assert [each.ended for each in load_sessions(repository) if each.id == state.id] == [True]


def test_a_session_of_which_nothing_can_be_read_is_dead_once_the_store_has_not_heard_of_it(tmp_path: Path) -> None:
    repository = new_repository(store=LocalStore(str(tmp_path)))
    name = f"{SESSION_PREFIX}{'ab' * 16}/{'0' * 32}"
    repository.store.put(name, [b"torn"])
    with open_session(repository, "prune") as prune:
        assert [each.name for each in look_around(repository, prune).live] == [name]
        long_ago = time.time() - 2 * DEAD_AFTER / 1e9
        os.utime(tmp_path / name, (long_ago, long_ago))
        assert look_around(repository, prune).live == []
        assert not repository.store.exists(name)


def elsewhere(repository: Repository) -> Session:
    """A session of a host that cannot be asked."""
    place, states._place = states._place, lambda: "another boot"
    try:
        return Session(repository, "backup")
    finally:
        states._place = place


class Turns(WrappedStore):
    """Lets somebody else act before the operation of a given number."""

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self.turn = -1
        self.act: Iterator[None] | None = None

    def _count(self) -> None:
        if self.turn == 0 and self.act is not None:
            act, self.act = self.act, None
            for _ in act:
                pass
        self.turn -= 1

    def put(self, name: str, parts: Sequence[Bytes]) -> None:
        self._count()
        super().put(name, parts)

    def delete(self, name: str) -> None:
        self._count()
        super().delete(name)

    def size(self, name: str) -> int:
        self._count()
        return super().size(name)

    def list(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        self._count()
        return super().list(prefix)

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        self._count()
        return super().get(name, offset, length)


def meet(turn: int, renewing: bool) -> tuple[bool, bool, bool]:
    """A writer that relies on a pack renews its session and commits; before its store operation number `turn` somebody
    presumes it dead and deletes the pack. Whether it committed, whether the pack is there, whether that came up."""
    repository = new_repository(encrypted=False)
    receipt = receipt_of(random_ids(8))
    save_index(repository, [receipt])
    pack = pack_name(receipt.pack_id)
    repository.store.put(pack, [bytes(receipt.pack_size)])
    turns = Turns(repository.store)
    writer = Repository(turns, repository.config, repository.keys)
    session = Session(writer, "backup")
    reliance = Reliance(ChunkIndex.load(writer, None, only_present=True))
    assert reliance.contains(receipt.ids).all()
    base = back_up(new_repository(encrypted=False), {b"x": b""})

    def collect() -> Iterator[None]:
        if presume_dead(repository, session.id, load_sessions(repository)) and not load_all(repository):
            repository.store.delete(pack)
        yield

    def save() -> tuple[Snapshot, str]:
        saved = base.save(writer)
        return saved, saved.name

    turns.turn, turns.act = turn, collect()
    try:
        if renewing:
            session.renew()
        commit(session, reliance, writer, save)
        committed = True
    except RunFailed:
        committed = False
    assert committed == any(True for _ in repository.store.list("snapshots/"))
    return committed, repository.store.exists(pack), turns.act is None


@pytest.mark.parametrize("renewing", [False, True])
def test_whenever_it_is_presumed_dead_either_side_notices(renewing: bool) -> None:
    outcomes = {meet(turn, renewing) for turn in range(24)}
    assert (True, False, True) not in outcomes, "committed without what it relies on"
    assert {(False, False, True), (True, True, True)} <= outcomes


def test_a_session_presumed_dead_by_mistake_commits_if_all_it_relies_on_is_there() -> None:
    repository = new_repository()
    snapshot = back_up(repository, {b"data": None, b"data/file": b"content" * 50})
    session = Session(repository, "backup")
    reliance = Reliance(ChunkIndex.load(repository, None, only_present=True))
    reliance.contains(reliance._index.tables[0].ids)
    assert presume_dead(repository, session.id, load_sessions(repository)) and not session.held()
    saved = commit(session, reliance, repository, lambda: (snapshot, snapshot.name))
    assert saved == snapshot and session.held()
    pack = next(iter(reliance.packs()))
    presume_dead(repository, session.id, load_sessions(repository))
    condemn(repository, [pack], Reason.UNUSED, 1)
    with pytest.raises(RunFailed, match="presumed dead"):
        commit(session, reliance, repository, lambda: (snapshot, snapshot.name))
