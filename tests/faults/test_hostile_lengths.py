"""Every number in every header and table, set to what a hostile hand would write: F3 of the fault catalogue.

The checksums fit, and where there are keys they are the right ones: only the bounds stand between the number and an
allocation. The kernel keeps the limit, so that native libraries count.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from blake3 import blake3

from model.batches import PackBytes
from model.errors import LoxError
from repository.check import check
from repository.footer import encode_footer
from repository.index import INDEX_PREFIX
from repository.index_table import decode_index
from repository.keyless import check_keyless
from repository.keyring import KeyRing
from repository.pack import PackReader, pack_name
from repository.pack_keys import HEADER_SIZE, OVERHEAD
from repository.repository import Repository
from repository.scrub import verify_pack
from repository.seal import Cipher, ObjectKind
from repository.snapshot import Snapshot, load_all
from repository.store import MemoryStore
from tests.faults.bounded import bounded_memory
from tests.faults.forging import exchange, pack_with_footer, sealed, with_checksum
from tests.repository.samples import back_up, new_repository
from tests.repository.test_pack import TEXT, pack_of

MIB = 1 << 20
ROOM = 96 * MIB  # beside what is there: threads of the manifest reader take stacks
KEYS = {"encrypted": KeyRing.of(bytes(32), bytes(16)), "not encrypted": KeyRing.public(bytes(16))}
BOTH = pytest.mark.parametrize("keys", KEYS.values(), ids=KEYS)


@dataclass(frozen=True, slots=True)
class Number:
    """A little-endian number at `at`, `size` bytes long."""

    what: str
    at: int
    size: int

    def hostile(self, data: bytes) -> Iterator[bytes]:
        """`data` with other values here: none, the largest, those that are negative if signed, and neighbours."""
        value = int.from_bytes(data[self.at : self.at + self.size], "little")
        top = 1 << 8 * self.size
        values = {0, 1, value - 1, value + 1, 2 * value, top // 2 - 1, top // 2, top - 1}
        values |= {1 << 20, 1 << 31, (1 << 32) - 1, 1 << 40, 1 << 62}
        for other in sorted(values - {value}):
            if 0 <= other < top:
                yield data[: self.at] + other.to_bytes(self.size, "little") + data[self.at + self.size :]


def numbers(layout: str, begin: int = 0) -> list[Number]:
    """``"what:size"`` one after the other."""
    found, at = [], begin
    for part in layout.split():
        what, _, size = part.partition(":")
        found.append(Number(what, at, int(size)))
        at += int(size)
    return found


ENVELOPE = [
    number
    for number in numbers("magic:4 version:1 kind:1 cipher:1 codec:1 repository:16 plain:8")
    if number.what not in ("magic", "repository")
]
HEADER = [*numbers("version:1 kind:1 cipher:1 recipients:1", 4), *numbers("scheme:1 length:1 zero:2 epoch:4", 72)]
TRAILER = numbers("codec:1 zero:3 plain:4 stored:4", 4)
FOOTER = [*numbers("k:4 m:4"), *numbers("offset:4 stored:4 plain:4 codec:1", 8), *numbers("offset:4 stored:4", 24)]
INDEX = [
    *numbers("version:4 zero:4 p:4 s:4 n:8 zero:8"),
    *numbers("size:4 kind:1", 32 + 16),
    *numbers("pack:4 ordinal:4 offset:4 stored:4 plain:4 codec:1", 32 + 24),
]


def told(act: Callable[..., object], *arguments: object) -> str:
    """Whether `act` was refused by one of our errors; anything else that is raised is a failure of ours."""
    with bounded_memory(ROOM):
        try:
            act(*arguments)
        except LoxError:
            return "refused"
    return "harmless"


def test_the_limit_on_memory_is_kept() -> None:
    with bounded_memory(ROOM), pytest.raises(MemoryError):
        bytearray(2 * ROOM)
    assert len(bytearray(2 * ROOM)) == 2 * ROOM


@BOTH
@pytest.mark.parametrize("number", ENVELOPE, ids=lambda number: number.what)
def test_the_header_of_a_sealed_object(keys: KeyRing, number: Number) -> None:
    cipher = Cipher(keys)
    whole = cipher.seal_object(ObjectKind.INDEX, "index/0", b"some plain bytes " * 50)
    for wrong in number.hostile(whole[:-32]):
        assert told(cipher.open_object, ObjectKind.INDEX, "index/0", with_checksum(wrong)) == "refused"


@BOTH
@pytest.mark.parametrize("number", HEADER, ids=lambda number: number.what)
def test_the_header_of_a_pack(keys: KeyRing, number: Number) -> None:
    pack = pack_of(keys, TEXT)
    data = bytes(pack.parts[0])
    for wrong in number.hostile(data[: HEADER_SIZE - 16]):
        header = wrong + blake3(wrong).digest(16)
        told(PackReader(keys).open_header, header, pack.pack_id)
        reads(keys, pack, header + data[HEADER_SIZE:])


@BOTH
@pytest.mark.parametrize("number", TRAILER, ids=lambda number: number.what)
def test_the_trailer_of_a_pack(keys: KeyRing, number: Number) -> None:
    pack = pack_of(keys, TEXT)
    data = bytes(pack.parts[0])
    for wrong in number.hostile(data[-48:-32]):
        outcome = reads(keys, pack, with_checksum(data[:-48] + wrong))
        assert outcome == "refused" or number.what == "zero"


@BOTH
@pytest.mark.parametrize("number", FOOTER, ids=lambda number: f"{number.at}-{number.what}")
def test_the_footer_of_a_pack(keys: KeyRing, number: Number) -> None:
    """Sealed with the key of the pack, as somebody does who has the keys."""
    pack = pack_of(keys, TEXT)
    data = bytes(pack.parts[0])
    opened = PackReader(keys).open_header(data[:HEADER_SIZE], pack.pack_id)
    end = int(pack.receipt.segment_offset[-1] + pack.receipt.segment_stored[-1])
    plain = encode_footer(pack.receipt)
    for wrong in number.hostile(plain):
        reads(keys, pack, pack_with_footer(opened, data[:end], wrong))
    for length in (0, 1, 1 << 27, 1 << 28, (1 << 32) - 1):
        assert reads(keys, pack, pack_with_footer(opened, data[:end], plain, length)) == "refused"


def reads(keys: KeyRing, pack: PackBytes, data: bytes) -> str:
    """Reads a pack in every way there is."""
    store = MemoryStore()
    store.put(pack_name(pack.pack_id), [data])
    verdict = told(verify_pack, keys, pack.pack_id, data, pack.receipt)
    assert verdict == "harmless", "what is wrong with a pack is a finding, not an error"
    return told(PackReader(keys).read_footer, store, pack.pack_id, len(data))


@BOTH
@pytest.mark.parametrize("number", INDEX, ids=lambda number: f"{number.at}-{number.what}")
def test_the_table_of_an_index(keys: KeyRing, number: Number) -> None:
    """As a key holder writes it: check and readers go on without it, or with an index that is consistent in itself."""
    repository = new_repository(keys.encrypted)
    back_up(repository, {b"d": None, b"d/f": b"x" * 500})
    ((name, _),) = repository.store.list(INDEX_PREFIX)
    plain = repository.get_object(ObjectKind.INDEX, name)
    for wrong in number.hostile(plain):
        told(decode_index, wrong)
        forged = sealed(repository.keys, ObjectKind.INDEX, name, 0, len(wrong), wrong)
        exchange(repository.store, name, forged)
        assert told(check, repository, "data") == "harmless"


LENGTHS = [-(1 << 63), -1, 0, 1, 1 << 31, (1 << 32) - 1, 1 << 40, 1 << 62, 1 << 200]


@pytest.mark.parametrize("where", ["chunk", "parts", "rows", "bytes", "chunks"])
def test_the_numbers_of_a_snapshot(where: str) -> None:
    repository = new_repository()
    snapshot = back_up(repository, {b"d": None, b"d/f": b"x" * 500})
    for length in LENGTHS:
        exchange(repository.store, snapshot.name, _forged_snapshot(repository, snapshot, where, length))
        assert told(check, repository, "data") == "harmless"
        if length != 1:  # there is one part
            assert not check(repository, "data").sound or where == "bytes"


def _forged_snapshot(repository: Repository, snapshot: Snapshot, where: str, length: int) -> bytes:
    document = json.loads(snapshot.encode())
    if where == "chunk":
        document["manifest"]["chunks"][0]["length"] = length
    elif where == "chunks":
        document["manifest"]["chunks"] *= max(0, min(length, 5000))
    else:
        document["manifest"][where] = length
    plain = json.dumps(document).encode()
    return sealed(repository.keys, ObjectKind.SNAPSHOT, snapshot.name, 0, len(plain), plain)


def test_packs_of_impossible_sizes() -> None:
    """The listing says how large a pack is; whatever it says, nothing is believed."""
    keys = KEYS["encrypted"]
    pack = pack_of(keys, TEXT)
    store = MemoryStore()
    store.put(pack_name(pack.pack_id), pack.parts)
    for size in (-1, 0, 1, 47, 48, HEADER_SIZE, HEADER_SIZE + OVERHEAD + 48, 1 << 31, 1 << 62):
        assert told(PackReader(keys).read_footer, store, pack.pack_id, size) == "refused"
    for size in (pack.size - 1, pack.size + 1, 2 * pack.size, 1 << 30):
        told(PackReader(keys).read_footer, store, pack.pack_id, size)


def test_without_keys_too() -> None:
    """The keyless check reads the same headers."""
    repository = new_repository()
    back_up(repository, {b"d": None, b"d/f": b"x" * 500})
    for name, _ in list(repository.store.list()):
        whole = repository.store.get(name)
        fields = [*ENVELOPE, *HEADER]
        for number in fields:
            for wrong in number.hostile(whole):
                exchange(repository.store, name, wrong)
                assert told(check_keyless, repository.store) == "harmless"
        exchange(repository.store, name, whole)
    assert load_all(repository)
