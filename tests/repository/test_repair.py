"""repair on small repositories: what it brings back, that it only adds and moves aside, that it can be interrupted."""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from model.errors import Damaged, LoxError, NewerFormat, Refused
from repository.affected import Wound
from repository.check import check
from repository.condemned import CONDEMNED_PREFIX, Reason, condemn, condemned_packs
from repository.fetch import ChunkFetcher
from repository.index import INDEX_PREFIX, ChunkIndex
from repository.manifest_reader import ManifestReader
from repository.pack import pack_name
from repository.reading_index import ReadingIndex
from repository.repair import QUARANTINE, RepairReport, repair
from repository.repository import Repository
from repository.snapshot import Snapshot, load_all
from repository.store import Store
from repository.store.memory import MemoryStore
from repository.store.wrappers import Fault, FaultyStore, RecordingStore
from repository.verified import VerifiedLog
from tests.repository.samples import CHUNK, Tree, back_up, new_repository

TREE = {
    b"": None,
    b"d": None,
    **{b"d/file%02d" % number: random.Random(number).randbytes(350) for number in range(12)},
}
LATER = TREE | {b"d/file99": random.Random(99).randbytes(2000)}


@pytest.fixture(params=[True, False], ids=["encrypted", "open"])
def repository(request: pytest.FixtureRequest) -> Repository:
    return new_repository(encrypted=request.param)


def files_of(repository: Repository, snapshot: Snapshot, tree: Tree) -> set[bytes]:
    """Files that come out as they went in, each copy of a chunk being as good as it is."""
    fetcher = ChunkFetcher(repository, ReadingIndex(repository, None, lambda error: None))
    reader = ManifestReader(snapshot.root, fetcher.fetch)
    whole = set()
    for path, content in tree.items():
        if content is None:
            continue
        try:
            if (entry := reader.find(path)) is None:
                continue
            data = b"".join(fetcher.fetch([row.tobytes() for row in reader.content(entry).ids]))
        except LoxError:
            continue
        assert data == content
        whole.add(path)
    return whole


def contents(tree: Tree) -> set[bytes]:
    return {path for path, content in tree.items() if content is not None}


def exchange(store: Store, name: str, data: bytes) -> None:
    store.delete(name)
    store.put(name, [data])


def names(repository: Repository, prefix: str) -> list[str]:
    return [name for name, _ in repository.store.list(prefix)]


def place_of(repository: Repository, chunk: bytes) -> tuple[str, int, int]:
    """The pack of a chunk, and where its segment lies in it."""
    index = ChunkIndex.load(repository, None, on_damage=lambda error: None)
    where = index.lookup(np.frombuffer(repository.keys.chunk_id(chunk), np.uint8).reshape(1, 32))
    row = int(where.segment[0])
    pack = where.packs[int(where.segments.pack[row])]
    return pack_name(pack), int(where.segments.offset[row]), int(where.segments.stored[row])


def damage_segment(repository: Repository, chunk: bytes) -> str:
    name, offset, stored = place_of(repository, chunk)
    data = bytearray(repository.store.get(name))
    data[offset + stored // 2] ^= 0x10
    exchange(repository.store, name, bytes(data))
    return name


def test_there_is_nothing_to_do_for_a_sound_repository(repository: Repository) -> None:
    back_up(repository, TREE)
    before = names(repository, "")
    report = repair(repository, apply=True, level="data")
    assert report.nothing_to_do and report.outlook.whole and report.check.sound
    assert names(repository, "") == before


def test_a_damaged_index_object_is_set_aside_and_backups_go_on(repository: Repository) -> None:
    first = back_up(repository, TREE)
    second = back_up(repository, LATER)
    damaged = names(repository, INDEX_PREFIX)[0]
    data = bytearray(repository.store.get(damaged))
    data[len(data) // 2] ^= 1
    exchange(repository.store, damaged, bytes(data))
    with pytest.raises(Damaged) as raised:
        back_up(repository, LATER)
    assert "lox repair" in raised.value.hint
    stored = names(repository, "")
    plan = repair(repository)
    assert [error.subject for error in plan.set_aside] == [damaged] and len(plan.unlisted) == 2
    assert names(repository, "") == stored, "a plan changes nothing"
    report = repair(repository, apply=True)
    assert report.outlook.whole and len(report.objects_written) == 1
    assert repository.store.get(QUARANTINE + damaged) == bytes(data)
    assert set(stored) - set(names(repository, "")) == {damaged}
    back_up(repository, LATER)
    assert check(repository, "data").sound and check(repository).notes == []
    for snapshot, tree in ((first, TREE), (second, LATER)):
        assert files_of(repository, snapshot, tree) == contents(tree)
    assert repair(repository).nothing_to_do


def test_a_missing_index_object_and_leftovers_of_killed_runs_are_named_again(repository: Repository) -> None:
    snapshot = back_up(repository, TREE)
    for name in names(repository, INDEX_PREFIX):
        repository.store.delete(name)
    assert not check(repository).sound
    repair(repository, apply=True)
    index = ChunkIndex.load(repository, None)
    assert index.packs and files_of(repository, snapshot, TREE) == contents(TREE)
    assert check(repository, "data").sound
    packs = len(names(repository, "packs/"))
    back_up(repository, TREE)
    assert len(names(repository, "packs/")) == packs, "what was left over is used"


def test_readable_chunks_of_a_damaged_pack_are_saved(repository: Repository) -> None:
    snapshot = back_up(repository, TREE)
    name = damage_segment(repository, (TREE[b"d/file00"] or b"")[:CHUNK])
    still = files_of(repository, snapshot, TREE)
    assert 0 < len(still) < len(contents(TREE))
    plan = repair(repository)
    assert plan.condemned == [], "nobody has read the pack"
    report = repair(repository, apply=True, level="data")
    assert [pack_name(pack.pack_id) for pack in report.condemned] == [name]
    assert report.chunks_salvaged > 0
    assert {wound.path for wound in report.outlook.curable} == contents(TREE) - still
    assert report.outlook.lost == [] and report.outlook.sources == [("box", (b"/data",))]
    repository.store.delete(name)  # what could be read does not depend on it any more
    assert files_of(repository, snapshot, TREE) == still
    assert repair(repository, level="data").nothing_to_do


def test_what_was_condemned_before_is_looked_at_again(repository: Repository) -> None:
    """A snapshot that was being made while a pack was condemned may rely on what is in it."""
    name, _, _ = place_of_new_chunk(repository)
    condemn(repository, [bytes.fromhex(name[-32:])], Reason.DAMAGED, 1)
    snapshot = load_all(repository)[0]
    report = repair(repository, apply=True)
    assert report.condemned == [] and report.chunks_salvaged > 0
    repository.store.delete(name)
    assert files_of(repository, snapshot, TREE) == contents(TREE)


def place_of_new_chunk(repository: Repository) -> tuple[str, int, int]:
    back_up(repository, TREE)
    return place_of(repository, (TREE[b"d/file00"] or b"")[:CHUNK])


def test_a_missing_pack_is_condemned_and_what_is_gone_for_good_is_told(repository: Repository) -> None:
    gone = {b"old": random.Random(33).randbytes(500)}
    first = back_up(repository, TREE | gone)
    second = back_up(repository, TREE, time=5)
    name, _, _ = place_of(repository, gone[b"old"][:CHUNK])
    repository.store.delete(name)
    report = repair(repository, apply=True)
    assert condemned_packs(repository) == {bytes.fromhex(name[-32:])}
    assert [wound.path for wound in report.outlook.lost] == [b"old"]
    assert {wound.path for wound in report.outlook.curable} == contents(TREE)
    assert {snapshot for wound in report.outlook.curable for snapshot in wound.snapshots} == {first.id, second.id}
    again = repair(repository, apply=True)
    assert again.nothing_to_do and [wound.path for wound in again.outlook.lost] == [b"old"]


def test_damage_that_an_earlier_check_saw_is_known(repository: Repository, tmp_path: Path) -> None:
    back_up(repository, TREE)
    name = damage_segment(repository, (TREE[b"d/file00"] or b"")[:CHUNK])
    check(repository, "data", verified=VerifiedLog.open(repository, tmp_path))
    plan = repair(repository, verified=VerifiedLog.open(repository, tmp_path))
    assert [pack_name(pack.pack_id) for pack in plan.condemned] == [name]


def test_a_mark_that_does_not_open_is_set_aside(repository: Repository) -> None:
    back_up(repository, TREE)
    (mark,) = condemn(repository, [bytes(16)], Reason.UNUSED, 1)
    exchange(repository.store, mark.name, repository.store.get(mark.name)[:-1])
    with pytest.raises(Damaged):
        condemned_packs(repository)
    repair(repository, apply=True)
    assert condemned_packs(repository) == frozenset()
    assert names(repository, QUARANTINE) == [QUARANTINE + mark.name.removeprefix("gc/")]


@pytest.mark.parametrize("prefix", ["index/", "packs/", "snapshots/", CONDEMNED_PREFIX])
def test_what_cannot_be_read_is_not_called_damaged(prefix: str) -> None:
    repository = new_repository()
    back_up(repository, TREE)
    condemn(repository, [bytes(16)], Reason.UNUSED, 1)
    before = names(repository, "")
    store = FaultyStore(repository.store, [Fault("get", prefix, Refused("permission denied", subject=prefix))])
    with pytest.raises(Refused):
        repair(Repository.attach(store, repository.credentials()), apply=True)
    assert names(repository, "") == before


def test_what_is_newer_is_not_called_damaged() -> None:
    from blake3 import blake3

    repository = new_repository()
    back_up(repository, TREE)
    (name,) = names(repository, INDEX_PREFIX)
    data = bytearray(repository.store.get(name)[:-32])
    data[4] = 2
    exchange(repository.store, name, bytes(data) + blake3(data).digest())
    before = names(repository, "")
    with pytest.raises(NewerFormat):
        repair(repository, apply=True)
    assert names(repository, "") == before


def broken() -> tuple[Repository, dict[str, set[bytes]]]:
    """A repository with every kind of damage, and which files of which snapshots can be restored in spite of it."""
    repository = new_repository()
    one, two = back_up(repository, TREE), back_up(repository, LATER, time=3)
    three = back_up(repository, LATER | {b"more": random.Random(55).randbytes(900)}, time=4)
    mark = condemn(repository, [bytes(16)], Reason.UNUSED, 1)[0]
    exchange(repository.store, mark.name, repository.store.get(mark.name)[:-1])
    index = names(repository, INDEX_PREFIX)[1]
    exchange(repository.store, index, repository.store.get(index)[:-5] + b"XXXXX")
    damage_segment(repository, (TREE[b"d/file00"] or b"")[:CHUNK])
    repository.store.delete(place_of(repository, (LATER[b"d/file99"] or b"")[:CHUNK])[0])
    return repository, {snapshot.id: files_of(repository, snapshot, LATER | TREE) for snapshot in (one, two, three)}


def copy_of(repository: Repository) -> Repository:
    store = MemoryStore()
    for name, _ in repository.store.list():
        store.put(name, [repository.store.get(name)])
    return Repository.attach(store, repository.credentials())


def assert_nothing_lost(repository: Repository, whole: dict[str, set[bytes]]) -> None:
    for snapshot in load_all(repository):
        assert files_of(repository, snapshot, LATER | TREE) >= whole[snapshot.id]


@pytest.mark.parametrize("late", [False, True], ids=["refused", "answer lost"])
def test_interrupted_where_it_writes_it_loses_nothing_and_can_be_run_again(late: bool) -> None:
    interrupt(late, ("put", "delete"))


@pytest.mark.slow
def test_interrupted_where_it_reads_it_loses_nothing_and_can_be_run_again() -> None:
    interrupt(False, ("get", "list"))


def interrupt(late: bool, verbs: Sequence[str]) -> None:
    repository, whole = broken()
    recording = RecordingStore(copy_of(repository).store)
    expected = repair(Repository.attach(recording, repository.credentials()), apply=True, level="data")
    total = len(recording.calls)
    assert total > 30
    for verb in verbs:
        for skip in range(len(recording.of(verb))):
            fault = Fault(verb, "", Refused("no", subject=verb), late=late, skip=skip, times=1)
            mine = copy_of(repository)
            packs, snapshots = set(names(mine, "packs/")), set(names(mine, "snapshots/"))
            store = FaultyStore(mine.store, [fault])
            with pytest.raises(Refused) if not is_of_no_consequence(recording, verb, skip) else suppress(Refused):
                repair(Repository.attach(store, mine.credentials()), apply=True, level="data")
            assert_nothing_lost(mine, whole)
            again = repair(mine, apply=True, level="data")
            assert wounded(again) == wounded(expected)
            assert_nothing_lost(mine, whole)
            back_up(mine, LATER)
            assert packs <= set(names(mine, "packs/")) and snapshots < set(names(mine, "snapshots/"))
            assert repair(mine, level="data").nothing_to_do


def is_of_no_consequence(recording: RecordingStore, verb: str, number: int) -> bool:
    """Whether a call reads keys, of which repair needs nothing more: the repository is open. Or deletes an object of
    its own session, which others find dead."""
    name = recording.of(verb)[number].name
    return name.startswith("keys/") or (verb == "delete" and name.startswith("sessions/"))


def wounded(report: RepairReport) -> tuple[set[Wound], set[Wound]]:
    return set(report.outlook.curable), set(report.outlook.lost)
