"""Key files: what they open, what they refuse, and that no store makes a password as cheap as one of them."""

from __future__ import annotations

import hashlib
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.errors import ConfigError, Damaged, NewerFormat, UsageError, WrongPassword
from repository.key_copy import export_keys, import_keys
from repository.key_file import KeyFile
from repository.keyring import Epoch
from repository.keys import KdfParams, format_recovery_code, hkdf, purpose_info
from repository.repository import Repository
from repository.seal import ObjectKind
from repository.slots import KeySlot, SlotKind, create_key_file_slot, create_password_slot, create_recovery_slot
from repository.store import MemoryStore
from repository.unlocking import unlock

CHEAP = KdfParams(64, 1, 1)
MASTER = bytes(range(32))
REPO_ID = bytes(range(16))
FIRST = Epoch.first(REPO_ID, MASTER)
KEY = KeyFile.make(REPO_ID, "agent 7")
PREFIX = "lox-key-file-1:"


def fields(text: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(urlsafe_b64decode(text.removeprefix(PREFIX)))
    return found


def changed(text: str, **changes: object) -> str:
    """A key file with other fields and a checksum that fits, as whoever can write to the file may make it."""
    document = {key: value for key, value in (fields(text) | changes).items() if key != "checksum"}
    canonical = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
    checksum = hashlib.sha256(canonical).hexdigest()
    return PREFIX + urlsafe_b64encode(json.dumps(document | {"checksum": checksum}).encode()).decode()


def test_it_opens_its_slot_and_no_other_does() -> None:
    store = MemoryStore()
    password = create_password_slot(store, REPO_ID, FIRST, "one", "", CHEAP)
    recovery, code = create_recovery_slot(store, REPO_ID, FIRST, "")
    mine, other = (create_key_file_slot(store, REPO_ID, FIRST, key) for key in (KEY, KeyFile.make(REPO_ID)))
    assert unlock(store, REPO_ID, KEY.encode() + "\n") == mine != other
    assert (mine.key, mine.slot.kind, mine.slot.label, mine.slot.cost) == (MASTER, SlotKind.KEY_FILE, "agent 7", 0)
    assert unlock(store, REPO_ID, "one") == password and unlock(store, REPO_ID, code) == recovery
    with pytest.raises(WrongPassword, match="this key file"):
        unlock(store, REPO_ID, KeyFile.make(REPO_ID).encode())


def test_one_of_another_repository_is_said_to_be() -> None:
    store = MemoryStore()
    create_key_file_slot(store, REPO_ID, FIRST, KEY)
    with pytest.raises(WrongPassword, match="another repository"):
        unlock(store, REPO_ID, KeyFile.make(bytes(16)).encode())


def test_the_derivation_is_hkdf_over_all_that_the_file_says() -> None:
    header = fields(KEY.encode())
    secret = bytes.fromhex(str(header.pop("secret")))
    del header["checksum"]
    canonical = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    info = purpose_info("key file", REPO_ID) + hashlib.sha256(canonical).digest()
    derived = hkdf(secret, info, b"s" * 16, 64)
    assert KEY.expand(b"s" * 16) == (derived[:32], derived[32:])


@pytest.mark.parametrize("change", [{"label": "agent 8"}, {"created": 5}, {"new field": 1}, {"secret": "00" * 32}])
def test_a_changed_header_opens_nothing(change: dict[str, object]) -> None:
    store = MemoryStore()
    create_key_file_slot(store, REPO_ID, FIRST, KEY)
    with pytest.raises(WrongPassword):
        unlock(store, REPO_ID, changed(KEY.encode(), **change))


def test_fields_of_later_versions_count_and_are_kept() -> None:
    later = KeyFile.parse(changed(KEY.encode(), **{"new field": 1}))
    assert later is not None and later.expand(bytes(16)) != KEY.expand(bytes(16))
    assert KeyFile.parse(later.encode()) == later and fields(later.encode())["new field"] == 1


@given(st.data())
def test_a_torn_or_mistyped_file_is_told_from_a_wrong_one(data: st.DataObject) -> None:
    text = KEY.encode()
    at = data.draw(st.integers(len(PREFIX), len(text) - 1))
    letter = data.draw(st.characters(categories=("L", "N", "P"), exclude_characters=text[at]))
    for broken in (text[:at], text[:at] + letter + text[at + 1 :], text[:at] + text[at + 1 :]):
        try:
            assert KeyFile.parse(broken) == KEY  # only padding of base64 was touched
        except ConfigError as error:
            assert "damaged" in error.what


def test_a_file_of_a_later_version_is_said_to_be_newer() -> None:
    for text in (KEY.encode().replace("-1:", "-2:"), changed(KEY.encode(), version=2)):
        with pytest.raises(NewerFormat):
            KeyFile.parse(text)


@given(st.text(max_size=80))
def test_passwords_are_no_key_files(text: str) -> None:
    assert KeyFile.parse(text) is None


def test_nothing_made_by_lox_becomes_a_password() -> None:
    store = MemoryStore()
    for text in (KEY.encode(), "lox-key-file-9:x", "lox-write-only-1:x", format_recovery_code(MASTER).lower()):
        with pytest.raises(UsageError):
            create_password_slot(store, REPO_ID, FIRST, text, "", CHEAP)
    assert list(store.list("keys/")) == []


@pytest.mark.parametrize("kind", [SlotKind.KEY_FILE, SlotKind.RECOVERY])
def test_a_store_cannot_make_a_password_cheap_by_naming_its_slot_otherwise(
    kind: SlotKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = MemoryStore()
    slot = create_password_slot(store, REPO_ID, FIRST, "one", "", CHEAP).slot
    store.delete(slot.name)
    store.put(slot.name, [_as(slot, kind)])
    expanded: list[bytes] = []

    def spy(secret: bytes, info: bytes, salt: bytes = b"", length: int = 32) -> bytes:
        expanded.append(secret)
        return hkdf(secret, info, salt, length)

    for module in ("repository.key_file", "repository.keys"):
        monkeypatch.setattr(f"{module}.hkdf", spy)
    with pytest.raises(WrongPassword):
        unlock(store, REPO_ID, "one")
    assert expanded == []  # the password went into no quick derivation
    assert KeySlot.decode(slot.id, _as(slot, kind)).open("one") is None


def test_a_key_file_slot_under_another_kind_opens_with_nothing() -> None:
    store = MemoryStore()
    slot = create_key_file_slot(store, REPO_ID, FIRST, KEY).slot
    disguised = KeySlot.decode(slot.id, _as(slot, SlotKind.RECOVERY))
    assert disguised.open(KEY) is None and disguised.open(KEY.secret) is None
    assert KeySlot.decode(slot.id, _as(slot, SlotKind.KEY_FILE, label="x")).check == slot.check
    with pytest.raises(Damaged):
        KeySlot.decode(slot.id, _as(slot, SlotKind.KEY_FILE, label="x")).open(KEY)


def _as(slot: KeySlot, kind: SlotKind, **changes: object) -> bytes:
    document = json.loads(slot.encode()) | {"kind": kind.value} | changes
    del document["checksum"]
    canonical = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
    return json.dumps(document | {"checksum": hashlib.sha256(canonical).hexdigest()}).encode()


def test_a_repository_made_with_a_key_file_has_no_password_at_all() -> None:
    store, key = MemoryStore(), KeyFile.make(REPO_ID, "first")
    repository, code = Repository.init(store, key, kdf=CHEAP)
    assert code is not None and repository.id == REPO_ID
    assert [slot.kind for slot in repository.list_keys().slots] == [SlotKind.KEY_FILE, SlotKind.RECOVERY]
    repository.put_object(ObjectKind.MARK, "marks/x", b"content")
    for secret in (key.encode(), code):
        assert Repository.open(store, secret).get_object(ObjectKind.MARK, "marks/x") == b"content"
    with pytest.raises(UsageError, match="without a password"):
        Repository.open(store, key.encode()).change_password("new", CHEAP)


def test_rotation_export_and_removal_treat_it_as_any_other_key() -> None:
    store = MemoryStore()
    repository, _ = Repository.init(store, "one", kdf=CHEAP)
    kept, gone = (KeyFile.make(repository.id, label) for label in ("kept", "gone"))
    repository.add_key_file(kept)
    repository.remove_key(repository.add_key_file(gone).id)
    assert {slot.label for slot in repository.rotate().slots} >= {"kept"}
    repository.put_object(ObjectKind.MARK, "marks/x", b"of epoch 1")
    opened = Repository.open(store, kept.encode())
    assert opened.get_object(ObjectKind.MARK, "marks/x") == b"of epoch 1"
    assert Repository.attach(store, opened.credentials()).slot == opened.slot
    with pytest.raises(WrongPassword):
        Repository.open(store, gone.encode())
    saved = export_keys(store, repository.id)
    for name in [name for name, _ in store.list("keys/")]:
        store.delete(name)
    import_keys(store, saved)
    assert Repository.open(store, kept.encode()).keys.epochs == opened.keys.epochs


def test_the_secret_is_not_printed() -> None:
    assert KEY.secret.hex() not in repr(KEY) and repr(KEY.secret)[2:-1] not in repr(KEY)
