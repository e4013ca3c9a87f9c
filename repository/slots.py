"""Key slots: each wraps the key of an epoch for one password, recovery code or key file. Any one opens the repository.

A slot has a key pair of its own, made from its secret: later epochs are sealed to its public key by whoever begins
them, without knowing the password. A MAC under the wrapped key tells slots made by somebody who could open the
repository from slots that somebody put there.
"""

from __future__ import annotations

import hmac
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from functools import partial

from model.errors import ConfigError, Damaged, LoxError, Missing, NewerFormat, NotFound, UsageError
from repository.deleting import delete
from repository.documents import Document, decode_document, document_checksum, encode_document, take, take_hex
from repository.key_file import LABEL_MAX, KeyFile, refuse_as_password
from repository.keyring import Epoch, parse_epoch_name
from repository.keys import (
    KEY_SIZE,
    REPO_ID_SIZE,
    KdfParams,
    expand_recovery_key,
    format_recovery_code,
    hkdf,
    purpose_info,
    stretch_password,
)
from repository.recipients import PUBLIC_SIZE, private_key_of, public_key_of
from repository.rereads import Rereads
from repository.store import Store

FOLDER = "keys/"
SLOT_MAX = 64 << 10  # bytes of a slot
SLOTS_MAX = 64  # slots a repository may have: each password slot costs a derivation to try

_VERSION = 1
_SALT_SIZE = 16
_WRAPPED_SIZE = 12 + KEY_SIZE + 16  # nonce, key, tag
_NOT_ASSOCIATED = frozenset({"wrapped", "mac"})


class SlotKind(StrEnum):
    """What opens a slot."""

    PASSWORD = "password"
    RECOVERY = "recovery"
    KEY_FILE = "key-file"


Secret = str | bytes | KeyFile  # a password, the bytes of a recovery code, a key file


def kind_of(secret: Secret) -> SlotKind:
    """The kind of slot that a secret opens. No other is tried with it, whatever a store says of its slots."""
    if isinstance(secret, KeyFile):
        return SlotKind.KEY_FILE
    return SlotKind.PASSWORD if isinstance(secret, str) else SlotKind.RECOVERY


@dataclass(frozen=True, slots=True)
class KeySlot:
    """One key slot. `check` tells a wrong secret before the wrapped key is touched: AES-GCM alone does not commit to a
    key. `created` is ns since 1970; `kdf` is None where a machine made the secret, which needs no stretching. `epoch`
    is the name of the epoch whose key is wrapped.
    """

    id: str
    kind: SlotKind
    label: str
    created: int
    kdf: KdfParams | None
    repo_id: bytes = field(repr=False)
    salt: bytes = field(repr=False)
    check: bytes = field(repr=False)
    epoch: str
    public: bytes = field(repr=False)
    wrapped: bytes = field(repr=False)
    mac: bytes = field(repr=False)
    associated: bytes = field(repr=False)  # canonical JSON of all fields but these two, also those we do not know

    @property
    def name(self) -> str:
        return FOLDER + self.id

    @property
    def cost(self) -> int:
        """About what trying a secret costs: KiB filled."""
        return 0 if self.kdf is None else self.kdf.memory_kib * self.kdf.iterations

    def encode(self) -> bytes:
        """Canonical JSON with a checksum, so that damage is told from a wrong password."""
        document = decode_document(self.associated, self.name, SLOT_MAX)
        document |= {"wrapped": self.wrapped.hex(), "mac": self.mac.hex()}
        return encode_document(document | {"checksum": document_checksum(document)})

    @classmethod
    def decode(cls, slot_id: str, data: bytes) -> KeySlot:
        """Raises Damaged, NewerFormat."""
        subject = FOLDER + slot_id
        document = decode_document(data, subject, SLOT_MAX)
        checksum = take(document, "checksum", str, subject)
        del document["checksum"]
        if checksum != document_checksum(document):
            raise Damaged("key slot does not match its checksum", subject=subject)
        if take(document, "version", int, subject) > _VERSION:
            raise NewerFormat("key slot was written by a newer version", subject=subject, hint="update lox")
        kind, label = take(document, "kind", str, subject), take(document, "label", str, subject)
        if kind not in [known.value for known in SlotKind]:
            raise NewerFormat("key slot of a kind this version does not know", subject=subject, why=kind[:40])
        if len(label) > LABEL_MAX:
            raise Damaged("object lacks a valid field", subject=subject, why="label is too long")
        if parse_epoch_name(epoch := take(document, "epoch", str, subject)) is None:
            raise Damaged("object lacks a valid field", subject=subject, why="epoch")
        return cls(
            id=slot_id,
            kind=SlotKind(kind),
            label=label,
            created=take(document, "created", int, subject),
            kdf=_decode_kdf(take(document, "argon2id", dict, subject), subject) if kind == "password" else None,
            repo_id=take_hex(document, "repo_id", REPO_ID_SIZE, subject),
            salt=take_hex(document, "salt", _SALT_SIZE, subject),
            check=take_hex(document, "check", KEY_SIZE, subject),
            epoch=epoch,
            public=take_hex(document, "public", PUBLIC_SIZE, subject),
            wrapped=take_hex(document, "wrapped", _WRAPPED_SIZE, subject),
            mac=take_hex(document, "mac", KEY_SIZE, subject),
            associated=encode_document({key: value for key, value in document.items() if key not in _NOT_ASSOCIATED}),
        )

    def open(self, secret: Secret) -> Unlocked | None:
        """What the slot gives to `secret`; None if that is not this slot's.

        Raises Damaged if the secret is right but the slot was tampered with.
        """
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        if kind_of(secret) is not self.kind:
            return None
        slot_key, check = _stretch(secret, self.salt, self.kdf, self.repo_id)
        if not hmac.compare_digest(check, self.check):
            return None
        try:
            key = AESGCM(slot_key).decrypt(self.wrapped[:12], self.wrapped[12:], self.associated)
        except InvalidTag as error:
            raise Damaged("key slot was tampered with", subject=self.name) from error
        return Unlocked(self, key, private_key_of(slot_key, "key slot", self.repo_id))

    def made_in(self, epoch: Epoch) -> bool:
        """Whether it was made by somebody who had the key of this epoch, and is as it was made."""
        mac = _mac(epoch, self.repo_id, self.associated, self.wrapped)
        return self.epoch == epoch.name and hmac.compare_digest(self.mac, mac)


@dataclass(frozen=True, slots=True, repr=False)
class Unlocked:
    """An opened slot: its key, the private key to which later epochs are sealed, and all `slots` there were then."""

    slot: KeySlot
    key: bytes
    private: bytes
    slots: tuple[KeySlot, ...] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True)
class SlotListing:
    """Every slot of a repository: those that can be read, why others cannot, and how many are of another repository."""

    slots: tuple[KeySlot, ...]
    problems: tuple[LoxError, ...]
    foreign: int = 0

    def find(self, prefix: str) -> KeySlot:
        """The slot whose id begins with `prefix`. Raises NotFound if there is none or more than one."""
        found = [slot for slot in self.slots if slot.id.startswith(prefix)]
        if len(found) != 1 or not prefix:
            why = "several begin so" if found else "no key slot begins so"
            raise NotFound("no such key", subject=prefix, why=why, hint="lox key list shows them")
        return found[0]


def create_password_slot(
    store: Store, repo_id: bytes, epoch: Epoch, password: str, label: str, params: KdfParams | None = None
) -> Unlocked:
    """Store a new slot that `password` opens, made in `epoch`. Raises UsageError for what is another kind of secret."""
    refuse_as_password(password)
    return _create(store, repo_id, epoch, password, label, params or KdfParams())


def create_recovery_slot(store: Store, repo_id: bytes, epoch: Epoch, label: str) -> tuple[Unlocked, str]:
    """Store a new slot that a new recovery code opens, and that code."""
    secret = os.urandom(KEY_SIZE)
    unlocked = _create(store, repo_id, epoch, secret, label, None)
    return unlocked, format_recovery_code(secret)


def create_key_file_slot(store: Store, repo_id: bytes, epoch: Epoch, key: KeyFile) -> Unlocked:
    """Store a new slot that `key` opens, which has its label."""
    assert key.repo_id == repo_id
    return _create(store, repo_id, epoch, key, key.label, None)


def read_slots(store: Store, repo_id: bytes, rereads: Rereads | None = None) -> SlotListing:
    """All slots of the repository `repo_id`, oldest first. Leftovers of another repository id are not its slots."""
    rereads = rereads or Rereads()
    slots: list[KeySlot] = []
    problems: list[LoxError] = []
    foreign = 0
    for count, name in enumerate(_slot_names(store)):
        if count == SLOTS_MAX:
            raise Damaged("too many key slots", subject=FOLDER, why=f"at most {SLOTS_MAX} are allowed")
        try:
            slot = rereads.read(name, partial(_read_slot, store, name))
        except Missing:  # removed since it was listed
            continue
        except (Damaged, NewerFormat) as problem:
            problems.append(problem)
            continue
        if slot.repo_id == repo_id:
            slots.append(slot)
        else:
            foreign += 1
    slots.sort(key=lambda slot: (slot.created, slot.id))
    return SlotListing(tuple(slots), tuple(problems), foreign)


_STILL_OPENS = "the key still opens the repository; remove it with credentials that may delete, see docs/append-only.md"


def remove_slot(store: Store, repo_id: bytes, prefix: str) -> KeySlot:
    """Delete one slot and return it. Raises NotFound, and UsageError for the last readable one."""
    listing = read_slots(store, repo_id)
    slot = listing.find(prefix)
    if len(listing.slots) == 1:
        raise UsageError("this is the last key of the repository", subject=slot.id, hint="add another one first")
    delete(store, slot.name, "removing a key", _STILL_OPENS)
    return slot


def _read_slot(store: Store, name: str) -> KeySlot:
    return KeySlot.decode(name.removeprefix(FOLDER), store.get(name, 0, SLOT_MAX + 1))


def _slot_names(store: Store) -> Iterator[str]:
    """Objects in the folder itself: below it lie other things."""
    return (name for name, _ in store.list(FOLDER) if "/" not in name.removeprefix(FOLDER))


def _create(store: Store, repo_id: bytes, epoch: Epoch, secret: Secret, label: str, kdf: KdfParams | None) -> Unlocked:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    if len(label) > LABEL_MAX:
        raise UsageError("the label of a key is too long", subject=label, hint=f"at most {LABEL_MAX} characters")
    if sum(1 for _ in _slot_names(store)) >= SLOTS_MAX:
        raise UsageError("the repository has as many keys as it can", subject=str(SLOTS_MAX), hint="remove one first")
    kind, salt, nonce, created = kind_of(secret), os.urandom(_SALT_SIZE), os.urandom(12), time.time_ns()
    key, check = _stretch(secret, salt, kdf, repo_id)
    private = private_key_of(key, "key slot", repo_id)
    public = public_key_of(private)
    document: Document = {
        "version": _VERSION,
        "repo_id": repo_id.hex(),
        "kind": kind.value,
        "label": label,
        "created": created,
        "salt": salt.hex(),
        "check": check.hex(),
        "epoch": epoch.name,
        "public": public.hex(),
    }
    associated = encode_document(document | ({"argon2id": asdict(kdf)} if kdf else {}))
    wrapped = nonce + AESGCM(key).encrypt(nonce, epoch.key, associated)
    slot = KeySlot(
        id=os.urandom(16).hex(),
        kind=kind,
        label=label,
        created=created,
        kdf=kdf,
        repo_id=repo_id,
        salt=salt,
        check=check,
        epoch=epoch.name,
        public=public,
        wrapped=wrapped,
        mac=_mac(epoch, repo_id, associated, wrapped),
        associated=associated,
    )
    store.put(slot.name, [slot.encode()])
    return Unlocked(slot, epoch.key, private)


def _stretch(secret: Secret, salt: bytes, kdf: KdfParams | None, repo_id: bytes) -> tuple[bytes, bytes]:
    if isinstance(secret, str):
        assert kdf is not None
        return stretch_password(secret, salt, kdf)
    if isinstance(secret, KeyFile):
        return secret.expand(salt)
    return expand_recovery_key(secret, salt, repo_id)


def _mac(epoch: Epoch, repo_id: bytes, associated: bytes, wrapped: bytes) -> bytes:
    return hmac.digest(hkdf(epoch.key, purpose_info("key slots", repo_id)), wrapped + associated, "sha256")


def _decode_kdf(fields: Document, subject: str) -> KdfParams:
    memory_kib, iterations, lanes = (take(fields, name, int, subject) for name in ("memory_kib", "iterations", "lanes"))
    try:
        return KdfParams(memory_kib, iterations, lanes)
    except ConfigError as error:
        raise Damaged(error.what, subject=subject, why=error.subject) from error
