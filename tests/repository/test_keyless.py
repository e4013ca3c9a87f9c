"""check without a key, and the catalogue of hostile and damaged repositories: flips, swaps, lengths, bombs."""

from __future__ import annotations

import itertools
import random
import struct

import pytest
from blake3 import blake3

from model.errors import Damaged, LoxError
from repository.check import check
from repository.codecs import Codec, compressor, decompress
from repository.condemned import Reason, condemn
from repository.damaging import choose_packs, damage
from repository.keyless import check_keyless
from repository.repository import Repository
from repository.seal import CipherKind, ObjectKind
from tests.repository.samples import back_up, new_repository
from tests.repository.test_check import objects

TREE = {b"": None, **{b"file%02d" % number: random.Random(number).randbytes(350) for number in range(8)}}


@pytest.fixture(params=[True, False], ids=["encrypted", "open"])
def repository(request: pytest.FixtureRequest) -> Repository:
    repository = new_repository(encrypted=request.param)
    back_up(repository, TREE)
    back_up(repository, TREE | {b"more": b"m" * 200})
    condemn(repository, [bytes(16)], Reason.UNUSED, 1)
    return repository


def exchange(repository: Repository, name: str, data: bytes) -> None:
    repository.store.delete(name)
    repository.store.put(name, [data])


def test_a_sound_repository_is_sound_without_a_key(repository: Repository) -> None:
    report = check_keyless(repository.store)
    assert report.sound and report.packs_read == report.packs == 4 and report.snapshots == 2
    assert 0 < check_keyless(repository.store, 0.3).packs_read < 4


def test_every_kind_of_accident_is_found_without_a_key(repository: Repository) -> None:
    rng = random.Random(4)
    for name, data in objects(repository.store).items():
        for at in sorted({0, len(data) - 1, *(rng.randrange(len(data)) for _ in range(25))}):
            for bad in (data[:at], data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]):
                exchange(repository, name, bad)
                assert name in {finding.subject for finding in check_keyless(repository.store).findings}
        exchange(repository, name, data)
    assert check_keyless(repository.store).sound


def test_a_pack_in_the_place_of_another_is_found_without_a_key(repository: Repository) -> None:
    other = new_repository()
    back_up(other, TREE)
    theirs = next(data for name, data in objects(other.store).items() if name.startswith("packs/"))
    one, two = choose_packs(repository.store, 2, 1)
    (harm,) = damage(repository.store, [one], "swap", 1)
    assert one in {finding.subject for finding in check_keyless(repository.store).findings}, harm
    exchange(repository, two, theirs)
    assert two in {finding.subject for finding in check_keyless(repository.store).findings}
    index = next(name for name in objects(repository.store) if name.startswith("index/"))
    exchange(repository, index, next(data for name, data in objects(other.store).items() if name.startswith("index/")))
    assert index in {finding.subject for finding in check_keyless(repository.store).findings}


def test_any_two_objects_swapped_are_found(repository: Repository) -> None:
    """With encryption each object opens under its own name only; without, those of one kind look alike."""
    stored = objects(repository.store)
    for one, two in itertools.combinations(stored, 2):
        alike = one.partition("/")[0] == two.partition("/")[0]
        if one == "config" or (alike and one.startswith("keys/")):
            continue  # key slots have no name of their own; without a config nothing is opened at all
        exchange(repository, one, stored[two])
        exchange(repository, two, stored[one])
        subjects = {finding.subject for finding in check(repository, "data").findings}
        if repository.encrypted or not alike or one.startswith("packs/"):
            assert {one, two} & subjects, (one, two)
        exchange(repository, one, stored[one])
        exchange(repository, two, stored[two])
    assert check(repository, "data").sound


@pytest.mark.parametrize("value", [0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1])
def test_a_forged_length_is_refused_before_memory_is_taken(value: int) -> None:
    """In a repository without encryption anybody can make the checksum fit."""
    repository = new_repository(encrypted=False)
    back_up(repository, TREE)
    for name, data in objects(repository.store).items():
        if name.startswith(("index/", "snapshots/")):
            forged = bytearray(data[:-32])
            forged[24:32] = struct.pack("<Q", value)
            exchange(repository, name, bytes(forged) + blake3(forged).digest())
            assert name in {finding.subject for finding in check(repository).findings}
            exchange(repository, name, data)
        if name.startswith("packs/") and value < 2**32:
            for at in (8, 12):  # of the trailer: plain and stored length of the footer
                forged = bytearray(data[:-32])
                forged[len(data) - 48 + at : len(data) - 44 + at] = struct.pack("<I", value)
                exchange(repository, name, bytes(forged) + blake3(forged).digest())
                assert name in {finding.subject for finding in check(repository).findings}
            exchange(repository, name, data)


def bomb(codec: Codec, size: int) -> bytes:
    return compressor(codec)(bytes(size))


@pytest.mark.parametrize("codec", [Codec.ZSTD, Codec.LZ4, Codec.GZIP])
@pytest.mark.parametrize("said", [100, 1 << 20, (256 << 20) - 1])
def test_bombs_open_to_what_was_said_or_not_at_all(codec: Codec, said: int) -> None:
    size = 64 << 20
    packed = bomb(codec, size)
    assert len(packed) < size / 100
    if said >= size:
        said = size + 1
    with pytest.raises(Damaged):
        decompress(codec, packed, said)


def test_a_bomb_as_an_object_is_refused() -> None:
    repository = new_repository(encrypted=False)
    back_up(repository, TREE)
    name = next(name for name in objects(repository.store) if name.startswith("index/"))
    body = bomb(Codec.ZSTD, 300 << 20)
    for said in (32, 256 << 20, (256 << 20) + 1, 1 << 44):
        header = struct.pack(
            "<4sBBBB16sQ36s12s",
            b"LOXO",
            1,
            ObjectKind.INDEX,
            CipherKind.NONE,
            Codec.ZSTD,
            repository.id,
            said,
            bytes(36),
            bytes(12),
        )
        exchange(repository, name, header + body + blake3(header + body).digest())
        with pytest.raises(LoxError):
            repository.get_object(ObjectKind.INDEX, name)
