"""A reader of repositories written from docs/format.md alone: no code of ours, and no care for speed.

It uses the standard library, cryptography, zstandard and pyarrow. What it does not check are the BLAKE3 checksums.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import struct
import unicodedata
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pyarrow as pa
import zstandard
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

Read = Callable[[str], bytes]
Row = dict[str, Any]


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


def open_envelope(sealed: bytes, kind: int, name: str, keys: Keys) -> bytes:
    fields = struct.unpack_from("<4sBBBB16sQI32s12s", sealed)
    magic, version, found, cipher, codec, repo, size, epoch, salt, nonce = fields
    assert (magic, version, found, repo) == (b"LOXO", 1, kind, keys.repo_id)
    body = sealed[80:-32]
    assert bool(cipher) == bool(keys.master)
    if cipher == 2:
        assert name.partition("/")[0] in ("index", "snapshots", "sessions")
        writer = salt[:16]
        where = info("written object", repo) + writer + keys.writer_secret(writer) + sealed[:80] + name.encode()
        body = AESGCM(hpke_open(body[:80], keys.of("epoch", epoch), where)).decrypt(
            nonce, body[80:], sealed[:80] + name.encode()
        )
    elif cipher:
        key = hkdf(keys.of("objects", epoch), info("object", repo), salt, 32)
        body = AESGCM(key).decrypt(nonce, body, sealed[:80] + name.encode())
    return decompress(codec, body, size)


# §4


@dataclass
class Slot:
    """An opened key slot: the key of the epoch it was made in, and its private key."""

    id: str
    epoch: str
    key: bytes
    private: bytes


def open_slot(slot_id: str, data: bytes, secret: str) -> Slot:
    """What is in a key slot, given the password, recovery code or key file."""
    slot = checked_document(data)
    wrapped, tag = bytes.fromhex(slot.pop("wrapped")), bytes.fromhex(slot.pop("mac"))
    repo_id, salt = bytes.fromhex(slot["repo_id"]), bytes.fromhex(slot["salt"])
    if slot["kind"] == "password":
        derived = stretch(secret, salt, slot["argon2id"])
    elif slot["kind"] == "recovery":
        derived = hkdf(recovery_key(secret), info("recovery code", repo_id), salt, 64)
    else:
        derived = key_file(secret, salt)
    assert derived[32:].hex() == slot["check"]
    key = AESGCM(derived[:32]).decrypt(wrapped[:12], wrapped[12:], canonical(slot))
    assert tag == mac(hkdf(key, info("key slots", repo_id), b"", 32), wrapped + canonical(slot))
    private = hkdf(derived[:32], info("key slot", repo_id), b"", 32)
    assert public_key(private).hex() == slot["public"]
    return Slot(slot_id, slot["epoch"], key, private)


def checked_document(data: bytes) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(data)
    checksum = document.pop("checksum")
    assert checksum == hashlib.sha256(canonical(document)).hexdigest()
    return document


def public_key(private: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def hpke_open(sealed: bytes, private: bytes, info: bytes) -> bytes:
    suite = hpke.Suite(hpke.KEM.X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)
    return suite.decrypt(sealed, X25519PrivateKey.from_private_bytes(private), info)


def open_epoch(data: bytes, slot: Slot) -> dict[int, bytes]:
    """The keys of an epoch and of all before it, by their numbers."""
    document = checked_document(data)
    number, epoch_id, repo_id = document["number"], bytes.fromhex(document["id"]), bytes.fromhex(document["repo_id"])
    name = f"{number:08x}-{epoch_id.hex()}"
    key = slot.key
    if slot.epoch != name:
        (recipient,) = [one for one in document["recipients"] if one["slot"] == slot.id]
        where = info("epoch", repo_id) + struct.pack("<I", number) + epoch_id + slot.id.encode()
        key = hpke_open(bytes.fromhex(recipient["sealed"]), slot.private, where)
    tag = document.pop("mac")
    assert tag == mac(hkdf(key, info("epochs", repo_id), b"", 32), canonical(document)).hex()
    assert document["public"] == public_key(hkdf(key, info("epoch", repo_id), b"", 32)).hex()
    past = bytes.fromhex(document["past"])
    plain = AESGCM(hkdf(key, info("past epochs", repo_id), b"", 32)).decrypt(past[:12], past[12:], name.encode())
    return {old: old_key for old, _, old_key in struct.iter_unpack("<I16s32s", plain)} | {number: key}


def stretch(password: str, salt: bytes, costs: dict[str, int]) -> bytes:
    """The 64 bytes of a password."""
    argon2id = Argon2id(
        salt=salt, length=64, iterations=costs["iterations"], lanes=costs["lanes"], memory_cost=costs["memory_kib"]
    )
    return argon2id.derive(unicodedata.normalize("NFC", password).encode())


def recovery_key(code: str) -> bytes:
    raw = base64.b32decode(code.replace("-", "").replace(" ", "").upper().translate(str.maketrans("018", "OIB")))
    assert raw[32:] == hashlib.sha256(b"lox recovery code" + raw[:32]).digest()[:3]
    return raw[:32]


def key_file(text: str, salt: bytes) -> bytes:
    """The 64 bytes of a key file."""
    version, _, encoded = text.partition(":")
    assert version == "lox-key-file-1"
    header = checked_document(base64.urlsafe_b64decode(encoded))
    secret = bytes.fromhex(header.pop("secret"))
    return key_file_key(header, secret, salt)


def key_file_key(header: dict[str, Any], secret: bytes, salt: bytes) -> bytes:
    where = info("key file", bytes.fromhex(header["repo_id"])) + hashlib.sha256(canonical(header)).digest()
    return hkdf(secret, where, salt, 64)


@dataclass
class Keys:
    """All keys of a repository; empty without encryption, except for the chunker key."""

    repo_id: bytes
    epochs: dict[int, bytes] = field(default_factory=dict)
    shared: dict[str, bytes] = field(default_factory=dict)  # by purpose: those that the config names

    @property
    def master(self) -> bytes:
        return self.epochs.get(0, b"")

    def __getitem__(self, purpose: str) -> bytes:
        if purpose in self.shared:
            return self.shared[purpose]
        if not self.master:
            return bytes(32) if purpose == "chunker" else b""
        return self.of(purpose, 0)

    def of(self, purpose: str, epoch: int) -> bytes:
        return hkdf(self.epochs[epoch], info(purpose, self.repo_id), b"", 32)

    def writer_secret(self, writer: bytes) -> bytes:
        """The secret of a write-only machine."""
        key = self.epochs[int.from_bytes(writer[12:], "little")]
        return hkdf(key, info("writer", self.repo_id), writer, 32)

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
    codecs: list[int] = field(default_factory=list)
    chunks: dict[bytes, bytes] = field(default_factory=dict)


@dataclass
class PackHeader:
    """What the header of a pack says: enough to open its segments."""

    repo_id: bytes
    pack_id: bytes
    kind: int
    cipher: int
    pack_key: bytes

    @classmethod
    def open(cls, data: bytes, keys: Keys) -> PackHeader:
        magic, version, kind, cipher, recipients, repo_id, pack_id, commitment = struct.unpack_from(
            "<4sBBBB16s16s32s", data
        )
        assert (magic, version, repo_id) == (b"LOXP", 1, keys.repo_id)
        if not cipher:
            return cls(repo_id, pack_id, kind, cipher, b"")
        scheme, length, epoch, room = struct.unpack_from("<BBxxI96s", data, 72)
        assert recipients == 1 and (scheme, length) in ((1, 60), (2, 96))
        if scheme == 2:
            writer = room[:16]
            where = info("written pack", repo_id) + writer + keys.writer_secret(writer) + data[:72]
            pack_key = hpke_open(room[16:], keys.of("epoch", epoch), where)
        else:
            wrapping = keys.of("data packs" if kind == 1 else "meta packs", epoch)
            pack_key = AESGCM(wrapping).decrypt(room[:12], room[12:60], data[:72])
        assert commitment == hashlib.sha256(b"lox pack key" + pack_key + pack_id).digest()
        return cls(repo_id, pack_id, kind, cipher, pack_key)

    def associated(self, ordinal: int, codec: int, size: int, stored: int) -> bytes:
        """The AAD of a segment."""
        identity = struct.pack("<4sBBBB", b"LOXS", 1, self.cipher, codec, self.kind) + self.repo_id + self.pack_id
        return identity + struct.pack("<III", ordinal, size, stored)

    def unseal(self, ordinal: int, codec: int, size: int, sealed: bytes) -> bytes:
        """The plain content of a segment or footer."""
        assert struct.unpack_from("<I", sealed)[0] == ordinal
        body = sealed[12:-16]
        if self.cipher:
            aad = self.associated(ordinal, codec, size, len(sealed))
            body = AESGCM(self.pack_key).decrypt(sealed[:12], sealed[12:], aad)
        return decompress(codec, body, size)


def open_pack(data: bytes, keys: Keys) -> Pack:
    header = PackHeader.open(data, keys)
    magic, codec, size, stored = struct.unpack_from("<4sB3xII", data, len(data) - 48)
    assert magic == b"LOXT"
    begin = len(data) - 48 - stored
    footer = header.unseal(0xFFFFFFFF, codec, size, data[begin : begin + stored])
    k, m = struct.unpack_from("<II", footer)
    pack = Pack(header.pack_id, header.kind)
    end = 512
    for ordinal in range(k):
        offset, stored, size, codec = struct.unpack_from("<IIIB3x", footer, 8 + 16 * ordinal)
        assert offset == end
        end = offset + stored
        pack.segments.append(header.unseal(ordinal, codec, size, data[offset:end]))
        pack.codecs.append(codec)
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


# §9


@dataclass(frozen=True)
class Segment:
    """Where a segment lies."""

    pack_id: bytes
    ordinal: int
    offset: int
    stored: int
    size: int
    codec: int

    @property
    def pack_name(self) -> str:
        name = self.pack_id.hex()
        return f"packs/{name[:2]}/{name}"


@dataclass(frozen=True)
class Place:
    """Where a chunk lies in its decompressed segment."""

    segment: Segment
    offset: int
    length: int


def read_index(plain: bytes) -> dict[bytes, Place]:
    """Where each chunk of an index object lies."""
    version, _, packs, segments, chunks, _ = struct.unpack_from("<IIIIQQ", plain)
    assert version == 1
    at = 32
    pack_ids = [plain[at + 24 * row : at + 24 * row + 16] for row in range(packs)]
    at += 24 * packs
    rows = []
    for row in range(segments):
        pack, *place = struct.unpack_from("<IIIIIB3x", plain, at + 24 * row)
        rows.append(Segment(pack_ids[pack], *place))
    at += 24 * segments
    ids = [plain[at + 32 * row : at + 32 * row + 32] for row in range(chunks)]
    assert ids == sorted(ids)
    columns = struct.unpack_from(f"<{3 * chunks}I", plain, at + 32 * chunks)
    assert len(plain) == at + 44 * chunks
    places = zip(ids, columns[:chunks], columns[chunks : 2 * chunks], columns[2 * chunks :], strict=True)
    return {chunk_id: Place(rows[segment], offset, length) for chunk_id, segment, offset, length in places}


# §10


def table(plain: bytes) -> list[Row]:
    rows: list[Row] = pa.ipc.open_stream(plain).read_all().to_pylist()
    return rows


def order(path: bytes) -> tuple[bytes, bytes]:
    """What entries are sorted by."""
    directory, _, name = path.rpartition(b"/")
    return directory.replace(b"/", b"\0"), name


# §5 and all of it together


@dataclass
class Repository:
    """A repository read by hand: `names` are all of its objects, `read` gives the bytes of one."""

    names: list[str]
    read: Read
    keys: Keys
    config: dict[str, Any]
    _opened: dict[Segment, bytes] = field(default_factory=dict)

    @classmethod
    def open(cls, names: list[str], read: Read, secret: str | None, kind: str = "password") -> Repository:
        sealed = read("config")
        keys = Keys(sealed[8:24])
        if secret is not None:
            slots = {name[5:]: read(name) for name in names if re.fullmatch("keys/[0-9a-f]{32}", name)}
            wanted = next((one, data) for one, data in slots.items() if json.loads(data)["kind"] == kind)
            slot = open_slot(*wanted, secret)
            keys.epochs = {0: slot.key}
            if later := sorted(name for name in names if re.fullmatch("keys/epochs/[0-9a-f]{8}-[0-9a-f]{32}", name)):
                keys.epochs = open_epoch(read(later[-1]), slot)
        config = json.loads(open_envelope(sealed, 1, "config", keys))
        for purpose, name in (("chunk id", "id"), ("chunker", "chunker")):
            if "chunk_keys" in config:
                keys.shared[purpose] = bytes.fromhex(config["chunk_keys"][name])
        return cls(names, read, keys, config)

    def open_object(self, kind: int, name: str) -> bytes:
        return open_envelope(self.read(name), kind, name, self.keys)

    def packs(self) -> list[Pack]:
        return [open_pack(self.read(name), self.keys) for name in self.names if name.startswith("packs/")]

    def snapshots(self) -> dict[str, dict[str, Any]]:
        """Every snapshot by its id."""
        names = [name for name in self.names if name.startswith("snapshots/")]
        return {name.partition("/")[2]: json.loads(self.open_object(3, name)) for name in names}

    @cached_property
    def index(self) -> dict[bytes, Place]:
        found: dict[bytes, Place] = {}
        for name in self.names:
            if name.startswith("index/"):
                found |= read_index(self.open_object(2, name))
        return found

    def chunk(self, chunk_id: bytes) -> bytes:
        place = self.index[chunk_id]
        segment = place.segment
        if segment not in self._opened:
            data = self.read(segment.pack_name)
            header = PackHeader.open(data, self.keys)
            assert header.pack_id == segment.pack_id
            sealed = data[segment.offset : segment.offset + segment.stored]
            self._opened[segment] = header.unseal(segment.ordinal, segment.codec, segment.size, sealed)
        chunk = self._opened[segment][place.offset : place.offset + place.length]
        assert self.keys.chunk_id(chunk) == chunk_id
        return chunk

    def entries(self, snapshot: dict[str, Any]) -> list[Row]:
        """All rows of a snapshot."""
        root = snapshot["manifest"]
        tables = [self.chunk(bytes.fromhex(chunk["id"])) for chunk in root["chunks"]]
        assert [len(plain) for plain in tables] == [chunk["length"] for chunk in root["chunks"]]
        parts = [part for plain in tables for part in table(plain)]
        rows: list[Row] = []
        for part in parts:
            plain = self.chunk(part["id"])
            more = table(plain)
            assert (len(plain), len(more)) == (part["length"], part["rows"])
            assert (more[0]["path"], more[-1]["path"]) == (part["first"], part["last"])
            rows += more
        keys = [order(row["path"]) for row in rows]
        assert keys == sorted(set(keys))
        assert (len(parts), len(rows)) == (root["parts"], root["rows"])
        assert sum(part["length"] for part in parts) == root["bytes"]
        return rows

    def chunks(self, row: Row) -> Iterator[bytes]:
        """The chunks of an entry's content."""
        pairs = list(zip(row["chunks"], row["lengths"], strict=True))
        if row["depth"] == 1:
            lists = [self.chunk(list_id) for list_id, _ in pairs]
            assert [len(records) for records in lists] == [length for _, length in pairs]
            pairs = list(struct.iter_unpack("<32sI", b"".join(lists)))
        for chunk_id, length in pairs:
            chunk = self.chunk(chunk_id)
            assert len(chunk) == length
            yield chunk

    def content(self, row: Row) -> bytes:
        """The bytes of a file, holes included."""
        data = b"".join(self.chunks(row))
        if row["extents"] is None:
            assert len(data) == row["size"]
            return data
        content, at = bytearray(row["size"]), 0
        for extent in row["extents"]:
            begin, length = extent["offset"], extent["length"]
            content[begin : begin + length] = data[at : at + length]
            at += length
        assert (at, len(content)) == (len(data), row["size"])
        return bytes(content)
