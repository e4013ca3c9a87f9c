"""One store brought up to another: in order, whatever fails, and never with what is damaged."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from model.errors import Damaged, Interrupted, Missing, NoRepository, Refused, StoreError, UsageError
from repository.check import check
from repository.keyless import check_keyless
from repository.mirror import adopt, sync
from repository.repository import Repository
from repository.sessions import open_session
from repository.snapshot import load_all
from repository.store import LocalStore, MemoryStore, Store
from repository.store.base import Bytes
from repository.store.mirrored import Mirror, MirroredStore
from repository.store.wrapped import WrappedStore
from repository.store.wrappers import Fault, FaultyStore, RecordingStore
from repository.trash import forget
from tests.pipelines.helpers import CHEAP
from tests.repository.samples import back_up


def filled(store: Store, backups: int = 2) -> Repository:
    repository, _ = Repository.init(store, "pw", kdf=CHEAP)
    for number in range(backups):
        more(repository, number)
    return repository


def more(repository: Repository, number: int) -> None:
    dice = random.Random(number)
    back_up(repository, {b"d": None, b"d/f%d" % number: dice.randbytes(30_000)})


def objects(store: Store) -> dict[str, bytes]:
    return {name: store.get(name) for name, _ in store.list() if not name.startswith("sessions/")}


def test_an_empty_place_becomes_the_same_repository() -> None:
    source, target = MemoryStore(), RecordingStore(MemoryStore())
    repository = filled(source)
    repository.add_password("second", kdf=CHEAP)
    with open_session(repository, "test"):
        report = sync(source, target)
    assert objects(target) == objects(source)
    assert report.copied == len(objects(source)) and report.snapshots == 2 and not report.findings
    kinds = [call.name.partition("/")[0] for call in target.calls if call.verb == "put"]
    assert list(dict.fromkeys(kinds)) == ["keys", "config", "packs", "index", "snapshots"]
    mirror = Repository.open(target, "second")
    assert len(load_all(mirror)) == 2 and check(mirror, "data").findings == []
    assert sync(source, target).copied == 0


def test_only_what_is_missing_is_copied() -> None:
    source, target = MemoryStore(), RecordingStore(MemoryStore())
    repository = filled(source)
    sync(source, target)
    target.calls.clear()
    more(repository, 7)
    dry = sync(source, target, dry_run=True)
    assert target.of("put") == []
    report = sync(source, target)
    assert (report.copied, report.bytes, report.snapshots) == (dry.copied, dry.bytes, 1)
    assert len(target.of("put")) == report.copied == 4
    assert objects(target) == objects(source)


def test_another_place_is_left_alone() -> None:
    source, other, strange = MemoryStore(), MemoryStore(), MemoryStore()
    filled(source)
    filled(other)
    strange.put("packs/aa/" + "aa" * 16, [b"not ours"])
    for place in (other, strange):
        before = objects(place)
        for act in (sync, adopt):
            with pytest.raises(UsageError, match="lies there"):
                act(source, place)
        assert objects(place) == before
    with pytest.raises(NoRepository):
        sync(MemoryStore(), source)
    with pytest.raises(UsageError, match="same place"):
        sync(source, source)


def test_with_any_operation_failing_the_target_is_sound_and_the_next_run_finishes() -> None:
    source = MemoryStore()
    repository = filled(source, 3)
    places = 0
    for side in ("source", "target"):
        for verb in ("put", "get", "list", "size"):
            for late in (False, True) if verb == "put" else (False,):
                for skip in range(100):
                    target = MemoryStore()
                    fault = Fault(verb, "", Refused("not now", subject="test"), late, skip=skip, times=1)
                    one = FaultyStore(source, [fault]) if side == "source" else source
                    two = FaultyStore(target, [fault]) if side == "target" else target
                    try:
                        sync(one, two)
                    except Refused:
                        pass
                    if fault.times:
                        break
                    places += 1
                    if target.exists("config"):
                        mirror = Repository.attach(target, repository.credentials())
                        assert check(mirror, "data").findings == []
                    sync(source, target)
                    assert objects(target) == objects(source)
    assert places > 40


def flip(store: Store, name: str, at: int = 40) -> None:
    data = bytearray(store.get(name))
    data[at] ^= 1
    store.delete(name)
    store.put(name, [bytes(data)])


@pytest.mark.parametrize("prefix", ["packs/", "index/", "snapshots/", "keys/"])
def test_what_is_damaged_is_not_copied(prefix: str) -> None:
    source, target = MemoryStore(), MemoryStore()
    filled(source)
    names = [name for name, _ in source.list(prefix)]
    flip(source, names[0])
    report = sync(source, target)
    assert list(report.findings) == names[:1] and not target.exists(names[0])
    assert objects(target).keys() == objects(source).keys() - set(names[:1])


def test_an_object_that_was_cut_off_is_replaced(tmp_path: Path) -> None:
    source, target = MemoryStore(), LocalStore(str(tmp_path))
    filled(source)
    sync(source, target)
    name = next(name for name, _ in source.list("packs/"))
    path = tmp_path / name
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:100])
    assert check_keyless(target).findings
    report = sync(source, target)
    assert (report.copied, report.healed) == (1, 1)
    assert objects(target) == objects(source) and not check_keyless(target).findings


def test_what_is_gone_is_deleted_only_if_asked() -> None:
    source, target = MemoryStore(), RecordingStore(MemoryStore())
    repository = filled(source, 3)
    sync(source, target)
    forget(repository, load_all(repository)[0].id, "by hand", 1)
    slot = repository.add_password("second", kdf=CHEAP)
    sync(source, target)
    repository.remove_key(slot.id)
    sync(source, target)
    assert len(load_all(Repository.open(target, "second"))) == 3
    with open_session(repository, "backup"):
        report = sync(source, target, delete=True)
        assert (report.deleted, report.kept) == (0, 2), "somebody is at work"
    assert sync(source, target, delete=True, dry_run=True).deleted == 2 and target.of("delete") == []
    assert sync(source, target, delete=True).deleted == 2
    assert [call.name.partition("/")[0] for call in target.of("delete")] == ["snapshots", "keys"]
    assert objects(target) == objects(source)


class Vanishing(WrappedStore):
    """A pack is rewritten by garbage collection while it is about to be copied."""

    def __init__(self, inner: Store, repository: Repository) -> None:
        super().__init__(inner)
        self.repository = repository
        self.gone = False

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        if name.startswith("packs/") and not self.gone:
            self.gone = True
            for number in (8, 9):
                more(self.repository, number)
            raise Missing("no such object", subject=name)
        return super().get(name, offset, length)


def test_a_source_that_changes_meanwhile_is_listed_again() -> None:
    inner, target = MemoryStore(), MemoryStore()
    repository = filled(inner)
    sync(Vanishing(inner, repository), target)
    assert objects(target) == objects(inner)
    assert len(load_all(Repository.open(target, "pw"))) == 4


def test_an_interruption_leaves_what_was_copied() -> None:
    source, target = MemoryStore(), MemoryStore()
    filled(source)

    def stop(what: str, done: int, total: int) -> None:
        if done > 20_000:
            raise Interrupted("interrupted")

    with pytest.raises(Interrupted):
        sync(source, target, progress=stop)
    assert 2 < len(objects(target)) < len(objects(source))
    assert not list(target.list("snapshots/"))
    sync(source, target)
    assert objects(target) == objects(source)


def test_a_mirrored_store_sends_along_what_is_large() -> None:
    inner, other, broken = MemoryStore(), MemoryStore(), MemoryStore()
    mirrors = [
        Mirror(other),
        Mirror(FaultyStore(broken, [Fault("put", "packs/", StoreError("full"), skip=1, times=1)])),
    ]
    store = MirroredStore(inner, mirrors)
    names = ["packs/aa/" + "aa" * 16, "packs/ab/" + "ab" * 16, "index/" + "00" * 16, "snapshots/" + "00" * 16]
    other.put(names[0], [b"names[0]"])
    for name in names:
        store.put(name, [b"body", memoryview(b"!")])
    store.close()
    assert len(objects(inner)) == 4
    assert list(objects(other)) == [names[2], *names[:2]] and mirrors[0].trouble is None
    assert list(objects(broken)) == names[:1], "after the first trouble nothing more is sent"
    assert str(mirrors[1].trouble) == "full"


class Late(WrappedStore):
    """Looks at the bytes after everybody else is done with them."""

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self.done = False

    def put(self, name: str, parts: list[Bytes]) -> None:  # type: ignore[override]
        time.sleep(0.1)
        super().put(name, parts)
        self.done = True


def test_a_put_returns_when_no_mirror_needs_the_bytes_any_more() -> None:
    late = Late(MemoryStore())
    MirroredStore(MemoryStore(), [Mirror(late)]).put("packs/aa/" + "aa" * 16, [b"body"])
    assert late.done
    failing = FaultyStore(MemoryStore(), [Fault("put", "", StoreError("no"))])
    late.done = False
    with pytest.raises(StoreError):
        MirroredStore(failing, [Mirror(late)]).put("packs/ab/" + "ab" * 16, [b"body"])
    assert late.done


def test_keys_of_all_kinds_go_along() -> None:
    source, target = MemoryStore(), MemoryStore()
    repository = filled(source)
    repository.issue_writer("server")
    sync(source, target)
    repository.rotate()
    more(repository, 7)
    report = sync(source, target, delete=True)
    assert report.findings == {} and objects(target) == objects(source)
    assert check(reopened(target), "data").findings == []


def reopened(store: Store) -> Repository:
    return Repository.open(store, "pw")


def test_nothing_is_deleted_if_something_of_the_source_is_damaged() -> None:
    source, target = MemoryStore(), MemoryStore()
    filled(source)
    sync(source, target)
    target.put("packs/aa/" + "aa" * 16, [b"extra"])
    name = next(name for name, _ in source.list("snapshots/"))
    target.delete(name)
    flip(source, name)
    before = objects(target)
    with pytest.raises(Damaged, match="nothing is deleted"):
        sync(source, target, delete=True)
    assert objects(target) == before


@pytest.mark.parametrize("lost", ["packs/", "index/", "snapshots/"])
def test_a_loss_is_not_repeated(lost: str) -> None:
    source, target = MemoryStore(), MemoryStore()
    filled(source)
    sync(source, target)
    before = objects(target)
    for name, _ in list(source.list(lost)):
        source.delete(name)
    with pytest.raises(Damaged, match="lost a whole folder"):
        sync(source, target, delete=True)
    assert objects(target) == before
