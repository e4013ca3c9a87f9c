"""Sealed objects: config, index and snapshots each travel in one authenticated envelope.

    envelope = header (80 bytes) | body | BLAKE3 of all before (32 bytes)

The trailer lets anyone find damage without a key. Its place, the magic and the version byte are the same in every
version of the format, so that "newer" and "damaged" never look alike. docs/format.md has the byte table.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum

from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from model.errors import Damaged, NewerFormat, Revoked
from repository.codecs import Codec, compressor, decompress
from repository.keyring import WRITER_ID_SIZE, Epoch, KeyRing, WriterKeys, only_writes
from repository.keys import KEY_SIZE, hkdf, purpose_info
from repository.recipients import SEALED_SIZE, open_key, private_key_of, public_key_of, seal_key

FORMAT_VERSION = 1
PLAIN_MAX = 256 << 20  # bytes of an opened object
TAG_SIZE = 16
CHECKSUM_SIZE = 32

_MAGIC = b"LOXO"
_HEADER = struct.Struct("<4sBBBB16sQI32s12s")  # magic version kind cipher codec repo_id plain_length epoch salt nonce
_SALT_SIZE = 32
_NONCE_SIZE = 12
OBJECT_MAX = PLAIN_MAX + _HEADER.size + TAG_SIZE + CHECKSUM_SIZE
HEADER_SIZE = 80
assert _HEADER.size == HEADER_SIZE


class ObjectKind(IntEnum):
    """What an envelope holds. The numbers are part of the repository format."""

    CONFIG = 1
    INDEX = 2
    SNAPSHOT = 3
    MARK = 4


_KIND_MAX = {ObjectKind.CONFIG: 64 << 10, ObjectKind.SNAPSHOT: 4 << 20, ObjectKind.MARK: 16 << 20}
"""Bytes of opened objects of kinds that are small: a bomb among them is refused before it is opened."""


class CipherKind(IntEnum):
    """How bodies and segments are encrypted. The numbers are part of the repository format."""

    NONE = 0
    AES_256_GCM = 1
    WRITTEN = 2  # by a write-only machine: AES-256-GCM under a key sealed to the public key of the epoch


WRITER_PREFIXES = ("index/", "snapshots/", "sessions/")  # of what a write-only machine may write

Accepts = Callable[[bytes, str], bool]
"""Whether the object of a name counts that was sealed by the write-only machine of an id."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """What can be read of a sealed object without a key."""

    kind: int
    cipher: CipherKind
    codec: int
    repo_id: bytes
    plain_length: int
    epoch: int
    salt: bytes
    nonce: bytes
    header: bytes
    body: memoryview

    @property
    def writer(self) -> bytes | None:
        """The id of the write-only machine that sealed it, if one did; sure only once the object is open."""
        return self.salt[:WRITER_ID_SIZE] if self.cipher is CipherKind.WRITTEN else None

    @classmethod
    def parse(cls, sealed: bytes, name: str) -> Envelope:
        """The parts of `sealed`, whose checksum fits. Raises Damaged or NewerFormat naming the object `name`."""
        check_envelope(sealed, _MAGIC, name)
        if len(sealed) < _HEADER.size + CHECKSUM_SIZE:
            raise Damaged("object is too short", subject=name)
        _, _, kind, cipher, codec, repo_id, plain_length, epoch, salt, nonce = _HEADER.unpack_from(sealed)
        if cipher not in CipherKind.__members__.values():
            raise NewerFormat("sealed with a cipher this version does not have", subject=name, why=f"cipher {cipher}")
        if plain_length > PLAIN_MAX:
            raise Damaged("object is too large", subject=name, why=f"{plain_length} bytes, at most {PLAIN_MAX}")
        body = memoryview(sealed)[_HEADER.size : -CHECKSUM_SIZE]
        header = sealed[: _HEADER.size]
        return cls(kind, CipherKind(cipher), codec, repo_id, plain_length, epoch, salt, nonce, header, body)


class Cipher:
    """Seals and opens the objects of one repository under the object keys of its epochs. Thread-safe.

    Every object has a key of its own, derived from 32 random bytes in its header, so no number of objects wears a
    key out, and a random nonce on top, so a repeated salt would not yet repeat a key stream.
    """

    def __init__(self, keys: KeyRing, accepts: Accepts = lambda writer, name: True) -> None:
        self._keys = keys
        self._accepts = accepts
        self.kind = CipherKind.AES_256_GCM if keys.encrypted else CipherKind.NONE

    def seal_object(self, kind: ObjectKind, name: str, plain: bytes, writer: bytes | None = None) -> bytes:
        """The envelope to store under `name`, which it opens under only. `plain` is at most `PLAIN_MAX` bytes.

        With `writer` it is sealed as the write-only machine of that id would have. Raises NoKey if it is in doubt
        which keys are the newest, WrongPassword for what a write-only machine may not write.
        """
        if len(plain) > PLAIN_MAX:
            raise ValueError(f"object of {len(plain)} bytes, at most {PLAIN_MAX}")
        codec, body = Codec.ZSTD, compressor(Codec.ZSTD)(plain)
        if len(body) >= len(plain):
            codec, body = Codec.NONE, bytes(plain)
        fields = (kind, codec, len(plain))
        if self._keys.writer is not None or writer is not None:
            header, body = self._seal_written(name, *fields, body, self._writer_keys(writer, name))
        elif self.kind is CipherKind.NONE:
            header = self._header(*fields, self.kind, 0, bytes(_SALT_SIZE), bytes(_NONCE_SIZE))
        else:
            epoch, salt, nonce = self._keys.sealing(), os.urandom(_SALT_SIZE), os.urandom(_NONCE_SIZE)
            header = self._header(*fields, self.kind, epoch.number, salt, nonce)
            body = self._aead(epoch, salt).encrypt(nonce, body, header + name.encode())
        checksum = blake3(header)
        checksum.update(body)
        return b"".join((header, body, checksum.digest()))

    def _header(self, kind: int, codec: int, plain: int, cipher: int, epoch: int, salt: bytes, nonce: bytes) -> bytes:
        fields = (kind, cipher, codec, self._keys.repo_id, plain, epoch, salt, nonce)
        return _HEADER.pack(_MAGIC, FORMAT_VERSION, *fields)

    def _seal_written(
        self, name: str, kind: int, codec: int, plain: int, body: bytes, writer: WriterKeys
    ) -> tuple[bytes, bytes]:
        if not name.startswith(WRITER_PREFIXES):
            raise only_writes(name)
        key, nonce = os.urandom(KEY_SIZE), os.urandom(_NONCE_SIZE)
        salt = writer.id.ljust(_SALT_SIZE, b"\0")
        header = self._header(kind, codec, plain, CipherKind.WRITTEN, writer.number, salt, nonce)
        sealed = seal_key(key, writer.public, self._writer_info(writer.id, writer.secret, header, name))
        return header, sealed + AESGCM(key).encrypt(nonce, body, header + name.encode())

    def _writer_keys(self, writer_id: bytes | None, name: str) -> WriterKeys:
        own = self._keys.writing()
        if own is not None:
            assert writer_id in (None, own.id)
            return own
        assert writer_id is not None
        secret, epoch = self._keys.writer_secrets(writer_id, name)[-1], self._keys.sealing()
        public = public_key_of(private_key_of(epoch.key, "epoch", self._keys.repo_id))
        return WriterKeys(writer_id, secret, epoch.number, public)

    def open_object(self, kind: ObjectKind, name: str, sealed: bytes) -> bytes:
        """The bytes given to `seal_object`. Raises Damaged for anything else, NewerFormat, NoKey for what is newer."""
        return self.open_envelope(kind, name, Envelope.parse(sealed, name))

    def open_envelope(self, kind: ObjectKind, name: str, envelope: Envelope) -> bytes:
        """As `open_object`, of an envelope already parsed."""
        if envelope.repo_id != self._keys.repo_id:
            raise Damaged("object belongs to another repository", subject=name)
        if envelope.kind != kind:
            raise Damaged("object is of another kind", subject=name, why=f"{envelope.kind} instead of {int(kind)}")
        if envelope.plain_length > (most := _KIND_MAX.get(kind, PLAIN_MAX)):
            why = f"{envelope.plain_length} bytes, at most {most}"
            raise Damaged("object is too large", subject=name, why=why)
        if envelope.cipher is CipherKind.WRITTEN and self.kind is not CipherKind.NONE:
            body: memoryview | bytes = self._open_written(envelope, name)
        elif envelope.cipher is not self.kind:
            raise Damaged("object is not encrypted as the repository is", subject=name)
        else:
            body = envelope.body if self.kind is CipherKind.NONE else self._decrypt(envelope, name)
        try:
            return decompress(envelope.codec, body, envelope.plain_length)
        except Damaged as error:
            raise Damaged(error.what, subject=name, why=error.why) from error

    def _decrypt(self, envelope: Envelope, name: str) -> bytes:
        for epoch in self._keys.opening(envelope.epoch, name):
            try:
                aad = envelope.header + name.encode()
                return self._aead(epoch, envelope.salt).decrypt(envelope.nonce, envelope.body, aad)
            except (InvalidTag, ValueError):
                continue
        raise Damaged("object does not open with the key of this repository", subject=name)

    def _open_written(self, envelope: Envelope, name: str) -> bytes:
        writer = envelope.salt[:WRITER_ID_SIZE]
        if not name.startswith(WRITER_PREFIXES):
            raise Damaged("object is not one that a write-only machine may write", subject=name)
        for key in self._written_keys(envelope, writer, name):
            try:
                aad = envelope.header + name.encode()
                plain = AESGCM(key).decrypt(envelope.nonce, envelope.body[SEALED_SIZE:], aad)
            except (InvalidTag, ValueError):
                continue
            if not self._accepts(writer, name):
                raise Revoked("written with a key that was revoked before", subject=name, why=f"key {writer.hex()}")
            return plain
        raise Damaged("object does not open with the key of this repository", subject=name)

    def _written_keys(self, envelope: Envelope, writer: bytes, name: str) -> Iterator[bytes]:
        sealed = bytes(envelope.body[:SEALED_SIZE])
        for secret in self._keys.writer_secrets(writer, name):
            info = self._writer_info(writer, secret, envelope.header, name)
            for epoch in self._keys.opening(envelope.epoch, name):
                key = open_key(sealed, private_key_of(epoch.key, "epoch", self._keys.repo_id), info)
                if key is not None:
                    yield key

    def _writer_info(self, writer: bytes, secret: bytes, header: bytes, name: str) -> bytes:
        return purpose_info("written object", self._keys.repo_id) + writer + secret + header + name.encode()

    def _aead(self, epoch: Epoch, salt: bytes) -> AESGCM:
        return AESGCM(hkdf(epoch.object_key, purpose_info("object", self._keys.repo_id), salt))

    def __repr__(self) -> str:
        return f"Cipher({self.kind.name})"


def epoch_of(header: bytes) -> int:
    """The epoch an object says it was sealed in, from its first `HEADER_SIZE` bytes; -1: it is not sealed."""
    if len(header) < HEADER_SIZE or header[:4] != _MAGIC:
        return -1
    return int(_HEADER.unpack(header[:HEADER_SIZE])[7])


def check_envelope(sealed: bytes, magic: bytes, name: str) -> None:
    """Whether `sealed` is whole and of this version, by what every version has: magic, version byte, BLAKE3 at the end.

    Needs no key. Raises Damaged, NewerFormat.
    """
    if len(sealed) < len(magic) + 1 + CHECKSUM_SIZE or len(sealed) > OBJECT_MAX:
        raise Damaged("object has an impossible length", subject=name, why=f"{len(sealed)} bytes")
    view = memoryview(sealed)
    if view[:4] != magic:
        raise Damaged("object does not begin as one of ours", subject=name)
    if blake3(view[:-CHECKSUM_SIZE]).digest() != view[-CHECKSUM_SIZE:]:
        raise Damaged("object does not match its checksum", subject=name)
    if sealed[4] > FORMAT_VERSION:
        raise NewerFormat(
            "object was written by a newer version",
            subject=name,
            why=f"format {sealed[4]}, this program knows {FORMAT_VERSION}",
            hint="update lox",
        )
    if sealed[4] == 0:
        raise Damaged("object has an impossible format version", subject=name)
