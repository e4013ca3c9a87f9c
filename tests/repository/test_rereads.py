"""B7: bytes that come wrong once are no damage; they are read again, counted, and told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from model.errors import Damaged
from repository.check import check
from repository.fetch import ChunkFetcher
from repository.index import ChunkIndex
from repository.keyless import check_keyless
from repository.mirror import sync
from repository.prune import prune
from repository.repair import repair
from repository.repository import Repository
from repository.rereads import Rereads
from repository.snapshot import load_all
from repository.store import MemoryStore, Store
from repository.store.wrappers import Fault, FaultyStore
from tests.pipelines.helpers import Place, differences
from tests.repository.prunes import ALL, Home, bytes_of, flipped
from tests.repository.samples import content_of


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def bent(data: bytes) -> bytes:
    return flipped(data, len(data) // 2)


WRONG = {"flipped": bent, "cut": cut, "empty": lambda data: b""}


@pytest.fixture(scope="module")
def filled() -> dict[str, bytes]:
    home = Home()
    home.pass_by(a=bytes_of(1, 30), b=bytes_of(2, 30))
    home.keep(a=bytes_of(1, 30), c=bytes_of(3, 30))
    return home.objects()


def flaky(objects: dict[str, bytes], fault: Fault) -> Repository:
    """The repository over a connection that goes wrong once it is open."""
    store = MemoryStore()
    for name, data in objects.items():
        store.put(name, [data])
    repository = Repository.open(store, "secret")
    repository.store = FaultyStore(store, [fault])
    return repository


def read_all(repository: Repository) -> None:
    (snapshot,) = load_all(repository)
    assert content_of(repository, snapshot, b"data/a") == bytes_of(1, 30)


def checked(repository: Repository) -> None:
    assert check(repository, "data").findings == []


def structure(repository: Repository) -> None:
    assert check(repository, "structure").findings == []


def pruned(repository: Repository) -> None:
    report = prune(repository, ALL)
    assert report.damaged == [] and report.deleted > 0
    assert check(repository, "data").findings == []


def planned(repository: Repository) -> None:
    assert repair(repository, level="data").nothing_to_do


WORK: dict[str, Callable[[Repository], None]] = {
    "reading": read_all,
    "check": checked,
    "structure": structure,
    "prune": pruned,
    "repair": planned,
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("work", WORK)
def test_each_read_goes_wrong_once(filled: dict[str, bytes], work: str, wrong: str) -> None:
    told = 0
    for prefix in ("packs/", "index/", "snapshots/", "gc/", "trash/"):
        for skip in range(100):
            fault = Fault("get", prefix, change=WRONG[wrong], skip=skip, times=1)
            repository = flaky(filled, fault)
            WORK[work](repository)
            if fault.times:
                break
            told += repository.rereads.count
    assert told > 3


@pytest.mark.parametrize("wrong", WRONG)
def test_opening_over_a_bad_line(filled: dict[str, bytes], wrong: str) -> None:
    sound = flaky(filled, Fault("get", "none/"))
    sound.rotate()
    for prefix, least in (("config", 1), ("keys/", 2)):
        told = 0
        for skip in range(20):
            fault = Fault("get", prefix, change=WRONG[wrong], skip=skip, times=1)
            repository = Repository.open(FaultyStore(sound.store, [fault]), "secret")
            assert repository.keys.epoch == 1 and not repository.keys.doubt
            if fault.times:
                break
            told += repository.rereads.count
        assert told >= least


@pytest.mark.parametrize("wrong", WRONG)
def test_a_check_without_keys_over_a_bad_line(filled: dict[str, bytes], wrong: str) -> None:
    sound, told = flaky(filled, Fault("get", "none/")).store, 0
    for skip in range(len(filled)):
        store, rereads = FaultyStore(sound, [Fault("get", "", change=WRONG[wrong], skip=skip, times=1)]), Rereads()
        assert check_keyless(store, rereads=rereads).sound
        told += rereads.count
    assert told > len(filled) / 2
    assert not check_keyless(FaultyStore(sound, [Fault("get", "packs/", change=WRONG[wrong])])).sound


def test_what_is_wrong_twice_is_damage(filled: dict[str, bytes]) -> None:
    repository = flaky(filled, Fault("get", "packs/", change=bent))
    with pytest.raises(Damaged):
        read_all(repository)
    assert check(repository, "data").findings
    assert repository.rereads.count == 0


def test_a_mirror_gets_what_came_right_the_second_time(filled: dict[str, bytes]) -> None:
    for skip in range(len(filled)):
        source, target = flaky(filled, Fault("get", "", change=bent, skip=skip + 1, times=1)).store, MemoryStore()
        report = sync(source, target)
        assert report.findings == {} and len(list(target.list())) == len(filled)


@pytest.mark.parametrize("wrong", WRONG)
def test_a_restore_over_a_bad_line(tmp_path: Path, wrong: str) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    for number in range(5):
        (tree / f"file{number}").write_bytes(bytes_of(number, 2000))
    place = Place(tmp_path / "repository", executor="inline", lanes=1)
    snapshot = place.backup(tree).snapshot
    assert snapshot is not None
    sound: Store = place.repository.store
    told = 0
    for skip in range(100):
        fault = Fault("get", "packs/", change=WRONG[wrong], skip=skip, times=1)
        place.repository.store = FaultyStore(sound, [fault])
        before = place.repository.rereads.count
        report = place.restore(snapshot, tmp_path / f"out{skip}")
        assert report.problems == []
        assert differences(tree, tmp_path / f"out{skip}" / str(tree)[1:]) == ""
        if fault.times:
            break
        told += place.repository.rereads.count - before
    assert told > 2


def test_chunks_are_fetched_again_without_a_trace_of_the_first_reading(filled: dict[str, bytes]) -> None:
    repository = flaky(filled, Fault("get", "packs/", change=bent, times=1))
    index = ChunkIndex.load(repository, None)
    fetcher = ChunkFetcher(repository, index)
    ids = [row.tobytes() for table in index.tables for row in table.ids]
    for chunk_id, chunk in zip(ids, fetcher.fetch(ids), strict=True):
        assert repository.keys.chunk_id(chunk) == chunk_id
    assert repository.rereads.count == 1 and repository.rereads.names[0].startswith("packs/")
