from __future__ import annotations

import os
import struct

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from model.errors import Damaged, NewerFormat
from repository.keyring import KeyRing
from repository.seal import PLAIN_MAX, Cipher, Envelope, ObjectKind
from tests.repository.damage import damaged, every_flip

REPO_ID = bytes(range(16))
SECRET = Cipher(KeyRing.of(bytes(32), REPO_ID))
OPEN = Cipher(KeyRing.public(REPO_ID))
BOTH = pytest.mark.parametrize("cipher", [SECRET, OPEN], ids=["encrypted", "not encrypted"])
NAME = "index/0123"
PLAIN = b"some index that compresses " * 20


def with_checksum(body: bytes) -> bytes:
    """An envelope whose checksum fits, as an attacker makes it."""
    return body + blake3(body).digest()


@BOTH
@given(plain=st.binary(max_size=3000), kind=st.sampled_from(ObjectKind))
def test_what_is_sealed_opens(cipher: Cipher, plain: bytes, kind: ObjectKind) -> None:
    assert cipher.open_object(kind, NAME, cipher.seal_object(kind, NAME, plain)) == plain


@BOTH
def test_compressible_objects_are_compressed(cipher: Cipher) -> None:
    assert len(cipher.seal_object(ObjectKind.INDEX, NAME, bytes(100000))) < 400
    assert len(cipher.seal_object(ObjectKind.INDEX, NAME, os.urandom(1000))) <= 1000 + 80 + 16 + 32


def test_nothing_of_the_content_shows() -> None:
    one, two = (SECRET.seal_object(ObjectKind.INDEX, NAME, PLAIN) for _ in range(2))
    assert b"index that" not in one
    assert one[36:] != two[36:]
    assert one[36:72] != two[36:72]  # salt: each object has a key of its own
    assert len(set(zip(one[84:], two[84:], strict=True))) > 10


@BOTH
def test_every_byte_counts(cipher: Cipher) -> None:
    for wrong in every_flip(cipher.seal_object(ObjectKind.INDEX, NAME, PLAIN)):
        with pytest.raises(Damaged) as caught:
            cipher.open_object(ObjectKind.INDEX, NAME, wrong)
        assert caught.value.subject == NAME


@BOTH
@given(data=st.data())
def test_any_damage_is_damage(cipher: Cipher, data: st.DataObject) -> None:
    wrong = data.draw(damaged(cipher.seal_object(ObjectKind.INDEX, NAME, PLAIN)))
    with pytest.raises(Damaged):
        cipher.open_object(ObjectKind.INDEX, NAME, wrong)


@BOTH
@given(data=st.data())
def test_forgeries_with_a_fitting_checksum_do_not_open(cipher: Cipher, data: st.DataObject) -> None:
    sealed = cipher.seal_object(ObjectKind.INDEX, NAME, PLAIN)
    forged = with_checksum(data.draw(damaged(sealed[:-32])))
    try:
        plain = cipher.open_object(ObjectKind.INDEX, NAME, forged)
    except (Damaged, NewerFormat):
        return
    assert cipher is OPEN, "encryption authenticates"
    assert len(plain) == struct.unpack_from("<Q", forged, 24)[0]


@BOTH
@given(st.binary(max_size=300))
def test_noise_is_damage(cipher: Cipher, data: bytes) -> None:
    for noise in (data, b"LOXO" + data, with_checksum(b"LOXO\x01" + data)):
        with pytest.raises((Damaged, NewerFormat)):
            cipher.open_object(ObjectKind.INDEX, NAME, noise)


def test_an_object_opens_only_in_its_place() -> None:
    sealed = SECRET.seal_object(ObjectKind.INDEX, NAME, PLAIN)
    with pytest.raises(Damaged):
        SECRET.open_object(ObjectKind.INDEX, "index/4567", sealed)
    with pytest.raises(Damaged):
        SECRET.open_object(ObjectKind.SNAPSHOT, NAME, sealed)
    with pytest.raises(Damaged):
        Cipher(KeyRing.of(bytes(32), bytes(16))).open_object(ObjectKind.INDEX, NAME, sealed)
    with pytest.raises(Damaged):
        Cipher(KeyRing.of(b"k" * 32, REPO_ID)).open_object(ObjectKind.INDEX, NAME, sealed)


def test_an_object_without_encryption_is_refused_by_a_repository_with() -> None:
    for writer, reader in ((OPEN, SECRET), (SECRET, OPEN)):
        with pytest.raises(Damaged):
            reader.open_object(ObjectKind.INDEX, NAME, writer.seal_object(ObjectKind.INDEX, NAME, PLAIN))


def test_a_newer_version_is_newer_only_if_it_is_whole() -> None:
    newer = bytearray(SECRET.seal_object(ObjectKind.INDEX, NAME, PLAIN)[:-32])
    newer[4] = 2
    with pytest.raises(NewerFormat) as caught:
        SECRET.open_object(ObjectKind.INDEX, NAME, with_checksum(bytes(newer)))
    assert caught.value.hint
    with pytest.raises(Damaged):
        SECRET.open_object(ObjectKind.INDEX, NAME, bytes(newer) + bytes(32))
    with pytest.raises(NewerFormat):
        SECRET.open_object(ObjectKind.INDEX, NAME, with_checksum(b"LOXO\x07"))


def test_a_length_that_would_fill_the_memory_is_refused_before() -> None:
    sealed = bytearray(OPEN.seal_object(ObjectKind.INDEX, NAME, PLAIN)[:-32])
    for length in (PLAIN_MAX, PLAIN_MAX + 1, 1 << 63):
        struct.pack_into("<Q", sealed, 24, length)
        with pytest.raises(Damaged):
            OPEN.open_object(ObjectKind.INDEX, NAME, with_checksum(bytes(sealed)))


def test_what_can_be_read_without_a_key() -> None:
    envelope = Envelope.parse(SECRET.seal_object(ObjectKind.SNAPSHOT, "snapshots/1", PLAIN), "snapshots/1")
    assert (envelope.kind, envelope.repo_id, envelope.plain_length) == (ObjectKind.SNAPSHOT, REPO_ID, len(PLAIN))


def test_a_cipher_prints_no_key() -> None:
    assert repr(SECRET) == "Cipher(AES_256_GCM)"
