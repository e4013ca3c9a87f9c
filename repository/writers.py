"""Write-only machines: what they are given, where that is noted, and how it is taken back.

    keys/writers/<id>/issued            sealed JSON: label and time; issued-<hex> once it was sealed anew
    keys/writers/<id>/revoked-<hex>     sealed JSON: time, and what the machine had written by then

A writer key holds the id key and the chunker key, the public key of an epoch and a secret that shows who wrote. With
it a machine stores backups that it cannot read itself. The secret is derived from the key of the epoch in which it was
issued (whose number the id ends with): who can read needs no list of secrets.
"""

from __future__ import annotations

import hmac
import os
import struct
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from model.errors import Damaged, LoxError, Missing, NewerFormat, NotFound, UsageError, WrongPassword
from repository.documents import decode_document, document_checksum, encode_document, take, take_hex
from repository.epochs import WRITERS_MAX, announcement, list_epochs, load_epoch
from repository.key_file import LABEL_MAX
from repository.keyring import WRITER_ID_SIZE, KeyRing, WriterKeys
from repository.keys import KEY_SIZE, REPO_ID_SIZE
from repository.recipients import PUBLIC_SIZE, private_key_of, public_key_of
from repository.seal import WRITER_PREFIXES, CipherKind, ObjectKind
from repository.slots import FOLDER
from repository.store import Store

if TYPE_CHECKING:
    from repository.repository import Repository

WRITERS_FOLDER = FOLDER + "writers/"
KEY_MAX = 16 << 10  # bytes of a writer key as text
TEXT_PREFIX = "lox-write-only-1:"
NOTES_MAX = 4 * WRITERS_MAX
REVOKED_MAX = 64 << 20  # bytes of an opened revocation

_ISSUED, _REVOKED = "/issued", "/revoked-"
_VERSION = 1
_HEADER_SIZE = 80


@dataclass(frozen=True, slots=True, repr=False)
class WriterKey:
    """What a write-only machine is given. A secret, but none that reads anything."""

    repo_id: bytes
    config: bytes
    id_key: bytes
    chunker_key: bytes
    label: str
    keys: WriterKeys

    def encode(self) -> str:
        """One line of text, to be kept in a private file."""
        document: dict[str, object] = {
            "version": _VERSION,
            "repo_id": self.repo_id.hex(),
            "config": self.config.decode(),
            "id_key": self.id_key.hex(),
            "chunker_key": self.chunker_key.hex(),
            "label": self.label,
            "writer": self.keys.id.hex(),
            "secret": self.keys.secret.hex(),
            "epoch": self.keys.number,
            "public": self.keys.public.hex(),
        }
        data = encode_document(document | {"checksum": document_checksum(document)})
        return TEXT_PREFIX + urlsafe_b64encode(data).decode()

    @classmethod
    def parse(cls, text: str) -> WriterKey:
        """The key in a line of text, which begins with `key_file.WRITE_ONLY_MARK`.

        Raises WrongPassword if it is damaged or newer.
        """
        try:
            if not text.startswith(TEXT_PREFIX):
                raise NewerFormat("made by a newer version")
            return cls._decode(urlsafe_b64decode(text.removeprefix(TEXT_PREFIX).strip()))
        except (Damaged, NewerFormat, ValueError) as error:
            raise WrongPassword("this write-only key cannot be used", why=str(error), hint="issue another") from error

    @classmethod
    def _decode(cls, data: bytes) -> WriterKey:
        name = "write-only key"
        document = decode_document(data, name, KEY_MAX)
        if document.pop("checksum", None) != document_checksum(document):
            raise Damaged("it does not match its checksum", subject=name)
        keys = WriterKeys(
            take_hex(document, "writer", WRITER_ID_SIZE, name),
            take_hex(document, "secret", KEY_SIZE, name),
            take(document, "epoch", int, name),
            take_hex(document, "public", PUBLIC_SIZE, name),
        )
        return cls(
            take_hex(document, "repo_id", REPO_ID_SIZE, name),
            take(document, "config", str, name).encode(),
            take_hex(document, "id_key", KEY_SIZE, name),
            take_hex(document, "chunker_key", KEY_SIZE, name),
            take(document, "label", str, name),
            keys,
        )

    def key_ring(self, store: Store) -> KeyRing:
        """The keys for working on the repository in `store`, with the newest epoch that was announced to this machine.

        Raises WrongPassword if the key was revoked, StoreError.
        """
        folder = f"{WRITERS_FOLDER}{self.keys.id.hex()}{_REVOKED}"
        if any(True for _ in store.list(folder)):
            raise WrongPassword("this write-only key was revoked", subject=self.label, hint="issue another")
        return KeyRing(self.repo_id, self.id_key, self.chunker_key, writer=self._newest(store))

    def _newest(self, store: Store) -> WriterKeys:
        for name in reversed(list_epochs(store)):
            try:
                document = load_epoch(store, name, self.repo_id)
            except (Damaged, NewerFormat):
                continue
            if document.number <= self.keys.number:
                break
            announced = dict(document.writers).get(self.keys.id)
            expected = announcement(self.keys.secret, document.number, document.id, document.public)
            if announced is not None and hmac.compare_digest(announced, expected):
                return replace(self.keys, number=document.number, public=document.public)
        return self.keys

    def __repr__(self) -> str:
        return f"WriterKey({self.keys.id.hex()}, {self.label!r}, secret)"


@dataclass(frozen=True, slots=True)
class Writer:
    """A write-only machine as the repository knows it. Times are ns since 1970; `revoked` None: it may write."""

    id: bytes
    label: str
    created: int
    revoked: int | None = None
    accepted: frozenset[str] = frozenset()  # of a revoked one: the objects that still count


def issue_writer(repository: Repository, label: str) -> WriterKey:
    """Make and note a new writer key. Raises UsageError, NoKey, StoreError."""
    if len(label) > LABEL_MAX:
        raise UsageError("the label of a key is too long", subject=label, hint=f"at most {LABEL_MAX} characters")
    if len(load_writers(repository)) >= WRITERS_MAX:
        raise UsageError("the repository has as many write-only keys as it can", subject=str(WRITERS_MAX))
    ring, epoch = repository.keys, repository.keys.sealing()
    assert ring.id_key is not None
    writer_id = os.urandom(WRITER_ID_SIZE - 4) + struct.pack("<I", epoch.number)
    secret = ring.writer_secrets(writer_id, WRITERS_FOLDER)[-1]
    keys = WriterKeys(writer_id, secret, epoch.number, public_key_of(private_key_of(epoch.key, "epoch", ring.repo_id)))
    document: dict[str, object] = {"version": _VERSION, "label": label, "created": time.time_ns()}
    name = f"{WRITERS_FOLDER}{writer_id.hex()}{_ISSUED}"
    repository.put_object(ObjectKind.MARK, name, encode_document(document))
    return WriterKey(ring.repo_id, repository.config.encode(), ring.id_key, ring.chunker_key, label, keys)


def load_writers(repository: Repository, on_damage: Callable[[LoxError], None] | None = None) -> list[Writer]:
    """All write-only machines, oldest first. Raises Damaged, NewerFormat, StoreError.

    With `on_damage` notes that cannot be read are told to it and left out: a revocation that is damaged is no better
    than one that somebody deleted, and a damaged note must not make backups unreadable.
    """
    writers: dict[bytes, Writer] = {}
    for count, (name, _) in enumerate(repository.store.list(WRITERS_FOLDER)):
        if count == NOTES_MAX:
            raise Damaged("too many notes on write-only keys", subject=WRITERS_FOLDER, why=f"more than {NOTES_MAX}")
        try:
            _take_note(writers, name, repository.get_object(ObjectKind.MARK, name))
        except Missing:
            continue
        except (Damaged, NewerFormat) as error:
            if on_damage is None:
                raise
            on_damage(error)
    return sorted(writers.values(), key=lambda writer: (writer.created, writer.id))


def _take_note(writers: dict[bytes, Writer], name: str, data: bytes) -> None:
    folder, _, what = name.removeprefix(WRITERS_FOLDER).partition("/")
    writer_id = take_hex({"id": folder}, "id", WRITER_ID_SIZE, name)
    document = decode_document(data, name, REVOKED_MAX)
    if take(document, "version", int, name) > _VERSION:
        raise NewerFormat("the note on a write-only key was written by a newer version", subject=name)
    label, created = take(document, "label", str, name), take(document, "created", int, name)
    writer = writers.get(writer_id, Writer(writer_id, label, created))
    if not ("/" + what).startswith(_ISSUED):
        names = [str(one) for one in take(document, "accepted", list, name)]
        revoked = min(take(document, "revoked", int, name), writer.revoked or 1 << 63)
        writer = replace(writer, revoked=revoked, accepted=writer.accepted | frozenset(names))
    writers[writer_id] = writer


def find_writer(writers: list[Writer], prefix: str) -> Writer | None:
    """The one whose id begins with `prefix`, None if there is none. Raises NotFound if there are several."""
    found = [writer for writer in writers if prefix and writer.id.hex().startswith(prefix.lower())]
    if len(found) > 1:
        raise NotFound("no such key", subject=prefix, why="several begin so", hint="lox key list shows them")
    return found[0] if found else None


def revoke_writer(repository: Repository, writer: Writer) -> int:
    """What the machine writes from now on does not count; how many objects it wrote so far, which do.

    Raises UsageError if it was revoked before, StoreError.
    """
    if writer.revoked is not None:
        raise UsageError("the write-only key was revoked before", subject=writer.label or writer.id.hex())
    from repository.trash import load_trash  # which needs snapshots, and those need us

    trashed = (one for one in load_trash(repository, lambda name, error: None) if one.writer == writer.id)
    names = sorted({*written_by(repository.store, writer.id), *(one.snapshot.name for one in trashed)})
    document: dict[str, object] = {
        "version": _VERSION,
        "label": writer.label,
        "created": writer.created,
        "revoked": time.time_ns(),
        "accepted": names,
    }
    name = f"{WRITERS_FOLDER}{writer.id.hex()}{_REVOKED}{os.urandom(8).hex()}"
    repository.put_object(ObjectKind.MARK, name, encode_document(document))
    return len(names)


def written_by(store: Store, writer_id: bytes) -> list[str]:
    """Names of the objects (packs are not among them) that say they are from a write-only machine."""
    names = []
    for prefix in sorted(WRITER_PREFIXES, reverse=True):  # snapshots before the index objects they need
        for name, _ in store.list(prefix):
            try:
                head = store.get(name, 0, _HEADER_SIZE)
            except Missing:
                continue
            if head[:4] == b"LOXO" and head[6:7] == bytes([CipherKind.WRITTEN]) and head[36 : 36 + 16] == writer_id:
                names.append(name)
    return names
