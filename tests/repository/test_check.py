from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
import pytest

from model.errors import Damaged, Interrupted, LoxError, Refused, UsageError
from repository.check import CheckReport, check
from repository.credentials import Credentials
from repository.fetch import ChunkFetcher
from repository.index import INDEX_PREFIX, ChunkIndex
from repository.manifest_reader import ManifestReader
from repository.pack import pack_name
from repository.reading_index import ReadingIndex
from repository.repository import Repository
from repository.snapshot import Snapshot, load_all
from repository.store import Store
from repository.store.wrapped import WrappedStore
from repository.store.wrappers import Fault, FaultyStore
from tests.repository.samples import CHUNK, back_up, new_repository
from tests.shares import shared

FLIPS = 60  # places tried in each object by the fast test
TREE = {
    b"": None,
    b"d": None,
    **{b"d/file%02d" % number: random.Random(number).randbytes(350) for number in range(12)},
}


@pytest.fixture(params=[True, False], ids=["encrypted", "open"])
def repository(request: pytest.FixtureRequest) -> Repository:
    return new_repository(encrypted=request.param)


def objects(store: Store) -> dict[str, bytes]:
    return {name: store.get(name) for name, _ in store.list()}


def exchange(store: Store, name: str, data: bytes) -> None:
    store.delete(name)
    store.put(name, [data])


def reopened(repository: Repository) -> Repository:
    return Repository.attach(repository.store, repository.credentials())


def restorable(repository: Repository, snapshot: Snapshot) -> set[bytes]:
    """Files that still come out as they went in."""
    fetcher = ChunkFetcher(repository, ChunkIndex.load(repository, None, on_damage=lambda error: None))
    reader = ManifestReader(snapshot.root, fetcher.fetch)
    whole = set()
    for path, content in TREE.items():
        try:
            entry = reader.find(path)
            if entry is not None and content is not None:
                ids = [row.tobytes() for row in reader.content(entry).ids]
                assert b"".join(fetcher.fetch(ids)) == content
                whole.add(path)
        except LoxError:
            pass
    return whole


def assert_found(repository: Repository, snapshot: Snapshot, name: str) -> None:
    """`check` finds the damage in `name`; whatever files it does not name can be restored."""
    report = check(reopened(repository), "data")
    assert name in {finding.subject for finding in report.findings}
    if name.startswith(("packs/", "index/")):
        named = {path for finding in report.findings for path in finding.files}
        unreadable = any("cannot be read" in finding.what for finding in report.findings)
        assert unreadable or restorable(repository, snapshot) >= {path for path in TREE if TREE[path]} - named


def test_a_sound_repository_is_found_sound(repository: Repository) -> None:
    back_up(repository, TREE)
    back_up(repository, TREE | {b"more": b"m"})
    seen: list[tuple[str, int, int]] = []
    report = check(repository, "data", progress=lambda *step: seen.append(step))
    assert (report.findings, report.notes) == ([], [])
    assert report.sound
    assert (report.snapshots, report.packs, report.packs_read) == (2, 4, 4)
    assert {what for what, _, _ in seen} == {"reading the index", "reading packs", "following manifests"}
    assert check(repository).packs_read == 0


def test_an_empty_repository_is_sound(repository: Repository) -> None:
    assert check(repository, "data").sound


def flips(data: bytes, every: bool) -> list[int]:
    if len(data) < FLIPS:
        return list(range(len(data)))
    if every:
        return list(shared(range(len(data))))
    edges = [*range(10), *range(len(data) - 10, len(data))]
    return edges + random.Random(len(data)).sample(range(len(data)), FLIPS - len(edges))


def assert_every_flip_found(repository: Repository, every: bool) -> None:
    snapshot = back_up(repository, TREE)
    for name, data in objects(repository.store).items():
        for at in flips(data, every):
            exchange(repository.store, name, data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :])
            assert_found(repository, snapshot, name)
        exchange(repository.store, name, data)
    assert check(repository, "data").sound


@pytest.mark.slow
def test_a_flipped_byte_anywhere_is_found(repository: Repository) -> None:
    assert_every_flip_found(repository, every=False)


@pytest.mark.slow
def test_every_flipped_byte_is_found(repository: Repository) -> None:  # in shares: see `tests.shares`
    assert_every_flip_found(repository, every=True)


def test_missing_and_cut_objects_are_found(repository: Repository) -> None:
    snapshot = back_up(repository, TREE)
    for name, data in objects(repository.store).items():
        if name == "config":
            continue
        for level in ("structure", "data"):
            for end in (0, 1, len(data) // 2, len(data) - 1):
                exchange(repository.store, name, data[:end])
                report = check(reopened(repository), level)
                assert any(finding.subject == name for finding in report.findings), (name, end, level)
        exchange(repository.store, name, data)
    for name, data in objects(repository.store).items():
        repository.store.delete(name)
        report = check(reopened(repository))
        if name.startswith("packs/") or name == "config":
            assert any(finding.subject == name for finding in report.findings), name
        repository.store.put(name, [data])
    assert restorable(repository, snapshot) == {path for path in TREE if TREE[path]}


def test_findings_name_the_files_and_snapshots_concerned(repository: Repository) -> None:
    first = back_up(repository, TREE)
    second = back_up(repository, TREE | {b"d/file99": b"nine" * 30})
    report = damaged_data_pack(repository, segment=1)
    (finding,) = report.findings
    assert sorted(finding.snapshots) == sorted([first.id, second.id])
    assert finding.files_total == len(finding.files)
    whole = {path for path in TREE if TREE[path]} - restorable(repository, first)
    assert set(finding.files) == whole
    assert 0 < len(whole) < 12


def damaged_data_pack(repository: Repository, segment: int) -> CheckReport:
    """Damage a segment of the first backup's content, counted from the one that begins with the first file."""
    first_chunk = repository.keys.chunk_id((TREE[b"d/file00"] or b"")[:CHUNK])
    where = ChunkIndex.load(repository, None).lookup(np.frombuffer(first_chunk, np.uint8).reshape(1, 32))
    row = int(where.segment[0]) + segment
    name = pack_name(where.packs[int(where.segments.pack[row])])
    data = bytearray(repository.store.get(name))
    data[int(where.segments.offset[row]) + 40] ^= 1
    exchange(repository.store, name, bytes(data))
    return check(reopened(repository), "data")


def test_exchanged_objects_are_found(repository: Repository) -> None:
    back_up(repository, TREE)
    back_up(repository, TREE | {b"more": b"m" * 200})
    stored = objects(repository.store)
    for prefix in ("packs/", "index/", "snapshots/"):
        one, other = [name for name in stored if name.startswith(prefix)][:2]
        exchange(repository.store, one, stored[other])
        exchange(repository.store, other, stored[one])
        report = check(reopened(repository), "data")
        subjects = {finding.subject for finding in report.findings}
        if repository.encrypted or prefix == "packs/":
            assert {one, other} <= subjects
        exchange(repository.store, one, stored[one])
        exchange(repository.store, other, stored[other])


def test_objects_of_another_repository_are_found() -> None:
    ours, theirs = new_repository(), new_repository()
    for repository in (ours, theirs):
        back_up(repository, TREE)
    for prefix in ("index/", "snapshots/"):
        for name, data in objects(theirs.store).items():
            if name.startswith(prefix):
                ours.store.put(name, [data])
                assert name in {finding.subject for finding in check(ours).findings}
                ours.store.delete(name)


def test_leftovers_are_noted_and_harmless(repository: Repository) -> None:
    back_up(repository, TREE)
    ((index_name, _),) = repository.store.list(INDEX_PREFIX)
    (snapshot,) = load_all(repository)
    repository.store.delete(snapshot.name)
    repository.store.delete(index_name)
    repository.store.put("lost-and-found", [b"x"])
    report = check(repository)
    assert report.sound
    assert len(report.notes) == 2


def test_chunks_in_no_index_are_found(repository: Repository) -> None:
    """A snapshot whose packs were deleted, index and all."""
    snapshot = back_up(repository, TREE)
    for name in objects(repository.store):
        if name.startswith(("index/", "packs/")):
            repository.store.delete(name)
    report = check(repository)
    assert any(snapshot.id in finding.snapshots for finding in report.findings)


def test_a_missing_index_object_is_found_and_costs_readers_nothing(repository: Repository) -> None:
    snapshot = back_up(repository, TREE)
    for name in objects(repository.store):
        if name.startswith("index/"):
            repository.store.delete(name)
    report = check(reopened(repository))
    assert [finding.subject for finding in report.findings] == ["index/"] and report.notes == []
    told: list[Damaged] = []
    fetcher = ChunkFetcher(repository, ReadingIndex(repository, None, told.append))
    reader = ManifestReader(snapshot.root, fetcher.fetch)
    for path, content in TREE.items():
        if content is not None:
            entry = reader.find(path)
            assert entry is not None
            assert b"".join(fetcher.fetch([row.tobytes() for row in reader.content(entry).ids])) == content
    assert [error.what for error in told] == ["an index object is missing"]


def test_a_share_of_the_data_is_read() -> None:
    repository = new_repository()
    for number in range(8):
        back_up(repository, {b"f": random.Random(number).randbytes(900)})
    report = check(repository, "data", subset=0.25)
    assert 0 < report.packs_read < report.packs


def test_senseless_arguments_are_refused(repository: Repository) -> None:
    for level, subset in (("deep", None), ("data", 0.0), ("data", 1.5)):
        with pytest.raises(UsageError):
            check(repository, level, subset)


@pytest.mark.parametrize(
    ("verb", "prefix"),
    [
        *[("get", prefix) for prefix in ("", "config", "keys/", "index/", "packs/", "snapshots/")],
        *[("list", prefix) for prefix in ("", "keys/", "packs/", "snapshots/")],
    ],
)
def test_a_store_that_refuses_is_a_finding(verb: str, prefix: str) -> None:
    repository = new_repository()
    back_up(repository, TREE)
    fault = Fault(verb, prefix, Refused("permission denied", subject=prefix))
    store = FaultyStore(repository.store, [fault])
    for level in ("structure", "data"):
        assert not check(Repository.attach(store, repository.credentials()), level).sound


class BusyStore(WrappedStore):
    """Each time something was listed, a backup of somebody else begins and ends."""

    backups = 0
    credentials: Credentials

    def list(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        listed = list(super().list(prefix))
        self.backups += 1
        back_up(Repository.attach(self.inner, self.credentials), TREE | {b"new": b"n%d" % self.backups * 90})
        return iter(listed)


@pytest.mark.parametrize("level", ["presence", "structure", "data"])
def test_backups_that_end_meanwhile_are_no_damage(level: str) -> None:
    repository = new_repository()
    back_up(repository, TREE)
    store = BusyStore(repository.store)
    store.credentials = repository.credentials()
    report = check(Repository.attach(store, store.credentials), level)
    assert report.findings == [] and store.backups > 2


def test_progress_can_end_a_check(repository: Repository) -> None:
    back_up(repository, TREE)

    def stop(what: str, done: int, total: int) -> None:
        raise Interrupted("interrupted")

    with pytest.raises(Interrupted):
        check(repository, "data", progress=stop)
