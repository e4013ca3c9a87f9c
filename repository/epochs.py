"""The documents of epochs: the key of each later epoch, sealed to every key slot that remains.

    keys/epochs/<number>-<id>, and the same again with .copy behind, should one of them be damaged

A document holds the keys of all epochs before it, encrypted under its own, and a MAC under its own. So it shows that
whoever made it knew the epochs before. Of two that do not know of each other neither is the newest: then all that is
there can be read, and nothing is written until a further rotation, made by somebody who knows both, follows on both.
"""

from __future__ import annotations

import hmac
import os
import struct
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from model.errors import Damaged, Exists, LoxError, Missing, NewerFormat
from repository.documents import Document, decode_document, document_checksum, encode_document, take, take_hex
from repository.keyring import (
    EPOCH_ID_SIZE,
    EPOCHS_MAX,
    FIRST_ID,
    WRITER_ID_SIZE,
    Epoch,
    KeyRing,
    epoch_name,
    parse_epoch_name,
)
from repository.keys import KEY_SIZE, REPO_ID_SIZE, hkdf, purpose_info
from repository.recipients import PUBLIC_SIZE, SEALED_SIZE, open_key, private_key_of, public_key_of, seal_key
from repository.slots import FOLDER, SLOTS_MAX, KeySlot, Unlocked
from repository.store import Store

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

EPOCHS_FOLDER = FOLDER + "epochs/"
EPOCH_MAX = 1 << 20  # bytes of a document
WRITERS_MAX = 1000  # write-only machines of a repository
COPY = ".copy"

_VERSION = 1
_PAST = struct.Struct("<I16s32s")  # number id key


@dataclass(frozen=True, slots=True)
class Recipient:
    """A key slot to which the key of an epoch is sealed."""

    slot: str
    public: bytes
    sealed: bytes


@dataclass(frozen=True, slots=True)
class EpochDocument:
    """What is stored about one later epoch. `public` is the key that write-only machines seal to; `created` is ns
    since 1970; `past` are the keys of all epochs before, encrypted."""

    number: int
    id: bytes
    repo_id: bytes
    created: int
    public: bytes
    recipients: tuple[Recipient, ...]
    writers: tuple[tuple[bytes, bytes], ...]  # ids of write-only machines, and what shows them that this is ours
    past: bytes
    signed: bytes  # all that the MAC covers, as canonical JSON
    mac: bytes

    @property
    def name(self) -> str:
        return EPOCHS_FOLDER + epoch_name(self.number, self.id)

    @classmethod
    def make(
        cls, ring: KeyRing, slots: Iterable[KeySlot], created: int, writers: Iterable[bytes] = ()
    ) -> tuple[EpochDocument, Epoch]:
        """A new epoch that follows on all of `ring`, opens with `slots` and is announced to the write-only machines
        of the ids `writers`; and its keys."""
        epoch = Epoch.of(ring.repo_id, ring.epoch + 1, os.urandom(EPOCH_ID_SIZE), os.urandom(KEY_SIZE))
        recipients = [_sealed_to(slot, epoch, ring.repo_id) for slot in slots]
        public = public_key_of(private_key_of(epoch.key, "epoch", ring.repo_id))
        document: Document = {
            "version": _VERSION,
            "repo_id": ring.repo_id.hex(),
            "number": epoch.number,
            "id": epoch.id.hex(),
            "created": created,
            "public": public.hex(),
            "recipients": recipients,
            "writers": [_announced_to(writer, epoch, public, ring) for writer in writers],
            "past": _encrypt_past(ring, epoch).hex(),
        }
        return cls.decode(epoch.name, _complete(document, epoch, ring.repo_id)), epoch

    @classmethod
    def decode(cls, name: str, data: bytes) -> EpochDocument:
        """The document of the epoch called `name`. Raises Damaged, NewerFormat."""
        subject = EPOCHS_FOLDER + name
        document = decode_document(data, subject, EPOCH_MAX)
        checksum = take(document, "checksum", str, subject)
        del document["checksum"]
        if checksum != document_checksum(document):
            raise Damaged("the document of an epoch does not match its checksum", subject=subject)
        if take(document, "version", int, subject) > _VERSION:
            raise NewerFormat("the document of an epoch was written by a newer version", subject=subject)
        found = cls(
            number=take(document, "number", int, subject),
            id=take_hex(document, "id", EPOCH_ID_SIZE, subject),
            repo_id=take_hex(document, "repo_id", REPO_ID_SIZE, subject),
            created=take(document, "created", int, subject),
            public=take_hex(document, "public", PUBLIC_SIZE, subject),
            recipients=_decode_recipients(take(document, "recipients", list, subject), subject),
            writers=_decode_writers(take(document, "writers", list, subject), subject),
            past=_hex(document, "past", subject),
            signed=encode_document({key: value for key, value in document.items() if key != "mac"}),
            mac=take_hex(document, "mac", KEY_SIZE, subject),
        )
        if parse_epoch_name(name) != (found.number, found.id):
            raise Damaged("the document of an epoch has the name of another", subject=subject)
        return found

    def encode(self) -> bytes:
        """Canonical JSON."""
        document = decode_document(self.signed, self.name, EPOCH_MAX) | {"mac": self.mac.hex()}
        return encode_document(document | {"checksum": document_checksum(document)})

    def store(self, store: Store) -> None:
        """Put it into the store, twice. Raises StoreError."""
        store.put(self.name, [self.encode()])
        with suppress(Exists):  # another rotation saw that it was missing
            store.put(self.name + COPY, [self.encode()])

    def open(self, unlocked: Unlocked) -> tuple[Epoch, ...] | None:
        """This epoch and all before it, oldest first; None if it is not sealed to this slot.

        Raises Damaged for what was not made by somebody who knew the key in the slot.
        """
        epoch = self._own(unlocked)
        if epoch is None:
            return None
        if not hmac.compare_digest(self.mac, _mac(epoch, self.repo_id, self.signed)):
            raise Damaged("the document of an epoch was tampered with", subject=self.name)
        past = self._open_past(epoch)
        if max((one.number for one in past), default=-1) + 1 != self.number:
            raise Damaged("the document of an epoch does not follow on those before", subject=self.name)
        known = [one for one in (*past, epoch) if one.name == unlocked.slot.epoch]
        if len(known) != 1 or not hmac.compare_digest(known[0].key, unlocked.key):
            raise Damaged("the document of an epoch was made by somebody without a key", subject=self.name)
        return (*past, epoch)

    def _own(self, unlocked: Unlocked) -> Epoch | None:
        slot = unlocked.slot
        if slot.epoch == epoch_name(self.number, self.id):
            return Epoch.of(self.repo_id, self.number, self.id, unlocked.key)
        info = _slot_info(self.repo_id, self.number, self.id, slot.id)
        for recipient in self.recipients:
            if recipient.slot == slot.id and (key := open_key(recipient.sealed, unlocked.private, info)) is not None:
                return Epoch.of(self.repo_id, self.number, self.id, key)
        return None

    def _open_past(self, epoch: Epoch) -> tuple[Epoch, ...]:
        from cryptography.exceptions import InvalidTag

        try:
            plain = _past_aead(epoch, self.repo_id).decrypt(self.past[:12], self.past[12:], epoch.name.encode())
            return tuple(Epoch.of(self.repo_id, *fields) for fields in _PAST.iter_unpack(plain))
        except (InvalidTag, ValueError, struct.error) as error:
            raise Damaged("the document of an epoch was tampered with", subject=self.name) from error


@dataclass(frozen=True, slots=True)
class EpochsFound:
    """What a slot opens of the epochs in the store. `newest` has the document of each epoch that none follows on,
    among those that open; `problems` say what does not."""

    ring: KeyRing
    newest: tuple[EpochDocument, ...]
    problems: tuple[LoxError, ...]


def read_epochs(store: Store, repo_id: bytes, unlocked: Unlocked) -> EpochsFound:
    """All epochs, opened with a slot: in an untroubled repository at the cost of one listing and one document.

    Raises Damaged if not even the first epoch can be had, and StoreError.
    """
    opened: dict[str, Epoch] = {}
    documents: list[EpochDocument] = []
    problems: list[LoxError] = []
    names = list_epochs(store)
    for name in reversed(names):
        if name in opened:
            continue  # an epoch that follows on it has told its key
        try:
            document = load_epoch(store, name, repo_id)
            epochs = document.open(unlocked)
            if epochs is None:
                raise Damaged("an epoch does not open with this key", subject=document.name)
        except (Damaged, NewerFormat) as problem:
            problems.append(problem)
            continue
        opened |= {epoch.name: epoch for epoch in epochs}
        documents.append(document)
    if unlocked.slot.epoch == epoch_name(0, FIRST_ID):
        opened.setdefault(unlocked.slot.epoch, Epoch.first(repo_id, unlocked.key))
    problems += _lost(unlocked.slots, {*opened, *names})
    first = opened.pop(epoch_name(0, FIRST_ID), None)
    if first is None:
        raise problems[0] if problems else Damaged("the documents of all epochs are missing", subject=EPOCHS_FOLDER)
    ring = KeyRing.of(first.key, repo_id, opened.values(), _doubt(documents, problems))
    return EpochsFound(ring, tuple(documents), tuple(problems))


def _lost(slots: Iterable[KeySlot], known: Collection[str]) -> list[LoxError]:
    """Epochs in which key slots were made, and of which there is no document: lost, for they are never deleted."""
    lost = {slot.epoch: slot for slot in slots if slot.epoch not in known and slot.epoch != epoch_name(0, FIRST_ID)}
    hint = "bring keys/epochs back from a mirror; if they are lost for good, or the key is not yours: lox key remove"
    return [
        Damaged(
            "an epoch has no document any more",
            subject=EPOCHS_FOLDER + name,
            why=f"the key {slot.id[:8]} was made in it",
            hint=hint,
        )
        for name, slot in sorted(lost.items())
    ]


def list_epochs(store: Store) -> list[str]:
    """The names of all epochs that have a document, oldest first."""
    found = {name.removeprefix(EPOCHS_FOLDER).removesuffix(COPY) for name, _ in store.list(EPOCHS_FOLDER)}
    names = sorted(name for name in found if parse_epoch_name(name) is not None)
    if len(names) > EPOCHS_MAX:
        raise Damaged("too many epochs", subject=EPOCHS_FOLDER, why=f"at most {EPOCHS_MAX} are allowed")
    return names


def load_epoch(store: Store, name: str, repo_id: bytes) -> EpochDocument:
    """The document of an epoch, from whichever of its two places is sound. Raises Damaged, NewerFormat, StoreError."""
    trouble: LoxError | None = None
    for place in (name, name + COPY):
        try:
            document = EpochDocument.decode(name, store.get(EPOCHS_FOLDER + place, 0, EPOCH_MAX + 1))
        except (Damaged, NewerFormat, Missing) as error:
            trouble = trouble if trouble is not None and not isinstance(trouble, Missing) else error
            continue
        if document.repo_id != repo_id:
            raise Damaged("the document of an epoch is of another repository", subject=document.name)
        return document
    assert trouble is not None
    raise trouble if not isinstance(trouble, Missing) else Damaged("an epoch has no document", subject=name)


def _sealed_to(slot: KeySlot, epoch: Epoch, repo_id: bytes) -> Document:
    sealed = seal_key(epoch.key, slot.public, _slot_info(repo_id, epoch.number, epoch.id, slot.id))
    return {"slot": slot.id, "public": slot.public.hex(), "sealed": sealed.hex()}


def _announced_to(writer: bytes, epoch: Epoch, public: bytes, ring: KeyRing) -> Document:
    secret = ring.writer_secrets(writer, EPOCHS_FOLDER)[-1]
    return {"writer": writer.hex(), "mac": announcement(secret, epoch.number, epoch.id, public).hex()}


def announcement(secret: bytes, number: int, epoch_id: bytes, public: bytes) -> bytes:
    """What shows to a write-only machine that a new epoch was begun by somebody who can read what it writes."""
    return hmac.digest(secret, b"lox epoch" + struct.pack("<I", number) + epoch_id + public, "sha256")


def _doubt(newest: Sequence[EpochDocument], problems: Sequence[LoxError]) -> str:
    if problems:
        return str(problems[0])
    names = sorted(document.name for document in newest)
    return "several epochs do not know of each other: " + ", ".join(names) if len(names) > 1 else ""


def _decode_recipients(rows: list[object], subject: str) -> tuple[Recipient, ...]:
    if len(rows) > SLOTS_MAX:
        raise Damaged("object lacks a valid field", subject=subject, why="recipients are too many")
    return tuple(_decode_recipient(row, subject) for row in rows)


def _decode_recipient(row: object, subject: str) -> Recipient:
    if not isinstance(row, dict):
        raise Damaged("object lacks a valid field", subject=subject, why="recipients should be objects")
    slot = take(row, "slot", str, subject)
    return Recipient(slot, take_hex(row, "public", PUBLIC_SIZE, subject), take_hex(row, "sealed", SEALED_SIZE, subject))


def _decode_writers(rows: list[object], subject: str) -> tuple[tuple[bytes, bytes], ...]:
    if len(rows) > WRITERS_MAX or not all(isinstance(row, dict) for row in rows):
        raise Damaged("object lacks a valid field", subject=subject, why="writers")
    pairs = (row for row in rows if isinstance(row, dict))
    return tuple(
        (take_hex(row, "writer", WRITER_ID_SIZE, subject), take_hex(row, "mac", KEY_SIZE, subject)) for row in pairs
    )


def _hex(document: Document, key: str, subject: str) -> bytes:
    text = take(document, key, str, subject)
    return take_hex(document, key, len(text) // 2, subject)


def _slot_info(repo_id: bytes, number: int, epoch_id: bytes, slot_id: str) -> bytes:
    return purpose_info("epoch", repo_id) + struct.pack("<I", number) + epoch_id + slot_id.encode()


def _past_aead(epoch: Epoch, repo_id: bytes) -> AESGCM:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(hkdf(epoch.key, purpose_info("past epochs", repo_id)))


def _encrypt_past(ring: KeyRing, epoch: Epoch) -> bytes:
    nonce = os.urandom(12)
    plain = b"".join(_PAST.pack(one.number, one.id, one.key) for one in ring.epochs)
    return nonce + _past_aead(epoch, ring.repo_id).encrypt(nonce, plain, epoch.name.encode())


def _complete(document: Document, epoch: Epoch, repo_id: bytes) -> bytes:
    document = document | {"mac": _mac(epoch, repo_id, encode_document(document)).hex()}
    return encode_document(document | {"checksum": document_checksum(document)})


def _mac(epoch: Epoch, repo_id: bytes, signed: bytes) -> bytes:
    return hmac.digest(hkdf(epoch.key, purpose_info("epochs", repo_id)), signed, "sha256")
