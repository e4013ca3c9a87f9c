"""prune beside others at work, after runs that died, on stores and repositories with trouble of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import pytest

from model.errors import Damaged, Interrupted, LoxError, NewerFormat, Refused, RunFailed, StoreError, StoreFull
from repository import rewrite
from repository.condemned import Reason, condemn, condemned_packs, load_condemned
from repository.config import Config, Operation
from repository.documents import decode_document, encode_document
from repository.index import ChunkIndex
from repository.pack import pack_name
from repository.prune import PrunePolicy, prune
from repository.repository import Repository
from repository.seal import ObjectKind
from repository.session_state import DEAD_AFTER, load_sessions
from repository.sessions import Session, open_session
from repository.snapshot import load_all
from repository.store import Bytes, LocalStore, MemoryStore, Store
from repository.store.wrapped import WrappedStore
from repository.store.wrappers import Fault, FaultyStore, RecordingStore
from tests.repository.prunes import ALL, LAZY, Home, bytes_of, flipped, replace
from tests.repository.test_sessions import elsewhere

T = TypeVar("T")
DAY = 86_400 * 10**9
KEEPING = PrunePolicy(max_unused=0.0, trash=0, unfinished=DAY)


def wasteful(store: Store | None = None) -> Home:
    """One pack needed, one in part, one not at all, and what belongs to them."""
    home = Home(store, encrypted=False)
    home.pass_by(a=bytes_of(1, 20), b=bytes_of(2, 20))
    home.keep(a=bytes_of(1, 20)[:1500])
    home.keep(c=bytes_of(3, 12))
    home.pass_by(d=bytes_of(4, 20))
    return home


class Aged(WrappedStore):
    """The store of some time later: what was in it at the beginning is as old as that."""

    def __init__(self, inner: Store, by: int = 3600 * 10**9, clock: int = 0) -> None:
        super().__init__(inner)
        self._old = {name for name, _ in inner.list()}
        self._by = by
        self._clock = clock

    def written(self, name: str) -> int | None:
        found = super().written(name)
        assert found is not None
        return found - (self._by if name in self._old else 0) + self._clock


# Others at work


def test_nothing_is_deleted_that_a_session_may_rely_on_and_it_is_named(tmp_path: Path) -> None:
    home = wasteful(LocalStore(str(tmp_path)))
    home.repository.store = Aged(home.repository.store)
    session = elsewhere(home.repository)
    before = home.packs()
    report = prune(home.repository, ALL)
    assert report.deleted == 0 and before.keys() <= home.packs().keys()
    assert report.waiting == report.unused + report.rewritten > 3
    assert report.waiting_bytes == sum(before[pack_name(pack)] for pack in condemned_packs(home.repository))
    (who,) = report.waiting_for
    assert "backup on " in who and f"process {os.getpid()}" in who
    home.verify()
    told = prune(home.repository, ALL, dry_run=True)
    assert (told.deleted, told.waiting, told.waiting_for) == (0, report.waiting, [who])
    session.read_marks()  # now it relies on none of these
    assert prune(home.repository, ALL).deleted == report.waiting
    assert prune(home.repository, ALL).waiting_for == [], "nothing waits"
    session.close()
    home.verify_lean()


def test_what_is_needed_after_all_is_out_of_the_marks_at_once(tmp_path: Path) -> None:
    home = Home(LocalStore(str(tmp_path)), encrypted=False)
    session = elsewhere(home.repository)  # it will not have read the mark
    home.keep(a=bytes_of(1, 20))
    needed = [bytes.fromhex(name.rpartition("/")[2]) for name in home.packs()]
    condemn(home.repository, needed, Reason.UNUSED, 1)
    for expected in (len(needed), 0):
        assert prune(home.repository, LAZY).rescued == expected
        assert load_condemned(home.repository) == []
    session.close()
    home.verify_lean()


def test_a_dry_run_tells_dead_from_living(tmp_path: Path) -> None:
    home = wasteful(LocalStore(str(tmp_path)))
    dead_backup(tmp_path, stores=False)
    home.repository.store = Aged(home.repository.store)
    told, before = prune(home.repository, KEEPING, dry_run=True), home.objects()
    done = prune(home.repository, KEEPING)
    assert (told.deleted, told.unused, told.unfinished, told.waiting_for) == (done.deleted, done.unused, 0, [])
    assert done.deleted > 0 and before


def test_of_two_prunes_one_says_so(tmp_path: Path) -> None:
    home = wasteful(LocalStore(str(tmp_path)))
    before = home.objects()
    for purpose in ("prune", "repair"):
        with (
            open_session(home.repository, purpose),
            pytest.raises(RunFailed, match=f"another one is at work.*: {purpose} on"),
        ):
            prune(home.repository, ALL)
    assert home.objects() == before
    assert prune(home.repository, ALL).deleted > 0


def test_a_prune_that_was_presumed_dead_deletes_nothing_more() -> None:
    home = wasteful()
    before = home.packs()

    def presumed_dead(what: str, done: int, total: int) -> None:
        if what == "rewriting packs":
            for state in load_sessions(home.repository):
                home.repository.store.delete(state.name)

    with pytest.raises(RunFailed, match="presumed dead"):
        prune(home.repository, ALL, progress=presumed_dead)
    assert before.keys() <= home.packs().keys()
    home.verify()
    prune(home.repository, ALL)
    prune(home.repository, ALL)
    home.verify_lean()


@pytest.mark.parametrize("off", [0, 6 * 60, -7200])
def test_with_clocks_far_apart_nobody_is_presumed_dead(tmp_path: Path, off: int) -> None:
    home = wasteful(LocalStore(str(tmp_path)))
    session = elsewhere(home.repository)
    home.repository.store = Aged(home.repository.store, DEAD_AFTER * 2, off * 10**9)
    report = prune(home.repository, ALL)
    if off:
        assert report.deleted == 0 and report.waiting > 0 and session.held()
        assert any("nobody is presumed dead" in line and f"{off:+,} s off" in line for line in report.waiting_for)
    else:
        assert report.deleted > 0 and report.waiting_for == [] and not session.held()
    home.verify()
    session.close()


# Runs that died

BACKUP = """
import sys, time
from repository.repository import Repository
from repository.sessions import open_session
from repository.store import LocalStore
from tests.repository.prunes import bytes_of, tree_of
from tests.repository.samples import store_content
from repository.claims import ClaimTable
from repository.index import ChunkIndex, save_index
repository = Repository.open(LocalStore(sys.argv[1]), None)
with open_session(repository, "backup"):
    if sys.argv[2] != "none":
        receipts = store_content(repository, ClaimTable(ChunkIndex([])), tree_of(u=bytes_of(50, 20)))
        if sys.argv[2] == "indexed":
            save_index(repository, receipts)
    print("on", flush=True)
    time.sleep(60)
"""


def dead_backup(path: Path, stores: bool, indexed: bool = True) -> None:
    """A backup that was killed."""
    what = ("indexed" if indexed else "stored") if stores else "none"
    child = subprocess.Popen([sys.executable, "-c", BACKUP, path, what], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None and child.stdout.readline() == "on\n"
    child.kill()
    child.wait()
    child.stdout.close()


@pytest.mark.parametrize("indexed", [False, True])
def test_what_a_killed_backup_stored_is_kept_for_a_while_and_blocks_nothing(tmp_path: Path, indexed: bool) -> None:
    home = wasteful(LocalStore(str(tmp_path)))
    home.repository.store = Aged(home.repository.store)
    before = home.packs()
    dead_backup(tmp_path, stores=True, indexed=indexed)
    (name,) = home.packs().keys() - before.keys()
    for _ in range(3):
        told = prune(home.repository, KEEPING, dry_run=True)
        report = prune(home.repository, KEEPING)
        assert (report.unfinished, report.unfinished_bytes) == (1, home.packs()[name])
        assert (told.unfinished, told.deleted) == (1, report.deleted) and report.waiting_for == []
    home.verify()
    assert set(home.stored()) - home.needed() == ({*home_ids(home, 50)} if indexed else set())
    home.repository.store = Aged(home.repository.store, by=DAY)
    assert prune(home.repository, KEEPING).deleted == 1
    home.verify_lean()


def home_ids(home: Home, seed: int) -> Iterator[bytes]:
    content = bytes_of(seed, 20)
    return (home.repository.keys.chunk_id(content[at : at + 100]) for at in range(0, len(content), 100))


@pytest.mark.parametrize("killed", [False, True])
def test_what_is_unfinished_can_be_given_up_at_once(tmp_path: Path, killed: bool) -> None:
    home = wasteful(LocalStore(str(tmp_path)))
    if killed:
        dead_backup(tmp_path, stores=True)
    else:
        with pytest.raises(StoreError), open_session(home.repository, "backup") as session:
            session.has_stored = True
            home.store_apart(bytes_of(50, 20))
            raise StoreError("away")
        assert prune(home.repository, KEEPING).unfinished > 0
    report = prune(home.repository, ALL)
    assert (report.unfinished, report.waiting) == (0, 0)
    home.verify_lean()


def test_one_that_died_before_it_had_said_since_when_holds_up_nothing(tmp_path: Path) -> None:
    home = wasteful(LocalStore(str(tmp_path)))
    home.repository.store = Aged(home.repository.store)
    sound = home.repository.store
    dead = StoreError("dead")
    faults = [Fault("list", "gc/", dead), Fault("delete", error=dead), Fault("put", error=dead, skip=1)]
    home.repository.store = FaultyStore(sound, faults)
    with pytest.raises(StoreError):
        Session(home.repository, "backup")
    home.repository.store = sound
    assert [state.since for state in load_sessions(home.repository)] == [None]
    assert prune(home.repository, KEEPING).unfinished == 0
    home.verify()


def test_packs_in_no_index_are_collected() -> None:
    home = wasteful()
    home.store_apart(bytes_of(50, 20), indexed=False)
    home.repository.store.put("packs/zz/not-a-pack", [b"somebody else's"])
    prune(home.repository, ALL)
    assert "packs/zz/not-a-pack" in home.packs()
    home.repository.store.delete("packs/zz/not-a-pack")
    home.verify_lean()


# Repositories with trouble


def alter(repository: Repository, name: str, kind: ObjectKind, **fields: object) -> None:
    document = decode_document(repository.get_object(kind, name), name, 1 << 20)
    repository.store.delete(name)
    repository.put_object(kind, name, encode_document({**document, **fields}))


def first(home: Home, prefix: str) -> str:
    return next(iter(home.repository.store.list(prefix)))[0]


def harm(home: Home, prefix: str) -> None:
    name = first(home, prefix)
    replace(home.repository.store, name, flipped(home.repository.store.get(name), 60))


def lose_a_needed_pack(home: Home) -> None:
    needed = home.needed()
    index = ChunkIndex.load(home.repository, None)
    (table,) = index.tables
    row = next(row for row in range(len(table)) if table.ids[row].tobytes() in needed)
    home.repository.store.delete(pack_name(index.packs[int(index.segments.pack[table.segment[row]])]))


def want_a_feature(home: Home) -> None:
    config = home.repository.config
    features = ((Operation.GC, frozenset({"reference-counts"})),)
    home.repository.config = Config(config.repo_id, config.encryption, config.chunker, config.created, features)


TROUBLES: dict[str, tuple[Callable[[Home], None], type[LoxError], str]] = {
    "damaged snapshot": (lambda home: harm(home, "snapshots/"), Damaged, "a snapshot cannot be read"),
    "newer snapshot": (
        lambda home: alter(home.repository, first(home, "snapshots/"), ObjectKind.SNAPSHOT, version=99),
        NewerFormat,
        "a snapshot cannot be read",
    ),
    "damaged trash": (lambda home: harm(home, "trash/"), Damaged, ""),
    "newer trash": (
        lambda home: alter(home.repository, first(home, "trash/"), ObjectKind.MARK, version=99),
        NewerFormat,
        "",
    ),
    "lost pack": (lose_a_needed_pack, Damaged, ""),
    "damaged index": (lambda home: harm(home, "index/"), Damaged, ""),
    "unknown feature": (want_a_feature, NewerFormat, "features"),
    "damaged mark": (lambda home: home.repository.store.put("gc/condemned/" + "0" * 32, [b"nonsense"]), Damaged, ""),
}


@pytest.mark.parametrize("dry_run", [False, True])
@pytest.mark.parametrize("trouble", TROUBLES)
def test_where_somebody_may_need_what_we_do_not_know_nothing_is_deleted(trouble: str, dry_run: bool) -> None:
    home = wasteful()
    do_harm, kind, match = TROUBLES[trouble]
    do_harm(home)
    before = home.objects()
    with pytest.raises(kind, match=match or None):
        prune(home.repository, ALL, dry_run)
    assert home.objects() == before


# Stores with trouble


def test_a_store_that_refuses_to_delete_is_found_out_before_the_work_is_done() -> None:
    home = wasteful()
    sound = home.repository.store
    home.repository.store = RecordingStore(FaultyStore(sound, [Fault("delete", error=Refused("append only"))]))
    with pytest.raises(Refused, match="lox prune has to delete"):
        prune(home.repository, ALL)
    assert home.repository.store.of("put", "packs/") == home.repository.store.of("put", "gc/") == []
    home.repository.store = sound
    prune(home.repository, ALL)
    home.verify_lean()


@pytest.mark.parametrize("prefix", ["packs/", "index/", "gc/", "trash/"])
def test_a_store_that_keeps_some_objects_loses_nothing_and_a_later_run_goes_on(prefix: str) -> None:
    home = wasteful()
    sound = home.repository.store
    home.repository.store = FaultyStore(sound, [Fault("delete", prefix, Refused("locked"))])
    for _ in range(3):
        with pytest.raises(Refused, match="refuses what pruning needs"):
            prune(home.repository, ALL)
        home.verify()
    assert len(home.packs()) <= 9, "nothing is copied again and again"
    home.repository.store = sound
    prune(home.repository, ALL)
    prune(home.repository, ALL)
    home.verify_lean()


def test_a_full_store_gets_room_from_what_needs_no_copying(monkeypatch: pytest.MonkeyPatch) -> None:
    home = wasteful()
    home.pass_by(a=bytes_of(11, 20))
    home.keep(a=bytes_of(11, 20)[:1500])
    monkeypatch.setattr(rewrite, "PACK_TARGET", 600)  # a pack for each segment
    monkeypatch.setattr(rewrite, "LANES", 1)  # what another lane has finished would stay
    sound = home.repository.store
    home.repository.store = FaultyStore(sound, [Fault("put", "packs/", StoreFull("no room"), skip=2)])
    packs = home.packs()
    with pytest.raises(StoreFull) as full:
        prune(home.repository, ALL)
    assert "packs were deleted first" in full.value.hint
    assert home.packs().keys() < packs.keys(), "and no copy is left that nobody knows of"
    home.repository.store = sound
    home.verify()
    prune(home.repository, ALL)
    home.verify_lean()


class Stop:
    """Wants to stop when it is asked for the `at`th time."""

    def __init__(self, at: int, what: str = "") -> None:
        self.left = at
        self._what = what

    def __call__(self, what: str, done: int, total: int) -> None:
        self.left -= what.startswith(self._what)
        if self.left < 0:
            raise Interrupted("interrupted")


def test_stopped_again_and_again_it_comes_to_the_end() -> None:
    home = wasteful()
    for number in range(6):
        home.pass_by(a=bytes_of(10 + number, 20))
        home.keep(a=bytes_of(10 + number, 20)[:1500])
    read = []
    for _ in range(30):
        store = home.repository.store = RecordingStore(home.repository.store)
        try:
            prune(home.repository, ALL, progress=Stop(1, "rewriting"))
            break
        except Interrupted:
            read.append(sum(call.nbytes for call in store.of("get", "packs/")))
        finally:
            home.repository.store = store.inner
            home.verify()
    else:
        raise AssertionError("what was done is done again each time")
    prune(home.repository, ALL)
    home.verify_lean()


class Dying(WrappedStore):
    """From operation number `at` on nothing goes on, or just that one: `how` is refused, lost (the answer) or dead."""

    def __init__(self, inner: Store, at: int, how: str) -> None:
        super().__init__(inner)
        self.left = at
        self._how = how

    def _turn(self) -> bool:
        """Whether the answer is to get lost."""
        self.left -= 1
        if self.left < 0 and self._how == "dead":
            raise StoreError("dead")
        if self.left == -1 and self._how == "refused":
            raise StoreError("not now")
        return self.left == -1 and self._how == "lost"

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        lost = self._turn()
        found = super().get(name, offset, length)
        return _unless(lost, found)

    def put(self, name: str, parts: Sequence[Bytes]) -> None:
        lost = self._turn()
        super().put(name, parts)
        _unless(lost, None)

    def list(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        lost = self._turn()
        return _unless(lost, super().list(prefix))

    def size(self, name: str) -> int:
        lost = self._turn()
        return _unless(lost, super().size(name))

    def delete(self, name: str) -> None:
        lost = self._turn()
        super().delete(name)
        _unless(lost, None)


def _unless(lost: bool, answer: T) -> T:
    if lost:
        raise StoreError("the answer got lost")
    return answer


def copy_of(store: Store) -> MemoryStore:
    copy = MemoryStore()
    for name, _ in store.list():
        copy.put(name, [store.get(name)])
    return copy


WAYS = ["refused", "lost", "dead"]


@pytest.mark.parametrize("how", WAYS)
def test_interrupted_at_some_operation_nothing_is_lost_and_the_next_runs_come_to_the_same_end(how: str) -> None:
    """All three ways together meet each operation once."""
    interrupt(how, WAYS.index(how), len(WAYS))


@pytest.mark.slow
@pytest.mark.parametrize("how", WAYS)
def test_interrupted_at_any_operation_nothing_is_lost_and_the_next_runs_come_to_the_same_end(how: str) -> None:
    interrupt(how, 0, 1)


def interrupt(how: str, at: int, step: int) -> None:
    home = wasteful()
    home.store_apart(bytes_of(3, 12))  # and a second copy of something
    begin = home.repository.store
    home.repository.store = copy_of(begin)
    prune(home.repository, ALL)
    prune(home.repository, ALL)
    goal = home.counts(), home.stored()
    home.verify_lean()
    broken = True
    while broken:
        sound = copy_of(begin)
        home.repository.store = store = Dying(sound, at, how)
        try:
            prune(home.repository, ALL)
        except LoxError:
            pass
        broken, at = store.left < 0, at + step
        home.repository.store = sound
        home.verify()
        assert len(load_all(home.repository)) == 2
        for _ in range(3):
            if not prune(home.repository, ALL).rewritten:
                break
        home.verify_lean()
        counts = home.counts()
        assert (counts["packs/"] <= goal[0]["packs/"] + 1, home.stored()) == (True, goal[1])
    assert at > 60 and load_condemned(home.repository) == []
