"""Bytes that grow, behind seals that fit, and keys that cost hours: F4 and F5 of the fault catalogue.

Who has the keys, or finds a repository without encryption, can seal anything. What it opens to is bounded by what its
header says, and that by the format.
"""

from __future__ import annotations

import gzip
import json
import struct
import time
from collections.abc import Callable
from dataclasses import asdict, replace

import lz4.block
import pytest
import zstandard

from model.errors import Damaged, LoxError, WrongPassword
from repository.check import check
from repository.codecs import Codec
from repository.documents import document_checksum, encode_document
from repository.fetch import ChunkFetcher
from repository.index import ChunkIndex, save_index
from repository.keys import KdfParams
from repository.repair import repair
from repository.repository import Repository
from repository.scrub import verify_pack
from repository.seal import PLAIN_MAX, ObjectKind
from repository.slots import SLOTS_MAX, KeySlot, SlotKind
from repository.snapshot import load_all
from repository.trash import load_trash
from tests.faults.bounded import bounded_memory
from tests.faults.forging import exchange, pack_with_segment, sealed
from tests.repository.samples import CHEAP, back_up, new_repository

MIB = 1 << 20
GROWN = 96 * MIB  # what the bombs grow to
ROOM = 64 * MIB
SAID = 100_000  # what their headers say
TREE = {b"d": None, b"d/f": b"x" * 500}


def _zstd_claiming(size: int) -> bytes:
    """A frame whose header claims `size` bytes."""
    return b"\x28\xb5\x2f\xfd" + bytes([0xE0]) + struct.pack("<Q", size) + b"\x01\x00\x00"


def _zstd_window(log: int) -> bytes:
    """A frame that asks for a window of 2^log bytes; its content size is what the header says."""
    parameters = zstandard.ZstdCompressionParameters(window_log=log, enable_ldm=True, write_content_size=True)
    frame = zstandard.ZstdCompressor(compression_params=parameters).compress(bytes((1 << log) + 1))
    return frame


BOMBS: dict[str, tuple[Codec, Callable[[], bytes], int]] = {
    "zstd": (Codec.ZSTD, lambda: zstandard.ZstdCompressor().compress(bytes(GROWN)), SAID),
    "zstd without a size": (
        Codec.ZSTD,
        lambda: zstandard.ZstdCompressor(write_content_size=False).compress(bytes(GROWN)),
        SAID,
    ),
    "zstd claiming 16 TiB": (Codec.ZSTD, lambda: _zstd_claiming(1 << 44), SAID),
    "zstd, a small frame before a bomb": (
        Codec.ZSTD,
        lambda: zstandard.ZstdCompressor().compress(bytes(SAID)) + zstandard.ZstdCompressor().compress(bytes(GROWN)),
        SAID,
    ),
    "zstd lying": (Codec.ZSTD, lambda: _zstd_claiming(SAID), SAID),
    "zstd with a window of 32 MiB": (Codec.ZSTD, lambda: _zstd_window(25), (1 << 25) + 1),
    "gzip": (Codec.GZIP, lambda: gzip.compress(bytes(GROWN), 9), SAID),
    "gzip of many members": (Codec.GZIP, lambda: gzip.compress(bytes(SAID)) + gzip.compress(bytes(GROWN)), SAID),
    "lz4": (Codec.LZ4, lambda: lz4.block.compress(bytes(GROWN), store_size=False), SAID),
    "lz4 with a size in front": (Codec.LZ4, lambda: lz4.block.compress(bytes(GROWN), store_size=True), SAID),
}
EVERY = pytest.mark.parametrize("bomb", BOMBS)


@pytest.fixture(params=[True, False], ids=["encrypted", "not encrypted"])
def repository(request: pytest.FixtureRequest) -> Repository:
    repository = new_repository(request.param)
    back_up(repository, TREE)
    return repository


@EVERY
def test_in_sealed_objects(repository: Repository, bomb: str) -> None:
    codec, make, said = BOMBS[bomb]
    body = make()
    for kind, name in (
        (ObjectKind.INDEX, "index/" + "0" * 32),
        (ObjectKind.SNAPSHOT, "snapshots/" + "0" * 32),
        (ObjectKind.MARK, "gc/condemned/" + "0" * 32),
    ):
        data = sealed(repository.keys, kind, name, codec, said, body)
        with bounded_memory(ROOM), pytest.raises(Damaged) as caught:
            repository.cipher.open_object(kind, name, data)
        assert caught.value.subject == name
        repository.store.put(name, [data])
    with bounded_memory(ROOM):
        assert len(load_all(repository).unreadable) == 1
        assert len(check(repository, "data").findings) == 3
        assert len(repair(repository).set_aside) == 2


@EVERY
def test_in_segments(repository: Repository, bomb: str) -> None:
    codec, make, said = BOMBS[bomb]
    chunk_id = bytes(range(32))
    pack = pack_with_segment(repository, codec, said, make(), chunk_id)
    save_index(repository, [pack.receipt])
    data = b"".join(bytes(part) for part in pack.parts)
    with bounded_memory(ROOM):
        assert verify_pack(repository.keys, pack.pack_id, data, pack.receipt).lost == [chunk_id]
        fetcher = ChunkFetcher(repository, ChunkIndex.load(repository, None))
        with pytest.raises(Damaged):
            fetcher.fetch([chunk_id])
        assert not check(repository, "data").sound


@pytest.mark.parametrize("kind", [ObjectKind.CONFIG, ObjectKind.SNAPSHOT, ObjectKind.MARK])
def test_an_honest_size_is_a_bomb_where_objects_are_small(repository: Repository, kind: ObjectKind) -> None:
    """A few KiB that say themselves that they open to 256 MiB."""
    body = zstandard.ZstdCompressor().compress(bytes(PLAIN_MAX))
    name = {ObjectKind.CONFIG: "config", ObjectKind.SNAPSHOT: "snapshots/" + "0" * 32}.get(
        kind, "trash/snapshots/" + "0" * 32 + "/" + "0" * 32
    )
    data = sealed(repository.keys, kind, name, Codec.ZSTD, PLAIN_MAX, body)
    if kind is ObjectKind.CONFIG:
        exchange(repository.store, name, data)
        with bounded_memory(ROOM), pytest.raises(Damaged):
            Repository.open(repository.store, "secret" if repository.encrypted else None)
        return
    repository.store.put(name, [data])
    unreadable: list[str] = []
    with bounded_memory(ROOM):
        unreadable += [name for name, _ in load_all(repository).unreadable]
        load_trash(repository, lambda name, error: unreadable.append(name))
    assert unreadable == [name]


# ---- keys


def slot_like(slot: KeySlot, kdf: dict[str, int], created: int = 0) -> bytes:
    """A slot that costs what `kdf` says, with a checksum that fits."""
    document = json.loads(slot.encode())
    del document["checksum"]
    document |= {"argon2id": kdf, "created": created}
    return encode_document(document | {"checksum": document_checksum(document)})


HOSTILE_COSTS = [
    {"memory_kib": 1 << 40, "iterations": 1, "lanes": 1},
    {"memory_kib": 64, "iterations": 10**9, "lanes": 1},
    {"memory_kib": 4096, "iterations": 1, "lanes": 255},
    {"memory_kib": -1, "iterations": 1, "lanes": 1},
    {"memory_kib": 64, "iterations": 0, "lanes": 0},
    {"memory_kib": 1 << 200, "iterations": 1 << 200, "lanes": 1 << 200},
]


@pytest.mark.parametrize("cost", HOSTILE_COSTS)
def test_impossible_costs_are_damage_and_cost_nothing(cost: dict[str, int]) -> None:
    repository = new_repository()
    slot = next(slot for slot in repository.list_keys().slots if slot.kind is SlotKind.PASSWORD)
    repository.store.put("keys/" + "0" * 32, [slot_like(slot, cost)])
    began = time.perf_counter()
    with bounded_memory(ROOM):
        Repository.open(repository.store, "secret")
    assert time.perf_counter() - began < 2
    (problem,) = repository.list_keys().problems
    assert isinstance(problem, Damaged)
    exchange(repository.store, slot.name, slot_like(slot, cost))
    with bounded_memory(ROOM), pytest.raises(Damaged):
        Repository.open(repository.store, "secret")


def test_slots_that_cost_hours_are_tried_last() -> None:
    """As many slots as there may be, at the highest cost there may be: the right password does not wait for them."""
    repository = new_repository()
    slots = repository.list_keys().slots
    password = next(slot for slot in slots if slot.kind is SlotKind.PASSWORD)
    dear = asdict(KdfParams(memory_kib=2 << 20, iterations=16, lanes=1))
    for number in range(SLOTS_MAX - len(slots)):
        repository.store.put(f"keys/{number:032x}", [slot_like(password, dear)])
    assert len(repository.list_keys().slots) == SLOTS_MAX
    began = time.perf_counter()
    with bounded_memory(ROOM):
        Repository.open(repository.store, "secret")
    assert time.perf_counter() - began < 5


def test_thousands_of_slots_are_refused_before_any_is_tried() -> None:
    repository = new_repository()
    slot = repository.list_keys().slots[0]
    for number in range(5000):
        repository.store.put(f"keys/{number:032x}", [slot.encode()])
    began = time.perf_counter()
    with pytest.raises(Damaged) as caught:
        Repository.open(repository.store, "secret")
    assert str(SLOTS_MAX) in caught.value.why and time.perf_counter() - began < 2
    assert not isinstance(caught.value, WrongPassword)
    with pytest.raises(LoxError):
        repository.add_password("one more", "", CHEAP)
    assert any(finding.subject == "keys/" for finding in check(repository).findings)


def test_a_slot_of_a_mebibyte_is_not_parsed() -> None:
    repository = new_repository()
    slot = repository.list_keys().slots[0]
    repository.store.put("keys/" + "f" * 32, [replace(slot, id="f" * 32).encode(), b" " * MIB])
    (problem,) = repository.list_keys().problems
    assert "too large" in str(problem)
    Repository.open(repository.store, "secret")
