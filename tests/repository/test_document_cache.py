"""The cache of snapshots, notes and trash: it saves reading, and nothing anybody writes there is believed."""

from __future__ import annotations

import itertools
import json
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.errors import Damaged
from repository.annotations import Changes, Pin, annotate, load_annotations
from repository.document_cache import _CacheFile
from repository.manifest_root import ManifestRoot
from repository.repository import Repository
from repository.seal import ObjectKind
from repository.snapshot import SNAPSHOT_PREFIX, Snapshot, load_all
from repository.snapshot_columns import pack_snapshots, packs, unpack_snapshots
from repository.store import MemoryStore
from repository.store.wrappers import RecordingStore
from repository.trash import forget, load_trash
from tests.repository.samples import new_repository

STAMP: dict[str, object] = {"version": 2, "order": sys.byteorder}
NOW = 1_800_000_000 * 10**9
PLAIN = Snapshot(
    100, 90, 110, "box", "root", (b"/data", b"/etc/\xff"), "full", ManifestRoot((b"\1" * 32,), (9,), 1, 5, 1000),
    tags=("ü",), excludes=(b"*.log",), problems=3, stats={"files": 7}, program="lox", extra={"selection": {"x": [1]}},
)  # fmt: skip

numbers = st.integers(0, (1 << 63) - 1)
whole = st.integers(-(1 << 63), (1 << 63) - 1)
json_values = st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=3)
roots = st.lists(st.binary(min_size=32, max_size=32), min_size=1, max_size=3).flatmap(
    lambda chunks: st.builds(
        ManifestRoot,
        st.just(tuple(chunks)),
        st.tuples(*[numbers for _ in chunks]),
        numbers,
        numbers,
        numbers,
    )
)
snapshots = st.builds(
    Snapshot,
    time=whole,
    started=whole,
    finished=whole,
    host=st.text(max_size=3),
    user=st.text(max_size=3),
    paths=st.lists(st.binary(max_size=3), max_size=2).map(tuple),
    mode=st.sampled_from(["full", "incremental"]),
    root=roots,
    parent=st.none() | st.text(max_size=3),
    tags=st.lists(st.text(max_size=2), max_size=2).map(tuple),
    excludes=st.lists(st.binary(max_size=3), max_size=2).map(tuple),
    problems=whole,
    stats=st.dictionaries(st.text(max_size=3), whole, max_size=3),
    program=st.text(max_size=3),
    id=st.text("0123456789abcdef", min_size=32, max_size=32),
    writer=st.just(""),
    hosts=st.lists(st.text(max_size=2), max_size=2).map(tuple),
    original=st.none() | st.tuples(st.binary(min_size=16, max_size=16), st.text("0123456789abcdef", min_size=32)),
    extra=st.dictionaries(st.text(max_size=3).map("x-".__add__), json_values, max_size=2),
)


@given(st.lists(snapshots, max_size=4))
def test_packed_snapshots_come_back_as_they_were(some: list[Snapshot]) -> None:
    assert all(map(packs, some))
    document, body = pack_snapshots(some)
    assert list(unpack_snapshots([one.name for one in some], json.loads(json.dumps(document)), body)) == some


@pytest.mark.parametrize("most", [{"time": 1 << 63}, {"stats": {"files": -(1 << 63) - 1}}, {"problems": 1 << 70}])
def test_numbers_that_fit_into_no_column_are_read_each_time(tmp_path: Path, most: dict[str, Any]) -> None:
    repository, store = recorded()
    saved = [PLAIN.save(repository), PLAIN._replace(**most).save(repository)]
    for expected in (2, 1, 1):
        loaded: list[Snapshot] = []
        assert reads(store, lambda: loaded.extend(load_all(repository, tmp_path))) == expected  # noqa: B023
        assert sorted(loaded, key=repr) == sorted(saved, key=repr)


def recorded(encrypted: bool = True) -> tuple[Repository, RecordingStore]:
    store = RecordingStore(MemoryStore())
    return new_repository(encrypted, store), store


def reads(store: RecordingStore, act: Callable[[], object]) -> int:
    before = len(store.of("get"))
    act()
    return len(store.of("get")) - before


@pytest.mark.parametrize("encrypted", [True, False])
def test_each_object_is_read_once(tmp_path: Path, encrypted: bool) -> None:
    repository, store = recorded(encrypted)
    saved = [PLAIN._replace(time=time).save(repository) for time in range(5)]
    assert reads(store, lambda: load_all(repository, tmp_path)) == 5
    assert reads(store, lambda: load_all(repository, tmp_path)) == 0
    saved.append(PLAIN._replace(time=7, host="other", stats={}).save(repository))
    assert reads(store, lambda: load_all(repository, tmp_path)) == 1
    assert list(load_all(repository, tmp_path)) == saved == list(load_all(repository))


def test_what_is_not_listed_is_gone(tmp_path: Path) -> None:
    repository, store = recorded()
    first, second = PLAIN.save(repository), PLAIN.save(repository)
    load_all(repository, tmp_path)
    store.delete(first.name)
    assert list(load_all(repository, tmp_path)) == [second]
    store.delete(second.name)
    assert list(load_all(repository, tmp_path)) == []


def test_notes_and_trash_are_kept_too(tmp_path: Path) -> None:
    repository, store = recorded()
    kept, gone = PLAIN.save(repository), PLAIN.save(repository)
    annotate(repository, kept.id, Changes(add=("a",), remove=("ü",), pin=Pin(NOW), hold=("law",), comment="c"), NOW)
    annotate(repository, kept.id, Changes(pin=False, release=("law",)), NOW)
    forget(repository, gone.id, "policy", NOW)
    for _ in range(2):
        notes = load_annotations(repository, None, tmp_path)
        assert notes == load_annotations(repository) and notes.of(kept).tags == {"a"}
        assert load_trash(repository, None, tmp_path) == load_trash(repository)
    assert reads(store, lambda: load_annotations(repository, None, tmp_path)) == 0
    assert reads(store, lambda: load_trash(repository, None, tmp_path)) == 0


def test_what_cannot_be_read_is_told_every_time(tmp_path: Path) -> None:
    repository, store = recorded()
    saved = PLAIN.save(repository)
    store.put(SNAPSHOT_PREFIX + "0" * 32, [b"rubbish"])
    for _ in range(2):
        loaded = load_all(repository, tmp_path)
        assert list(loaded) == [saved] and [name for name, _ in loaded.unreadable] == [SNAPSHOT_PREFIX + "0" * 32]


def test_an_object_of_another_length_is_read_again(tmp_path: Path) -> None:
    repository, store = recorded()
    saved = PLAIN.save(repository)
    load_all(repository, tmp_path)
    cut = store.get(saved.name)[:-1]
    store.delete(saved.name)
    store.put(saved.name, [cut])
    loaded = load_all(repository, tmp_path)
    assert list(loaded) == [] and isinstance(loaded.unreadable[0][1], Damaged)


def cache_file(repository: Repository, cache_dir: Path) -> Path:
    return cache_dir / repository.id.hex() / "snapshots.cache"


def test_a_cache_with_any_byte_changed_is_thrown_away(tmp_path: Path) -> None:
    repository, store = recorded()
    saved = PLAIN.save(repository)
    load_all(repository, tmp_path)
    path = cache_file(repository, tmp_path)
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        loaded: list[Snapshot] = []
        assert reads(store, lambda: loaded.extend(load_all(repository, tmp_path))) == 1  # noqa: B023
        assert loaded == [saved]
    assert reads(store, lambda: load_all(repository, tmp_path)) == 0  # a good one took its place


def fifo(path: Path, _: bytes) -> None:
    path.unlink()
    os.mkfifo(path)


def folder(path: Path, _: bytes) -> None:
    path.unlink()
    path.mkdir()


def link(path: Path, data: bytes) -> None:
    other = path.with_name("other")
    other.write_bytes(data)
    path.unlink()
    path.symlink_to(other)


def empty(path: Path, _: bytes) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("spoil", [fifo, folder, link, empty])
def test_anything_else_in_its_place_counts_for_nothing(tmp_path: Path, spoil: Callable[[Path, bytes], None]) -> None:
    repository, store = recorded()
    saved = PLAIN.save(repository)
    load_all(repository, tmp_path)
    path = cache_file(repository, tmp_path)
    spoil(path, path.read_bytes())
    assert reads(store, lambda: load_all(repository, tmp_path)) == 1
    assert list(load_all(repository, tmp_path)) == [saved]


def test_what_another_repository_sealed_is_not_believed(tmp_path: Path) -> None:
    repository, store = recorded()
    saved = PLAIN.save(repository)
    values, body = pack_snapshots([saved._replace(host="evil")])
    document = STAMP | {"names": [saved.id], "sizes": [store.size(saved.name)], "values": values}
    head = json.dumps(document).encode()
    for other, host in ((repository, "evil"), (new_repository(), "box")):  # the first shows that the forgery is good
        plain = len(head).to_bytes(4, "little") + head + body
        forged = other.cipher.seal_object(ObjectKind.SNAPSHOT, "cache/snapshots.cache", plain)
        path = cache_file(repository, tmp_path)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(forged)
        assert [one.host for one in load_all(repository, tmp_path)] == [host]


class FarStore(MemoryStore):
    """Gives no snapshot before a second one was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.url = "far://away"
        self._asked = itertools.count(1)
        self._second = threading.Event()

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        if name.startswith(SNAPSHOT_PREFIX):
            if next(self._asked) == 2:
                self._second.set()
            assert self._second.wait(timeout=60), "asked for one after the other"
        return super().get(name, offset, length)


def test_a_remote_store_is_asked_for_many_at_once(tmp_path: Path) -> None:
    repository = new_repository(store=FarStore())
    saved = [PLAIN._replace(time=time).save(repository) for time in range(32)]
    assert list(load_all(repository, tmp_path)) == saved


PACKED, BODY = pack_snapshots([PLAIN])
VALUES: dict[str, object] = dict(PACKED)  # type: ignore[call-overload]
ONE: dict[str, object] = {"names": ["0" * 32], "sizes": [1]}


def column(number: int, at: int) -> bytes:
    """What is packed of one snapshot, with another number in the column `at`."""
    return BODY[: at * 8] + number.to_bytes(8, sys.byteorder, signed=True) + BODY[at * 8 + 8 :]


@pytest.mark.parametrize(
    ("document", "body"),
    [
        ({"names": 5}, BODY),
        (ONE | {"values": None}, BODY),
        (ONE | {"sizes": [], "values": VALUES}, BODY),
        ({"names": ["0" * 32, "1" * 32], "sizes": [1, 1], "values": VALUES}, BODY),
        (ONE | {"names": [7], "values": VALUES}, BODY),
        (ONE | {"values": VALUES}, BODY[:-1]),
        (ONE | {"values": VALUES}, BODY + b"x"),
        (ONE | {"values": VALUES}, b""),
        *((ONE | {"values": VALUES}, column(number, 7)) for number in (-1, 1, 3)),  # which of the commons
        *((ONE | {"values": VALUES}, column(number, 8)) for number in (-1, 0, 2, (1 << 63) - 1)),  # how many chunks
        (ONE | {"values": VALUES | {"commons": [[]]}}, BODY),
        (ONE | {"values": VALUES | {"parents": []}}, BODY),
        (ONE | {"values": VALUES | {"originals": []}}, BODY),
        (ONE | {"values": VALUES | {"originals": {"0": ["xy", ""]}}}, BODY),
    ],
)  # fmt: skip
def test_other_documents_count_for_nothing(tmp_path: Path, document: dict[str, object], body: bytes) -> None:
    repository, store = recorded()
    saved = PLAIN.save(repository)
    sizes = {"sizes": [store.size(saved.name)]} if document.get("sizes") == [1] else {}
    named = {"names": [saved.id]} if document.get("names") == ["0" * 32] else {}
    _CacheFile(repository, tmp_path, "snapshots.cache").write({**STAMP, **document, **named, **sizes}, body)
    assert reads(store, lambda: load_all(repository, tmp_path)) == 1
    assert list(load_all(repository, tmp_path)) == [saved]


@pytest.mark.parametrize(("stamp", "expected"), [({}, 0), ({"version": 1}, 1), ({"order": "middle"}, 1)])
def test_other_versions_count_for_nothing(tmp_path: Path, stamp: dict[str, object], expected: int) -> None:
    repository, store = recorded()
    saved = PLAIN.save(repository)
    document = STAMP | {"names": [saved.id], "sizes": [store.size(saved.name)], "values": VALUES} | stamp
    _CacheFile(repository, tmp_path, "snapshots.cache").write(document, BODY)
    assert reads(store, lambda: load_all(repository, tmp_path)) == expected


def test_no_room_for_a_cache_is_no_trouble(tmp_path: Path) -> None:
    repository, _ = recorded()
    saved = PLAIN.save(repository)
    (tmp_path / "file").write_bytes(b"")
    for _ in range(2):
        assert list(load_all(repository, tmp_path / "file")) == [saved]
