"""What every store promises. Subclass `StoreContract` and give it a `store` fixture: an empty store."""

from __future__ import annotations

import threading

import pytest

from model.errors import Exists, Missing
from repository.store import Store


class StoreContract:
    """Tests run against each implementation; they talk to it through the interface only."""

    beside = "packsaddle"  # a name that is not in packs/; stores of ours alone may not take this one

    def test_what_is_put_is_got(self, store: Store) -> None:
        store.put("config", [b"hello"])
        assert store.get("config") == b"hello"
        assert store.size("config") == 5
        assert store.exists("config")

    def test_parts_of_any_kind_are_joined(self, store: Store) -> None:
        store.put("packs/aa/one", [b"head", bytearray(b"-body-"), memoryview(b"xxtailxx")[2:6], b""])
        assert store.get("packs/aa/one") == b"head-body-tail"

    def test_many_parts_are_joined(self, store: Store) -> None:
        parts = [bytes([number % 251]) * (number % 7) for number in range(3000)]
        store.put("packs/aa/many", parts)
        assert store.get("packs/aa/many") == b"".join(parts)

    def test_an_object_may_be_empty(self, store: Store) -> None:
        store.put("index/empty", [])
        assert store.get("index/empty") == b""
        assert list(store.list("index/")) == [("index/empty", 0)]

    def test_large_objects_come_back_whole(self, store: Store) -> None:
        part = bytes(range(256)) * 4096
        store.put("packs/bb/large", [part, memoryview(part), part])
        assert store.get("packs/bb/large") == part * 3

    @pytest.mark.parametrize(
        ("offset", "length", "expected"),
        [
            (0, None, b"0123456789"),
            (3, None, b"3456789"),
            (0, 4, b"0123"),
            (7, 2, b"78"),
            (8, 5, b"89"),
            (10, 3, b""),
            (99, None, b""),
            (2, 0, b""),
        ],
    )
    def test_ranges(self, store: Store, offset: int, length: int | None, expected: bytes) -> None:
        store.put("packs/cc/digits", [b"0123456789"])
        assert store.get("packs/cc/digits", offset, length) == expected

    def test_a_huge_length_costs_nothing(self, store: Store) -> None:
        store.put("config", [b"small"])
        assert store.get("config", 0, 1 << 62) == b"small"

    def test_a_name_is_taken_once(self, store: Store) -> None:
        store.put("snapshots/a", [b"first"])
        with pytest.raises(Exists):
            store.put("snapshots/a", [b"second"])
        assert store.get("snapshots/a") == b"first"

    def test_of_many_writers_of_one_name_one_wins(self, store: Store) -> None:
        outcomes: list[bytes | None] = []
        gate = threading.Barrier(8)

        def write(content: bytes) -> None:
            gate.wait()
            try:
                store.put("snapshots/race", [content])
                outcomes.append(content)
            except Exists:
                outcomes.append(None)

        threads = [threading.Thread(target=write, args=(bytes([number]) * 1000,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        winners = [content for content in outcomes if content is not None]
        assert len(outcomes) == 8
        assert winners == [store.get("snapshots/race")]

    def test_what_is_not_there_is_missing(self, store: Store) -> None:
        for action in (store.get, store.size, store.delete):
            with pytest.raises(Missing) as caught:
                action("packs/aa/nothing")
            assert "packs/aa/nothing" in str(caught.value)
        assert not store.exists("packs/aa/nothing")

    def test_a_listing_is_sorted_and_complete(self, store: Store) -> None:
        names = ["packs/ab/x", "packs/aa/y", "packs/aa/b", "keys/one", "config", "index/0", "packs/aa.b", "packs/aa-c"]
        for name in names:
            store.put(name, [name.encode()])
        assert list(store.list()) == sorted((name, len(name)) for name in names)

    def test_a_listing_can_be_narrowed(self, store: Store) -> None:
        for name in ["packs/aa/1", "packs/ab/2", "packs/b/3", self.beside, "keys/k"]:
            store.put(name, [b"."])
        assert [name for name, _ in store.list("packs/")] == ["packs/aa/1", "packs/ab/2", "packs/b/3"]
        assert [name for name, _ in store.list("packs/a")] == ["packs/aa/1", "packs/ab/2"]
        assert [name for name, _ in store.list("packs/ab/")] == ["packs/ab/2"]
        assert [name for name, _ in store.list("packs/ab/2")] == ["packs/ab/2"]
        assert [name for name, _ in store.list("snapshots/")] == []

    def test_deleted_is_gone_and_its_name_free(self, store: Store) -> None:
        store.put("keys/old", [b"1"])
        store.delete("keys/old")
        assert not store.exists("keys/old")
        assert list(store.list("keys/")) == []
        store.put("keys/old", [b"2"])
        assert store.get("keys/old") == b"2"

    @pytest.mark.parametrize(
        "name", ["", "/etc/passwd", "../x", "a/../b", "a//b", "a/", ".tmp-1", "a/.b", "A", "a\n", "ä"]
    )
    def test_names_that_could_leave_the_store_are_refused(self, store: Store, name: str) -> None:
        for action in (store.get, store.size, store.delete, lambda name: store.put(name, [b""])):
            with pytest.raises(AssertionError):
                action(name)
