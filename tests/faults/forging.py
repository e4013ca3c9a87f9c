"""What somebody with the keys, or with an unencrypted repository, can put into a store: sealed well, and hostile."""

from __future__ import annotations

import os
import struct

import numpy as np
from blake3 import blake3
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from model.batches import PackBytes, Segment
from repository.keyring import KeyRing
from repository.keys import hkdf, purpose_info
from repository.pack import PackKind, PackWriter, pack_name
from repository.pack_keys import FOOTER_ORDINAL, OVERHEAD, PackKeys
from repository.repository import Repository
from repository.store import Store

ENVELOPE = struct.Struct("<4sBBBB16sQI32s12s")
TRAILER = struct.Struct("<4sB3sII")


def exchange(store: Store, name: str, data: bytes) -> None:
    """Put `data` in the place of the object `name`."""
    store.delete(name)
    store.put(name, [data])


def sealed(keys: KeyRing, kind: int, name: str, codec: int, plain_length: int, body: bytes) -> bytes:
    """An object that authenticates, whatever its header says of its compressed `body`."""
    salt, nonce = (os.urandom(32), os.urandom(12)) if keys.encrypted else (bytes(32), bytes(12))
    number = keys.sealing().number if keys.encrypted else 0
    header = ENVELOPE.pack(
        b"LOXO", 1, kind, int(keys.encrypted), codec, keys.repo_id, plain_length, number, salt, nonce
    )
    if keys.encrypted:
        key = hkdf(keys.sealing().object_key, purpose_info("object", keys.repo_id), salt)
        body = AESGCM(key).encrypt(nonce, body, header + name.encode())
    return with_checksum(header + body)


def with_checksum(data: bytes) -> bytes:
    """`data` with the checksum that every sealed object ends with."""
    return data + blake3(data).digest()


def pack_with_segment(repository: Repository, codec: int, plain_length: int, body: bytes, chunk_id: bytes) -> PackBytes:
    """A pack of one segment that says to open to `plain_length` bytes, all of them the chunk `chunk_id`."""
    writer = PackWriter(repository.keys, PackKind.DATA)
    ids = np.frombuffer(chunk_id, np.uint8).reshape(1, 32)
    whole = np.array([plain_length], np.uint32)
    writer.add(Segment(codec, plain_length, body, ids, np.zeros(1, np.uint32), whole))
    finished = writer.finish()
    repository.store.put(pack_name(finished.pack_id), finished.parts)
    return finished


def pack_with_footer(keys: PackKeys, before: bytes, plain: bytes, plain_length: int | None = None) -> bytes:
    """A pack whose header and segments are `before`, and whose footer opens to `plain`."""
    length = len(plain) if plain_length is None else plain_length
    room = memoryview(bytearray(len(plain) + OVERHEAD))
    keys.seal_into(FOOTER_ORDINAL, 0, length, plain, room)
    data = before + bytes(room) + TRAILER.pack(b"LOXT", 0, bytes(3), length, len(room))
    return with_checksum(data)
