"""A store that is full can be cleaned up all the same."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from model.errors import StoreFull
from repository.check import check
from repository.mirror import sync
from repository.prune import prune
from repository.repository import Repository
from repository.reserve import RESERVE_BYTES, RESERVE_PREFIX, drawing_on_reserve, give_up_reserve, hold_reserve
from repository.snapshot import load_all
from repository.store import Bytes, MemoryStore
from repository.trash import load_trash
from tests.repository.prunes import ALL, Home, bytes_of


class SmallStore(MemoryStore):
    """Takes so many bytes and no more."""

    def __init__(self) -> None:
        super().__init__()
        self.room = 1 << 62

    def put(self, name: str, parts: Sequence[Bytes]) -> None:
        if self.used() + sum(memoryview(part).nbytes for part in parts) > self.room:
            raise StoreFull("store failed", subject=name, why="no room")
        super().put(name, parts)

    def used(self) -> int:
        return sum(size for _, size in self.list())

    def fill(self) -> None:
        """From now on not one byte more."""
        self.room = self.used()


@pytest.fixture
def store() -> SmallStore:
    return SmallStore()


@pytest.mark.parametrize("reserve", [True, False])
def test_forgetting_and_pruning_a_full_store(store: SmallStore, reserve: bool) -> None:
    home = Home(store)
    if reserve:
        assert hold_reserve(store)
    old = home.keep(a=bytes_of(1, 400))
    home.keep(a=bytes_of(2, 10))
    store.fill()
    if not reserve:
        with pytest.raises(StoreFull) as caught:
            home.forget(old)
        assert "a MiB is enough" in caught.value.hint
        with pytest.raises(StoreFull) as caught:
            prune(home.repository, ALL)
        assert "a MiB is enough" in caught.value.hint
        home.verify()
        return
    home.forget(old)
    before = sum(home.packs().values())
    report = prune(home.repository, ALL)
    assert report.deleted >= 1 and sum(home.packs().values()) < before - 30_000
    home.verify()
    assert load_trash(home.repository) == []
    assert hold_reserve(store), "there is room for a new one"


def test_what_takes_the_place_of_index_objects_may_come_after_the_packs(store: SmallStore) -> None:
    """There is room for a session and marks, and not for a copy of the index."""
    home = Home(store)
    home.keep(a=bytes_of(1, 40), b=bytes_of(2, 3000))
    (large,) = [name for name, _ in store.list("index/")]
    doomed = home.store_apart(bytes_of(3, 3000), indexed=False)
    from repository.cache import read_index_object
    from repository.index import ChunkIndex, save_index
    from repository.receipts import Receipts

    index = ChunkIndex([read_index_object(home.repository, large)])
    save_index(home.repository, [*(Receipts(index).of(row) for row in range(len(index.packs))), doomed])
    store.delete(large)
    store.room = store.used() + 8_000
    assert max(size for _, size in store.list("index/")) > 20_000
    report = prune(home.repository, ALL)
    assert report.deleted == 1 and report.index_written == 1
    home.verify_lean()


def test_the_reserve_is_given_up_once_and_for_want_of_room_only(store: SmallStore) -> None:
    hold_reserve(store)
    hold_reserve(store)
    assert [size for _, size in store.list(RESERVE_PREFIX)] == [RESERVE_BYTES]
    tries: list[int] = []

    def work() -> str:
        tries.append(1)
        store.put(f"notes/{len(tries)}", [b"x"])
        return "done"

    assert drawing_on_reserve(store, work) == "done"
    assert list(store.list(RESERVE_PREFIX)) and tries == [1]
    store.fill()
    assert drawing_on_reserve(store, work) == "done"
    assert not list(store.list(RESERVE_PREFIX)) and len(tries) == 3
    store.fill()
    with pytest.raises(StoreFull):
        drawing_on_reserve(store, work)
    assert len(tries) == 4 and not give_up_reserve(store)
    assert not hold_reserve(store), "no room, no error"


def test_a_mirror_has_a_reserve_of_its_own_or_none(store: SmallStore) -> None:
    home, mirror = Home(store), MemoryStore()
    hold_reserve(store)
    home.keep(a=bytes_of(1, 4))
    sync(store, mirror)
    assert not list(mirror.list(RESERVE_PREFIX))
    hold_reserve(mirror)
    sync(store, mirror, delete=True)
    assert list(mirror.list(RESERVE_PREFIX))
    copy = Repository.open(mirror, "secret")
    assert check(copy, "data").findings == [] and len(load_all(copy)) == 1
