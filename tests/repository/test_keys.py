from __future__ import annotations

import hashlib
import hmac
import json
import pickle
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.errors import ConfigError, Damaged, LoxError, NewerFormat, NotFound, UsageError, WrongPassword
from repository.keyring import Epoch, KeyRing
from repository.keys import (
    KdfParams,
    format_recovery_code,
    hkdf,
    parse_recovery_code,
    purpose_info,
    stretch_password,
)
from repository.slots import (
    SLOTS_MAX,
    KeySlot,
    create_password_slot,
    create_recovery_slot,
    read_slots,
    remove_slot,
)
from repository.store import MemoryStore
from repository.unlocking import unlock
from tests.repository.damage import damaged, every_flip

CHEAP = KdfParams(64, 1, 1)
MASTER = bytes(range(32))
REPO_ID = bytes(range(16))
FIRST = Epoch.first(REPO_ID, MASTER)


def test_hkdf_as_in_rfc_5869() -> None:
    secret, salt, info = bytes([0x0B] * 22), bytes(range(13)), bytes(range(0xF0, 0xFA))
    assert hkdf(secret, info, salt, 42).hex() == (
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
    )
    assert hkdf(secret, b"", b"", 42).hex() == (
        "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"
    )


def test_purposes_cannot_run_into_each_other() -> None:
    assert purpose_info("ab", b"c" * 16) == b"\x03lox\x02v1\x02ab\x10" + b"c" * 16


def keys_of(epoch: Epoch) -> tuple[bytes, bytes, bytes]:
    return epoch.data_key, epoch.meta_key, epoch.object_key


def test_every_purpose_and_repository_has_keys_of_its_own() -> None:
    rings = [KeyRing.of(MASTER, REPO_ID), KeyRing.of(MASTER, bytes(16)), KeyRing.of(bytes(32), REPO_ID)]
    keys = [key for ring in rings for key in (ring.id_key, ring.chunker_key, *keys_of(ring.epochs[0]))]
    assert len(set(keys)) == 15
    assert all(key is not None and len(key) == 32 for key in keys)


def test_chunk_ids() -> None:
    ring = KeyRing.of(MASTER, REPO_ID)
    assert ring.id_key is not None
    assert ring.chunk_id(b"abc") == hmac.digest(ring.id_key, b"abc", "sha256")
    assert KeyRing.public(REPO_ID).chunk_id(memoryview(b"abc")) == hashlib.sha256(b"abc").digest()
    assert KeyRing.public(REPO_ID).chunker_key == bytes(32)


def test_no_key_is_printed() -> None:
    store = MemoryStore()
    unlocked = create_password_slot(store, REPO_ID, FIRST, "hunter2", "mine", CHEAP)
    slot = unlocked.slot
    ring = KeyRing.of(MASTER, REPO_ID)
    shown = (
        repr(ring)
        + str(ring)
        + repr(ring.epochs)
        + repr(unlocked)
        + repr(slot)
        + f"{slot}"
        + repr(read_slots(store, REPO_ID))
    )
    secrets = [
        MASTER,
        *keys_of(ring.epochs[0]),
        ring.chunker_key,
        slot.check,
        slot.wrapped,
        slot.salt,
        unlocked.private,
    ]
    for secret in secrets:
        assert secret.hex() not in shown
        assert repr(secret)[2:-1] not in shown
    assert "hunter2" not in shown


def test_a_key_ring_survives_the_way_to_another_process() -> None:
    ring = KeyRing.of(MASTER, REPO_ID)
    assert pickle.loads(pickle.dumps(ring)) == ring


def test_stretching_is_argon2id() -> None:
    # The reference implementation: echo -n password | argon2 somesalt16bytes. -id -t 1 -k 64 -p 1 -l 64 -r
    key, check = stretch_password("password", b"somesalt16bytes.", CHEAP)
    assert key.hex() == "83a2a30f78b25804fa428803970875ae5807ce867c9495e053751b9d73321d81"
    assert check.hex() == "9e4e7afe0047b03ec2083fa11b92a11ac40339b6789fc339619a6acd3bd7be5b"


def test_a_password_is_the_same_however_it_was_composed() -> None:
    assert stretch_password("Zo\u0308e", bytes(16), CHEAP) == stretch_password("Zöe", bytes(16), CHEAP)
    assert stretch_password("a", bytes(16), CHEAP) != stretch_password("A", bytes(16), CHEAP)


def test_other_threads_run_while_a_password_is_stretched() -> None:
    done = threading.Event()

    def stretch() -> None:
        stretch_password("x", bytes(16), KdfParams(64 << 10, 2, 1))
        done.set()

    thread = threading.Thread(target=stretch)
    thread.start()
    turns = 0
    while not done.is_set():
        turns += 1
        time.sleep(0.0001)
    thread.join()
    assert turns > 10  # one or two if the interpreter were locked


@pytest.mark.parametrize("values", [(64, 0, 1), (64, 17, 1), (7, 1, 1), (64, 1, 17), (64, 1, 0), ((2 << 20) + 1, 1, 1)])
def test_costs_are_capped(values: tuple[int, int, int]) -> None:
    with pytest.raises(ConfigError):
        KdfParams(*values)


def test_an_empty_password_is_refused() -> None:
    with pytest.raises(UsageError):
        create_password_slot(MemoryStore(), REPO_ID, FIRST, "", "", CHEAP)


@given(st.binary(min_size=32, max_size=32), st.booleans(), st.sampled_from(["", " ", "-", "\n"]))
def test_recovery_codes_are_read_as_people_type_them(secret: bytes, lower: bool, dash: str) -> None:
    code = format_recovery_code(secret)
    assert len(code) == 8 * 7 + 7
    typed = code.replace("-", dash)
    assert parse_recovery_code(f" {typed.lower() if lower else typed}\n") == secret
    assert parse_recovery_code(code.replace("O", "0").replace("B", "8").replace("I", "1")) == secret


@given(st.binary(min_size=32, max_size=32), st.integers(0, 55), st.integers(1, 31))
def test_a_typing_error_in_a_recovery_code_is_noticed(secret: bytes, at: int, step: int) -> None:
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
    letters = format_recovery_code(secret).replace("-", "")
    wrong = letters[:at] + alphabet[(alphabet.index(letters[at]) + step) % 32] + letters[at + 1 :]
    assert parse_recovery_code(wrong) is None


@given(st.text(max_size=80))
def test_passwords_are_no_recovery_codes(text: str) -> None:
    assert parse_recovery_code(text) is None


def test_each_slot_opens_with_its_own_secret_only() -> None:
    store = MemoryStore()
    first = create_password_slot(store, REPO_ID, FIRST, "one", "first", CHEAP).slot
    second = create_password_slot(store, REPO_ID, FIRST, "two", "second", CHEAP).slot
    recovery, code = create_recovery_slot(store, REPO_ID, FIRST, "paper")
    for secret, slot in (("one", first), ("two", second), (code, recovery.slot)):
        unlocked = unlock(store, REPO_ID, secret)
        assert (unlocked.key, unlocked.slot) == (MASTER, slot)
    assert unlock(store, REPO_ID, code) == recovery
    for wrong in ("three", "", format_recovery_code(bytes(32))):
        with pytest.raises((WrongPassword, UsageError)):
            unlock(store, REPO_ID, wrong)


def test_equal_passwords_look_different_in_the_store() -> None:
    store = MemoryStore()
    one = create_password_slot(store, REPO_ID, FIRST, "same", "", CHEAP).slot
    two = create_password_slot(store, REPO_ID, FIRST, "same", "", CHEAP).slot
    assert one.salt != two.salt
    assert one.check != two.check
    assert one.wrapped != two.wrapped


def test_a_slot_comes_back_as_it_was_stored() -> None:
    store = MemoryStore()
    slot = create_password_slot(store, REPO_ID, FIRST, "pw", 'naïve "label"', CHEAP).slot
    assert read_slots(store, REPO_ID).slots == (slot,)
    assert KeySlot.decode(slot.id, slot.encode()) == slot


def test_the_last_key_stays() -> None:
    store = MemoryStore()
    first = create_password_slot(store, REPO_ID, FIRST, "one", "", CHEAP).slot
    second = create_password_slot(store, REPO_ID, FIRST, "two", "", CHEAP).slot
    assert remove_slot(store, REPO_ID, first.id[:8]) == first
    with pytest.raises(WrongPassword):
        unlock(store, REPO_ID, "one")
    with pytest.raises(UsageError):
        remove_slot(store, REPO_ID, second.id)
    assert unlock(store, REPO_ID, "two").slot == second


def test_a_damaged_slot_does_not_count_as_another_key() -> None:
    store = MemoryStore()
    slot = create_password_slot(store, REPO_ID, FIRST, "one", "", CHEAP).slot
    store.put("keys/damaged", [slot.encode()[:-5]])
    with pytest.raises(UsageError):
        remove_slot(store, REPO_ID, slot.id)


def test_keys_are_named_by_the_beginning_of_their_id() -> None:
    store = MemoryStore()
    create_password_slot(store, REPO_ID, FIRST, "one", "", CHEAP)
    for prefix in ("", "xyz"):
        with pytest.raises(NotFound):
            read_slots(store, REPO_ID).find(prefix)


def test_slots_of_another_repository_are_not_ours() -> None:
    store = MemoryStore()
    create_password_slot(store, bytes(16), FIRST, "one", "", CHEAP)
    mine = create_password_slot(store, REPO_ID, FIRST, "one", "", CHEAP).slot
    assert read_slots(store, REPO_ID).slots == (mine,)


def test_damage_is_told_from_a_wrong_password() -> None:
    store = MemoryStore()
    slot = create_password_slot(store, REPO_ID, FIRST, "one", "", CHEAP).slot
    store.delete(slot.name)
    store.put(slot.name, [slot.encode().replace(b"64", b"65")])
    with pytest.raises(Damaged):
        unlock(store, REPO_ID, "one")
    create_password_slot(store, REPO_ID, FIRST, "two", "", CHEAP)
    with pytest.raises(WrongPassword) as caught:
        unlock(store, REPO_ID, "one")
    assert "could not be read" in caught.value.why
    assert unlock(store, REPO_ID, "two").key == MASTER


def test_no_slot_at_all_is_damage() -> None:
    with pytest.raises(Damaged):
        unlock(MemoryStore(), REPO_ID, "one")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("label", "other"),
        ("created", 5),
        ("wrapped", "00" * 60),
        ("version", True),
        ("argon2id", {"memory_kib": 1 << 40, "iterations": 1, "lanes": 1}),
        ("argon2id", None),
        ("label", "x" * 201),
        ("salt", "AA" * 16),
        ("salt", "zz" * 16),
        ("check", 5),
        ("created", 1e400),
    ],
)
def test_a_slot_changed_by_somebody_without_the_password_is_damage(field: str, value: object) -> None:
    store = MemoryStore()
    slot = create_password_slot(store, REPO_ID, FIRST, "one", "mine", CHEAP).slot
    store.delete(slot.name)
    store.put(slot.name, [_resealed(slot, field, value)])
    with pytest.raises(Damaged):
        unlock(store, REPO_ID, "one")


@pytest.mark.parametrize(("field", "value"), [("version", 2), ("kind", "hpke")])
def test_a_slot_of_a_newer_version_is_said_to_be_newer(field: str, value: object) -> None:
    store = MemoryStore()
    slot = create_password_slot(store, REPO_ID, FIRST, "one", "mine", CHEAP).slot
    store.delete(slot.name)
    store.put(slot.name, [_resealed(slot, field, value)])
    with pytest.raises(NewerFormat):
        unlock(store, REPO_ID, "one")


def _resealed(slot: KeySlot, field: str, value: object) -> bytes:
    """A slot with a field exchanged and a checksum that fits, as an attacker makes it."""
    document = json.loads(slot.encode()) | {field: value}
    del document["checksum"]
    canonical = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
    return json.dumps(document | {"checksum": hashlib.sha256(canonical).hexdigest()}).encode()


SLOT = create_password_slot(MemoryStore(), REPO_ID, FIRST, "pw", "label", CHEAP).slot


@given(damaged(SLOT.encode()))
def test_any_damage_to_a_slot_is_noticed(data: bytes) -> None:
    try:
        # White space and the like change the bytes and not the slot.
        assert KeySlot.decode(SLOT.id, data) == SLOT
    except Damaged as error:
        assert SLOT.id in error.subject


def test_every_byte_of_a_slot_counts() -> None:
    for data in every_flip(SLOT.encode()):
        with pytest.raises((Damaged, NewerFormat)):
            KeySlot.decode(SLOT.id, data)


@pytest.mark.parametrize(
    "data",
    [b"", b"[" * 60000, b"{}", b'"x"', b"1" * 5000, b"\xff", b'{"checksum":NaN}', b'{"checksum":1e999}', b" " * 70000],
)
def test_no_parser_error_gets_out(data: bytes) -> None:
    with pytest.raises(Damaged):
        KeySlot.decode("x", data)


def test_a_store_full_of_slots_costs_no_derivations() -> None:
    store = MemoryStore()
    for number in range(SLOTS_MAX + 1):
        store.put(f"keys/{number}", [SLOT.encode()])
    begin = time.perf_counter()
    with pytest.raises(Damaged):
        unlock(store, REPO_ID, "other")
    assert time.perf_counter() - begin < 1
    with pytest.raises(UsageError):
        create_password_slot(store, REPO_ID, FIRST, "one more", "", CHEAP)


def test_errors_of_keys_pickle() -> None:
    with pytest.raises(LoxError) as caught:
        unlock(MemoryStore(), REPO_ID, "one")
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
