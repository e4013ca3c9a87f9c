"""The key of a pack: how its header wraps it, and how the segments behind are sealed under it.

    header = magic version kind cipher recipients repo_id pack_id commitment | 4 recipient slots | checksum (16)

docs/format.md has the byte tables. AES-GCM does not commit to a key, so the header carries a hash of the pack's key.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING

from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from model.errors import Damaged, NewerFormat, RepositoryError
from repository.keyring import Epoch, KeyRing
from repository.keys import KEY_SIZE, purpose_info
from repository.recipients import open_key, private_key_of, seal_key
from repository.seal import FORMAT_VERSION, TAG_SIZE, CipherKind
from repository.store import Bytes

if TYPE_CHECKING:
    from repository.repository import Repository

HEADER_SIZE = 512
OVERHEAD = 12 + TAG_SIZE  # bytes a sealed segment has more than a compressed one
FOOTER_ORDINAL = 0xFFFFFFFF  # the footer is sealed as the segment of this ordinal

_MAGIC = b"LOXP"
_SEGMENT_MAGIC = b"LOXS"
_HEADER = struct.Struct("<4sBBBB16s16s32s")  # magic version kind cipher recipients repo_id pack_id commitment
_RECIPIENT = struct.Struct("<BBHI96s")  # scheme length zero epoch wrapped
_RECIPIENTS_MAX = 4
_CHECKSUM_SIZE = 16
_CHECKSUM_AT = HEADER_SIZE - _CHECKSUM_SIZE
_AAD = struct.Struct("<4sBBBB16s16sIII")  # magic version cipher codec kind repo_id pack_id ordinal plain stored
_EPOCH_KEY = 1  # scheme: nonce, AES-256-GCM under data_key or meta_key of the epoch
_WRITER = 2  # scheme: id of a write-only machine, HPKE to the public key of the epoch
assert _HEADER.size + _RECIPIENTS_MAX * _RECIPIENT.size <= _CHECKSUM_AT


class PackKind(IntEnum):
    """What the chunks of a pack are; never mixed, so that metadata can be cached and given out apart."""

    DATA = 1
    META = 2


def pack_name(pack_id: bytes) -> str:
    """Where the pack lies in the store."""
    text = pack_id.hex()
    return f"packs/{text[:2]}/{text}"


@dataclass(frozen=True, slots=True)
class PackKeys:
    """An opened header: what it takes to open the segments of one pack. Shared by threads, never pickled."""

    pack_id: bytes
    kind: PackKind
    repo_id: bytes
    aead: AESGCM | None = field(repr=False)  # None without encryption
    written: bool = False  # by a write-only machine

    def associated(self, ordinal: int, codec: int, plain: int, stored: int) -> bytes:
        """All that a reader believes about a segment before it opens it; part of what its tag covers."""
        cipher = CipherKind.NONE if self.aead is None else CipherKind.AES_256_GCM
        return _AAD.pack(
            _SEGMENT_MAGIC,
            FORMAT_VERSION,
            cipher,
            codec,
            self.kind,
            self.repo_id,
            self.pack_id,
            ordinal,
            plain,
            stored,
        )

    def seal_into(self, ordinal: int, codec: int, plain: int, data: Bytes, out: memoryview) -> None:
        """Seal the compressed `data` of `plain` bytes into `out`, which is `OVERHEAD` bytes longer than `data`.

        The nonce is the ordinal, which never repeats within a pack, and 64 random bits: should a virtual machine be
        rolled back and go on with the same pack, they keep the two histories apart.
        """
        associated = self.associated(ordinal, codec, plain, len(out))
        nonce = struct.pack("<I", ordinal) + (bytes(8) if self.aead is None else os.urandom(8))
        out[:12] = nonce
        if self.aead is None:
            out[12:-TAG_SIZE] = data
            out[-TAG_SIZE:] = _plain_tag(associated + nonce, data)
        else:
            self.aead.encrypt_into(nonce, data, associated, out[12:])

    def open_into(self, ordinal: int, codec: int, plain: int, sealed: Bytes, out: memoryview) -> None:
        """Fill `out` with the compressed bytes of `sealed`, which is `OVERHEAD` bytes longer. Raises Damaged."""
        associated = self.associated(ordinal, codec, plain, len(sealed))
        view = memoryview(sealed)
        if self.aead is None:
            out[:] = view[12:-TAG_SIZE]
            if not hmac.compare_digest(_plain_tag(associated + view[:12], out), bytes(view[-TAG_SIZE:])):
                raise self.damaged(ordinal)
            return
        try:
            self.aead.decrypt_into(view[:12], view[12:], associated, out)
        except (InvalidTag, ValueError) as error:
            raise self.damaged(ordinal) from error

    def damaged(self, ordinal: int, why: str = "") -> Damaged:
        """The error for a segment (or the footer) that does not open."""
        what = "the table of a pack is damaged" if ordinal == FOOTER_ORDINAL else "a segment of a pack is damaged"
        subject = pack_name(self.pack_id) + ("" if ordinal == FOOTER_ORDINAL else f" segment {ordinal}")
        return Damaged(what, subject=subject, why=why, hint="lox check --read-data lists the files concerned")


def new_header(keys: KeyRing, kind: PackKind) -> tuple[bytes, PackKeys]:
    """The header of a new pack with a random id and key, and that key."""
    pack_id = os.urandom(16)
    if not keys.encrypted:
        fixed = _HEADER.pack(_MAGIC, FORMAT_VERSION, kind, CipherKind.NONE, 0, keys.repo_id, pack_id, bytes(32))
        return _with_checksum(fixed), PackKeys(pack_id, kind, keys.repo_id, None)
    key = os.urandom(KEY_SIZE)
    commitment = _commit(key, pack_id)
    fixed = _HEADER.pack(_MAGIC, FORMAT_VERSION, kind, CipherKind.AES_256_GCM, 1, keys.repo_id, pack_id, commitment)
    scheme, number, wrapped = _wrapped(keys, kind, key, fixed)
    recipient = _RECIPIENT.pack(scheme, len(wrapped), 0, number, wrapped)
    written = keys.writer is not None
    return _with_checksum(fixed + recipient), PackKeys(pack_id, kind, keys.repo_id, AESGCM(key), written)


def _wrapped(keys: KeyRing, kind: PackKind, key: bytes, fixed: bytes) -> tuple[int, int, bytes]:
    """Scheme, epoch and what goes into the recipient slot."""
    if (writer := keys.writing()) is not None:
        info = _writer_info(keys.repo_id, writer.id, writer.secret, fixed)
        return _WRITER, writer.number, writer.id + seal_key(key, writer.public, info)
    epoch, nonce = keys.sealing(), os.urandom(12)
    return _EPOCH_KEY, epoch.number, nonce + AESGCM(_wrapping_key(epoch, kind)).encrypt(nonce, key, fixed)


def open_header(keys: KeyRing, header: bytes, pack_id: bytes) -> PackKeys:
    """The key in the first `HEADER_SIZE` bytes of the pack `pack_id`.

    Raises Damaged, NewerFormat, NoKey, and WrongPassword on a write-only machine.
    """
    subject = pack_name(pack_id)
    kind, cipher, recipients, commitment = _check_header(keys, header, pack_id, subject)
    if cipher == CipherKind.NONE:
        return PackKeys(pack_id, kind, keys.repo_id, None)
    trouble: RepositoryError | None = None
    for scheme, epoch, wrapped in _recipients(header, recipients):
        try:
            candidates = _unwrapped(keys, scheme, epoch, wrapped, header, kind, subject)
            key = next((one for one in candidates if hmac.compare_digest(_commit(one, pack_id), commitment)), None)
        except RepositoryError as error:
            trouble = error
            continue
        if key is not None:
            return PackKeys(pack_id, kind, keys.repo_id, AESGCM(key), scheme == _WRITER)
    raise trouble or Damaged("the key of a pack does not open with the key of this repository", subject=subject)


def header_epoch(keys: KeyRing, header: bytes, pack_id: bytes) -> int:
    """The number of the oldest epoch whose keys open the pack; 0 without encryption. Raises Damaged, NewerFormat."""
    _, _, recipients, _ = _check_header(keys, header, pack_id, pack_name(pack_id))
    return min((epoch for _, epoch, _ in _recipients(header, recipients)), default=0)


def pack_epoch(repository: Repository, pack_id: bytes) -> int:
    """`header_epoch` of a pack in the store. Also raises StoreError."""
    return header_epoch(repository.keys, repository.store.get(pack_name(pack_id), 0, HEADER_SIZE), pack_id)


def _recipients(header: bytes, count: int) -> Iterator[tuple[int, int, bytes]]:
    """Scheme, epoch and wrapped key of each recipient slot in use."""
    for slot in range(count):
        scheme, length, _, epoch, room = _RECIPIENT.unpack_from(header, _HEADER.size + slot * _RECIPIENT.size)
        yield scheme, epoch, room[:length]


def _unwrapped(
    keys: KeyRing, scheme: int, number: int, wrapped: bytes, header: bytes, kind: PackKind, subject: str
) -> Iterator[bytes]:
    """What may be the key of the pack: the commitment decides."""
    fixed = header[: _HEADER.size]
    if scheme == _WRITER:
        writer_id, sealed = wrapped[:16], wrapped[16:]
        for secret in keys.writer_secrets(writer_id, subject):
            for epoch in keys.opening(number, subject):
                private = private_key_of(epoch.key, "epoch", keys.repo_id)
                key = open_key(sealed, private, _writer_info(keys.repo_id, writer_id, secret, fixed))
                if key is not None:
                    yield key
    for epoch in keys.opening(number, subject) if scheme == _EPOCH_KEY else ():
        try:
            yield AESGCM(_wrapping_key(epoch, kind)).decrypt(wrapped[:12], wrapped[12:], fixed)
        except (InvalidTag, ValueError):
            continue


def _check_header(keys: KeyRing, header: bytes, pack_id: bytes, subject: str) -> tuple[PackKind, int, int, bytes]:
    if len(header) != HEADER_SIZE or header[:4] != _MAGIC:
        raise Damaged("a pack does not begin with a header", subject=subject)
    if blake3(header[:_CHECKSUM_AT]).digest(_CHECKSUM_SIZE) != header[_CHECKSUM_AT:]:
        raise Damaged("the header of a pack does not match its checksum", subject=subject)
    _, version, kind, cipher, recipients, repo_id, found_id, commitment = _HEADER.unpack_from(header)
    if version > FORMAT_VERSION:
        raise NewerFormat("a pack was written by a newer version", subject=subject, hint="update lox")
    if repo_id != keys.repo_id or found_id != pack_id:
        raise Damaged("a pack has the header of another one", subject=subject)
    if kind not in PackKind.__members__.values() or version == 0 or recipients > _RECIPIENTS_MAX:
        raise Damaged("a pack has an impossible header", subject=subject)
    if cipher != (CipherKind.AES_256_GCM if keys.encrypted else CipherKind.NONE):
        raise Damaged("a pack is not encrypted as the repository is", subject=subject)
    return PackKind(kind), cipher, recipients, commitment


def _with_checksum(header: bytes) -> bytes:
    padded = header.ljust(_CHECKSUM_AT, b"\0")
    return padded + blake3(padded).digest(_CHECKSUM_SIZE)


def _wrapping_key(epoch: Epoch, kind: PackKind) -> bytes:
    return epoch.data_key if kind is PackKind.DATA else epoch.meta_key


def _writer_info(repo_id: bytes, writer_id: bytes, secret: bytes, fixed: bytes) -> bytes:
    return purpose_info("written pack", repo_id) + writer_id + secret + fixed


def _commit(key: bytes, pack_id: bytes) -> bytes:
    return hashlib.sha256(b"lox pack key" + key + pack_id).digest()


def _plain_tag(before: bytes, data: Bytes) -> bytes:
    tag = blake3(before)
    tag.update(data)
    return tag.digest(TAG_SIZE)
