"""A reader of repositories written from docs/format.md alone: no code of ours, and no care for speed.

It uses the standard library, cryptography and zstandard. What it does not check are the BLAKE3 checksums.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import struct
import unicodedata
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import zstandard
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

Read = Callable[[str], bytes]


def mac(key: bytes, data: bytes) -> bytes:
    return hmac.new(key, data, hashlib.sha256).digest()


def hkdf(secret: bytes, info: bytes, salt: bytes, size: int) -> bytes:
    prk = mac(salt or bytes(32), secret)
    block, output = b"", b""
    while len(output) < size:
        block = mac(prk, block + info + bytes([len(output) // 32 + 1]))
        output += block
    return output[:size]


def info(purpose: str, repo_id: bytes) -> bytes:
    return b"".join(bytes([len(part)]) + part for part in (b"lox", b"v1", purpose.encode(), repo_id))


def canonical(document: dict[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


# §8


def decompress(codec: int, data: bytes, size: int) -> bytes:
    if codec == 1:
        data = zstandard.ZstdDecompressor().decompress(data)
    elif codec == 2:
        data = lz4_block(data)
    elif codec == 3:
        data = zlib.decompress(data, wbits=31)
    else:
        assert codec == 0
    assert len(data) == size
    return data


def lz4_block(data: bytes) -> bytes:
    output, at = bytearray(), 0

    def length(nibble: int) -> int:
        nonlocal at
        total = nibble
        while nibble == 15 and (total - 15) % 255 == 0:
            total += data[at]
            at += 1
            if data[at - 1] != 255:
                break
        return total

    while at < len(data):
        token = data[at]
        at += 1
        literals = length(token >> 4)
        output += data[at : at + literals]
        at += literals
        if at == len(data):
            break
        back = int.from_bytes(data[at : at + 2], "little")
        at += 2
        for _ in range(length(token & 15) + 4):
            output.append(output[-back])
    return bytes(output)


# §3


def open_envelope(sealed: bytes, kind: int, name: str, repo_id: bytes, object_key: bytes) -> bytes:
    magic, version, found, cipher, codec, repo, size, salt, nonce = struct.unpack_from("<4sBBBB16sQ36s12s", sealed)
    assert (magic, version, found, repo) == (b"LOXO", 1, kind, repo_id)
    body = sealed[80:-32]
    assert cipher == (1 if object_key else 0)
    if cipher:
        key = hkdf(object_key, info("object", repo_id), salt, 32)
        body = AESGCM(key).decrypt(nonce, body, sealed[:80] + name.encode())
    return decompress(codec, body, size)


# §4


def open_slot(data: bytes, secret: str) -> bytes:
    """The master key in a key slot, given the password or recovery code."""
    slot = json.loads(data)
    checksum, wrapped = slot.pop("checksum"), bytes.fromhex(slot["wrapped"])
    assert checksum == hashlib.sha256(canonical(slot)).hexdigest()
    del slot["wrapped"]
    repo_id, salt = bytes.fromhex(slot["repo_id"]), bytes.fromhex(slot["salt"])
    if slot["kind"] == "password":
        derived = stretch(secret, salt, slot["argon2id"])
    else:
        derived = hkdf(recovery_key(secret), info("recovery code", repo_id), salt, 64)
    assert derived[32:].hex() == slot["check"]
    return AESGCM(derived[:32]).decrypt(wrapped[:12], wrapped[12:], canonical(slot))


def stretch(password: str, salt: bytes, costs: dict[str, int]) -> bytes:
    """The 64 bytes of a password."""
    argon2id = Argon2id(
        salt=salt, length=64, iterations=costs["iterations"], lanes=costs["lanes"], memory_cost=costs["memory_kib"]
    )
    return argon2id.derive(unicodedata.normalize("NFC", password).encode())


def recovery_key(code: str) -> bytes:
    raw = base64.b32decode(code.replace("-", ""))
    assert raw[32:] == hashlib.sha256(b"lox recovery code" + raw[:32]).digest()[:3]
    return raw[:32]


@dataclass
class Keys:
    """All keys of a repository; empty without encryption, except for the chunker key."""

    repo_id: bytes
    master: bytes = b""

    def __getitem__(self, purpose: str) -> bytes:
        if not self.master:
            return bytes(32) if purpose == "chunker" else b""
        return hkdf(self.master, info(purpose, self.repo_id), b"", 32)

    def chunk_id(self, chunk: bytes) -> bytes:
        return mac(self["chunk id"], chunk) if self.master else hashlib.sha256(chunk).digest()


# §6.2


def cut(content: bytes, chunker: dict[str, Any], chunker_key: bytes) -> list[bytes]:
    """The chunks of some content."""
    if chunker["kind"] == "fixed":
        return [content[at : at + chunker["average"]] for at in range(0, len(content), chunker["average"])]
    table = [struct.unpack("<Q", mac(chunker_key, b"lox gear v1" + bytes([b]))[:8])[0] for b in range(256)]
    bits = chunker["average"].bit_length() - 1
    strict, loose = 2 ** (64 - bits - chunker["normalization"]), 2 ** (64 - bits + chunker["normalization"])
    chunks, start, value = [], 0, 0
    for at, byte in enumerate(content):
        value = (2 * value + table[byte]) % 2**64
        size = at + 1 - start
        if (
            (chunker["minimum"] <= size < chunker["average"] and value < strict)
            or (chunker["average"] <= size < chunker["maximum"] and value < loose)
            or size == chunker["maximum"]
        ):
            chunks.append(content[start : at + 1])
            start = at + 1
    return [*chunks, content[start:]] if start < len(content) else chunks


# §7


@dataclass
class Pack:
    """A pack, all of it opened."""

    pack_id: bytes
    kind: int
    segments: list[bytes] = field(default_factory=list)
    chunks: dict[bytes, bytes] = field(default_factory=dict)


def open_pack(data: bytes, keys: Keys) -> Pack:
    magic, version, kind, cipher, recipients, repo_id, pack_id, commitment = struct.unpack_from(
        "<4sBBBB16s16s32s", data
    )
    assert (magic, version, repo_id) == (b"LOXP", 1, keys.repo_id)
    pack_key = b""
    if cipher:
        scheme, length, nonce, wrapped = struct.unpack_from("<BB6x12s48s", data, 72)
        assert (recipients, scheme, length) == (1, 1, 60)
        wrapping = keys["data packs" if kind == 1 else "meta packs"]
        pack_key = AESGCM(wrapping).decrypt(nonce, wrapped, data[:72])
        assert commitment == hashlib.sha256(b"lox pack key" + pack_key + pack_id).digest()

    def unseal(ordinal: int, codec: int, size: int, sealed: bytes) -> bytes:
        identity = struct.pack("<4sBBBB16s16s", b"LOXS", 1, cipher, codec, kind, repo_id, pack_id)
        aad = identity + struct.pack("<III", ordinal, size, len(sealed))
        assert struct.unpack_from("<I", sealed)[0] == ordinal
        body = AESGCM(pack_key).decrypt(sealed[:12], sealed[12:], aad) if cipher else sealed[12:-16]
        return decompress(codec, body, size)

    magic, codec, size, stored = struct.unpack_from("<4sB3xII", data, len(data) - 48)
    assert magic == b"LOXT"
    begin = len(data) - 48 - stored
    footer = unseal(0xFFFFFFFF, codec, size, data[begin : begin + stored])
    k, m = struct.unpack_from("<II", footer)
    pack = Pack(pack_id, kind)
    end = 512
    for ordinal in range(k):
        offset, stored, size, codec = struct.unpack_from("<IIIB3x", footer, 8 + 16 * ordinal)
        assert offset == end
        end = offset + stored
        pack.segments.append(unseal(ordinal, codec, size, data[offset:end]))
    assert end == begin
    ids = 8 + 16 * k
    columns = struct.unpack_from(f"<{3 * m}I", footer, ids + 32 * m)
    for row in range(m):
        segment, offset, length = columns[row], columns[m + row], columns[2 * m + row]
        chunk = pack.segments[segment][offset : offset + length]
        chunk_id = footer[ids + 32 * row : ids + 32 * row + 32]
        assert chunk_id == keys.chunk_id(chunk)
        pack.chunks[chunk_id] = chunk
    assert len(footer) == ids + 44 * m
    return pack


# §5


@dataclass
class Repository:
    """A repository read by hand: `names` are all of its objects, `read` gives the bytes of one."""

    names: list[str]
    read: Read
    keys: Keys
    config: dict[str, Any]

    @classmethod
    def open(cls, names: list[str], read: Read, secret: str | None, kind: str = "password") -> Repository:
        sealed = read("config")
        keys = Keys(sealed[8:24])
        if secret is not None:
            slots = [read(name) for name in names if name.startswith("keys/")]
            keys.master = next(open_slot(slot, secret) for slot in slots if json.loads(slot)["kind"] == kind)
        return cls(names, read, keys, json.loads(open_envelope(sealed, 1, "config", keys.repo_id, keys["objects"])))

    def open_object(self, kind: int, name: str) -> bytes:
        return open_envelope(self.read(name), kind, name, self.keys.repo_id, self.keys["objects"])

    def packs(self) -> list[Pack]:
        return [open_pack(self.read(name), self.keys) for name in self.names if name.startswith("packs/")]
