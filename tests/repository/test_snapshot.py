from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.errors import Damaged, NewerFormat, NotFound
from repository.manifest_root import ManifestRoot
from repository.repository import Repository
from repository.seal import ObjectKind
from repository.snapshot import FUTURE, Snapshot, find_parent, load_all, resolve
from repository.snapshot_columns import pack_snapshots, unpack_snapshots
from tests.repository.damage import damaged
from tests.repository.samples import new_repository

ROOT = ManifestRoot((b"\1" * 32,), (100,), parts=1, rows=5, bytes=1000)
PLAIN = Snapshot(
    time=100,
    started=90,
    finished=110,
    host="box",
    user="root",
    paths=(b"/data", b"/etc/\xff"),
    mode="incremental",
    root=ROOT,
    parent="ab" * 16,
    tags=("nightly", "ü"),
    excludes=(b"*.log", b"\n"),
    problems=3,
    stats={"files": 7},
    program="lox 0.1",
)


@pytest.fixture
def repository() -> Repository:
    return new_repository()


def test_what_was_saved_is_loaded(repository: Repository) -> None:
    saved = PLAIN.save(repository)
    assert len(saved.id) == 32
    assert list(load_all(repository)) == [saved]
    assert saved._replace(id="") == PLAIN


def test_hosts_are_kept_and_give_the_roots(repository: Repository) -> None:
    saved = PLAIN._replace(hosts=("nas1", "nas2"), paths=(b"/", b"/etc")).save(repository)
    assert list(load_all(repository)) == [saved]
    document, body = pack_snapshots([saved])
    assert list(unpack_snapshots([saved.name], json.loads(json.dumps(document)), body)) == [saved]
    assert saved.roots == (b"nas1", b"nas1/etc", b"nas2", b"nas2/etc")
    assert PLAIN.roots == (b"data", b"etc/\xff")
    wanted = saved.host, saved.paths, "incremental", saved.time
    assert find_parent([saved], *wanted) is None
    assert find_parent([saved], *wanted, many=True) == saved


@pytest.mark.parametrize("hosts", [["a", ".."], ["a/b"], [""], ["a", "a"], ["a\n"], "ab", [1], ["x" * 201]])
def test_hosts_that_cannot_be_folders_are_damage(hosts: object) -> None:
    document = json.loads(PLAIN.encode()) | {"hosts": hosts}
    with pytest.raises(Damaged, match="hosts"):
        Snapshot.decode("00", json.dumps(document).encode())


def test_fields_of_later_versions_are_kept() -> None:
    document = json.loads(PLAIN.encode()) | {"future": {"x": [1]}}
    snapshot = Snapshot.decode("00", json.dumps(document).encode())
    assert snapshot.extra == {"future": {"x": [1]}}
    assert json.loads(snapshot.encode()) == document


def test_unreadable_snapshots_hide_no_others(repository: Repository) -> None:
    saved = PLAIN.save(repository)
    repository.store.put("snapshots/" + "0" * 32, [b"rubbish"])
    later = json.loads(PLAIN.encode()) | {"version": 2}
    repository.put_object(ObjectKind.SNAPSHOT, "snapshots/" + "1" * 32, json.dumps(later).encode())
    snapshots = load_all(repository)
    assert list(snapshots) == [saved]
    assert [type(error) for _, error in snapshots.unreadable] == [Damaged, NewerFormat]
    with pytest.raises(NewerFormat):
        resolve(repository, "1111")


def test_snapshots_are_listed_by_time(repository: Repository) -> None:
    for time in (30, 10, 20):
        PLAIN._replace(time=time).save(repository)
    assert [snapshot.time for snapshot in load_all(repository)] == [10, 20, 30]


def test_a_snapshot_is_named_by_the_beginning_of_its_id(repository: Repository) -> None:
    with pytest.raises(NotFound, match="no snapshot yet"):
        resolve(repository, "latest")
    first = PLAIN.save(repository)
    for name in ("a" * 32, "ab" + "c" * 30):
        repository.put_object(ObjectKind.SNAPSHOT, "snapshots/" + name, PLAIN._replace(time=1).encode())
    assert resolve(repository, "latest") == first
    assert resolve(repository, first.id) == first
    repository.store.put("snapshots/" + "e" * 32, [b"not a snapshot"])
    with pytest.raises(Damaged, match="cannot be told"):
        resolve(repository, "latest")  # the damaged one may be newer
    assert resolve(repository, first.id) == first
    child = PLAIN._replace(parent="e" * 32, time=PLAIN.time + 1).save(repository)
    assert resolve(repository, "latest") == child  # which is newer than its parent
    repository.store.delete(child.name)
    repository.store.delete("snapshots/" + "e" * 32)
    assert resolve(repository, "ABC").id == "ab" + "c" * 30
    with pytest.raises(NotFound, match="several"):
        resolve(repository, "a")
    for missing in ("abd", "", "nothing"):
        with pytest.raises(NotFound):
            resolve(repository, missing)


def at(time: int, **fields: object) -> Snapshot:
    return PLAIN._replace(time=time, started=time, id=f"{time:032x}", **fields)  # type: ignore[arg-type]


def test_the_parent_is_the_last_of_its_kind() -> None:
    snapshots = [
        at(10, mode="full"),
        at(20),
        at(30, host="other"),
        at(31, paths=(b"/data",)),
        at(32, mode="full", host="other"),
    ]

    def parent(mode: str, paths: tuple[bytes, ...] = PLAIN.paths) -> int | None:
        found = find_parent(snapshots, "box", paths, mode, now=100)
        return None if found is None else found.time

    assert parent("incremental") == 20
    assert parent("incremental", PLAIN.paths[::-1]) == 20
    assert parent("differential") == 10
    assert parent("full") is None
    assert parent("incremental", (b"/data",)) == 31
    assert parent("differential", (b"/data",)) is None


def test_a_snapshot_from_the_future_is_no_parent() -> None:
    now = 10**18
    near, far = at(now + FUTURE), at(now + FUTURE + 1)
    assert find_parent([near, far], "box", PLAIN.paths, "incremental", now) == near
    assert find_parent([far], "box", PLAIN.paths, "incremental", now) is None


@given(damaged(PLAIN.encode()))
@settings(max_examples=300)
def test_damaged_snapshots_give_an_error_or_a_snapshot(data: bytes) -> None:
    try:
        snapshot = Snapshot.decode("00", data)
    except (Damaged, NewerFormat):
        return
    assert snapshot.root.rows >= 0
    assert all(isinstance(path, bytes) for path in snapshot.paths)


VALUES = st.one_of(
    st.none(), st.integers(-5, 5), st.text(max_size=3), st.lists(st.integers()), st.dictionaries(st.text(), st.text())
)


@given(key=st.sampled_from(sorted(json.loads(PLAIN.encode()))), value=VALUES)
def test_fields_of_the_wrong_kind_are_damage(key: str, value: object) -> None:
    try:
        Snapshot.decode("00", json.dumps(json.loads(PLAIN.encode()) | {key: value}).encode())
    except (Damaged, NewerFormat):
        pass


@pytest.mark.parametrize(
    "manifest",
    [
        {"chunks": []},
        {"chunks": [{"id": "00", "length": 1}]},
        {"chunks": [{"id": "00" * 32, "length": -1}]},
        {"rows": -1},
        {"parts": True},
        {"chunks": ["x"]},
    ],
)
def test_impossible_roots_are_damage(manifest: dict[str, object]) -> None:
    document = json.loads(PLAIN.encode())
    document["manifest"] |= manifest
    with pytest.raises(Damaged):
        Snapshot.decode("00", json.dumps(document).encode())
