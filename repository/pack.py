"""Packs: segments sealed under a key of their own, behind a header of fixed size and before a sealed footer.

    pack = header (HEADER_SIZE) | segment 0 | segment 1 | ... | footer | trailer (TRAILER_SIZE)

Segments and footer are ``nonce (12) | ciphertext | tag (16)``; the trailer ends with BLAKE3 of all bytes before it.
docs/format.md has the byte tables.
"""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Callable
from functools import partial
from queue import Empty, SimpleQueue
from typing import TypeVar

import numpy as np
from blake3 import blake3

import kernels
from model.batches import PackBytes, Receipt, Segment
from model.errors import Damaged, RunFailed
from repository.codecs import Codec, compressor, decompress, decompress_into
from repository.footer import FOOTER_PLAIN_MAX, PACK_MAX, SEGMENT_PLAIN_MAX, decode_footer, encode_footer
from repository.keys import KeyRing
from repository.pack_keys import (
    FOOTER_ORDINAL,
    HEADER_SIZE,
    OVERHEAD,
    PackKeys,
    PackKind,
    new_header,
    open_header,
    pack_name,
)
from repository.seal import CHECKSUM_SIZE
from repository.store import Bytes, Store

__all__ = ["HEADER_SIZE", "OVERHEAD", "PackBuffers", "PackKeys", "PackKind", "PackReader", "PackWriter", "pack_name"]

R = TypeVar("R")

PACK_TARGET = 64 << 20  # bytes at which a pack is full
TRAILER_SIZE = 16 + CHECKSUM_SIZE

PATIENCE = 0.03  # seconds: a local store takes less for a pack
_PAGE = 4096
_TAIL = 64 << 10  # bytes read from the end of a pack: most footers are within
_TRAILER_MAGIC = b"LOXT"
_TRAILER = struct.Struct("<4sB3sII")  # magic codec zero plain stored, of the footer
assert _TRAILER.size + CHECKSUM_SIZE == TRAILER_SIZE


class PackBuffers:
    """Memory for one pack after the other: first touch of fresh memory costs as much as compression.

    A finished pack lies in memory taken from here until its `release` is called, from any thread.
    """

    def __init__(self) -> None:
        self._free: SimpleQueue[memoryview] = SimpleQueue()
        self._lent = 0

    def take(self, size: int) -> memoryview:
        """At least `size` bytes. Waits a moment for memory that was lent before more is touched."""
        try:
            room = self._free.get(timeout=PATIENCE if self._lent else 0)
        except Empty:
            room = memoryview(b"")
        self._lent += 1
        return room if room.nbytes >= size else _room(size)

    def give_back(self, room: memoryview) -> None:
        """What was taken may be taken again."""
        self._free.put(room)


class _Scratch(threading.local):
    """Memory of each thread for looking at one segment."""

    def __init__(self) -> None:
        self._packed = self._plain = memoryview(b"")

    def packed(self, size: int) -> memoryview:
        """`size` bytes for a decrypted segment, until the next call in this thread."""
        if self._packed.nbytes < size:
            self._packed = _room(size)
        return self._packed[:size]

    def plain(self, size: int) -> memoryview:
        """`size` bytes for a decompressed segment, until the next call in this thread."""
        if self._plain.nbytes < size:
            self._plain = _room(size)
        return self._plain[:size]


_scratch = _Scratch()


class PackWriter:
    """Makes one pack. Used by one thread, for one pack, and never across a fork: the counter in the nonce is ours.

    `target` is the size in bytes from which the pack is `full`; it may grow past it by one segment.
    """

    def __init__(
        self, keys: KeyRing, kind: PackKind, target: int = PACK_TARGET, buffers: PackBuffers | None = None
    ) -> None:
        self.kind = kind
        self.target = target
        self.size = HEADER_SIZE
        self._buffers = buffers or PackBuffers()
        self._room = self._buffers.take(target + (8 << 20))
        self._pid = os.getpid()
        self._segments: list[tuple[int, int, int, int]] = []
        self._contents: list[Segment] = []
        self._header, self._keys = new_header(keys, kind)
        # What is read back is opened with the key as a reader will get it, not with the one at hand.
        self._reader_keys = open_header(keys, self._header, self._keys.pack_id)
        self._finished = False
        self._checksum = blake3(self._header)

    @property
    def full(self) -> bool:
        return self.size >= self.target

    @property
    def segments(self) -> int:
        """How many were added."""
        return len(self._segments)

    def add(self, segment: Segment, verify_against: Bytes | None = None, *, as_packed: bool = False) -> None:
        """Seal `segment` behind the others. With its plain bytes given, opens it again and compares before it counts;
        `as_packed`: with its compressed bytes, so that nothing is decompressed.

        Raises Damaged if what was sealed is not what was given: then memory or processor fail.
        """
        assert not self._finished, "a finished pack is never added to"
        if os.getpid() != self._pid:
            raise RunFailed("a pack was carried across a fork", hint="open a new pack in the new process")
        if segment.plain_length > SEGMENT_PLAIN_MAX:
            raise ValueError(f"segment of {segment.plain_length} bytes, at most {SEGMENT_PLAIN_MAX}")
        ordinal = len(self._segments)
        sealed = self._append(ordinal, segment.codec, segment.plain_length, segment.data)
        if verify_against is not None:
            self._verify(ordinal, segment.codec, segment.plain_length, sealed, memoryview(verify_against), as_packed)
        self._segments.append((self.size - len(sealed), len(sealed), segment.plain_length, segment.codec))
        self._contents.append(Segment(segment.codec, 0, b"", segment.ids, segment.offset, segment.length))

    def finish(self) -> PackBytes:
        """Seal the footer and give the pack away; the writer is done. Its bytes are good until it is released."""
        self._finished = True
        receipt = self._receipt()
        plain = encode_footer(receipt)
        codec, data = Codec.ZSTD, compressor(Codec.ZSTD)(plain)
        if len(data) >= len(plain):
            codec, data = Codec.NONE, plain
        footer = self._append(FOOTER_ORDINAL, codec, len(plain), data)
        self._verify(FOOTER_ORDINAL, codec, len(plain), footer, memoryview(plain), False)
        trailer = _TRAILER.pack(_TRAILER_MAGIC, codec, bytes(3), len(plain), len(footer))
        self._checksum.update(trailer)
        self._reserve(TRAILER_SIZE)
        end = self.size + TRAILER_SIZE
        self._room[self.size : end] = trailer + self._checksum.digest()
        self._room[:HEADER_SIZE] = self._header
        self.size = receipt.pack_size = end
        release = partial(self._buffers.give_back, self._room)
        return PackBytes(receipt.pack_id, [self._room[:end].toreadonly()], end, receipt, release)

    def _append(self, ordinal: int, codec: int, plain: int, data: Bytes) -> memoryview:
        length = memoryview(data).nbytes + OVERHEAD
        self._reserve(length)
        sealed = self._room[self.size : self.size + length]
        self._keys.seal_into(ordinal, codec, plain, data, sealed)
        self._checksum.update(sealed)
        self.size += length
        return sealed

    def _reserve(self, length: int) -> None:
        if self.size + length > PACK_MAX:
            raise ValueError(f"pack of more than {PACK_MAX} bytes")
        if self.size + length > len(self._room):
            grown = _room(2 * (self.size + length))
            grown[: self.size] = self._room[: self.size]
            self._room = grown

    def _verify(
        self, ordinal: int, codec: int, length: int, sealed: memoryview, expected: memoryview, as_packed: bool
    ) -> None:
        packed = _scratch.packed(len(sealed) - OVERHEAD)
        self._reader_keys.open_into(ordinal, codec, length, sealed, packed)
        opened = packed
        if codec != Codec.NONE and not as_packed:
            opened = _scratch.plain(length)
            _decoded(self._keys, ordinal, lambda: decompress_into(codec, packed, opened))
        if not kernels.same_bytes(opened, expected):
            raise self._keys.damaged(ordinal, "it does not open to what was put in; memory or processor may fail")

    def _receipt(self) -> Receipt:
        offset, stored, plain, codec = np.array(self._segments, np.int64).reshape(-1, 4).T
        counts = [len(content.ids) for content in self._contents]
        nothing = np.zeros(0, np.uint32)
        return Receipt(
            pack_id=self._keys.pack_id,
            pack_kind=self.kind,
            pack_size=0,
            segment_offset=offset.astype(np.uint32),
            segment_stored=stored.astype(np.uint32),
            segment_plain=plain.astype(np.uint32),
            segment_codec=codec.astype(np.uint8),
            ids=np.concatenate([np.zeros((0, 32), np.uint8), *(content.ids for content in self._contents)]),
            segment=np.repeat(np.arange(len(counts), dtype=np.uint32), counts),
            offset=np.concatenate([nothing, *(content.offset for content in self._contents)]),
            length=np.concatenate([nothing, *(content.length for content in self._contents)]),
        )


class PackReader:
    """Opens the packs of one repository. Thread-safe."""

    def __init__(self, keys: KeyRing) -> None:
        self._keys = keys

    def open_header(self, header: bytes, pack_id: bytes) -> PackKeys:
        """The key in the first `HEADER_SIZE` bytes of the pack `pack_id`. Raises Damaged, NewerFormat."""
        return open_header(self._keys, header, pack_id)

    def open_segment(self, keys: PackKeys, ordinal: int, codec: int, plain_length: int, sealed: Bytes) -> bytes:
        """The plain bytes of one sealed segment. Raises Damaged naming pack and segment, NewerFormat."""
        _check_lengths(keys, ordinal, plain_length, sealed)
        return _open(keys, ordinal, codec, plain_length, sealed)

    def read_footer(self, store: Store, pack_id: bytes, size: int) -> Receipt:
        """What the pack of `size` bytes holds, in two or three range reads. Raises Damaged, NewerFormat, StoreError."""
        name = pack_name(pack_id)
        keys = self.open_header(store.get(name, 0, HEADER_SIZE), pack_id)
        tail = store.get(name, max(0, size - _TAIL), _TAIL)
        needed = self._footer_length(tail, size, name) + TRAILER_SIZE
        if needed > len(tail):
            tail = store.get(name, size - needed, needed)
        return self.open_footer(keys, tail, size)

    def open_footer(self, keys: PackKeys, tail: Bytes, size: int) -> Receipt:
        """What the pack of `size` bytes holds, given at least footer and trailer from its end. Raises Damaged."""
        name = pack_name(keys.pack_id)
        stored = self._footer_length(tail, size, name)
        if stored + TRAILER_SIZE > len(tail):
            raise Damaged("a pack is cut off", subject=name)
        _, codec, _, plain_length, _ = _TRAILER.unpack_from(tail, len(tail) - TRAILER_SIZE)
        at = len(tail) - TRAILER_SIZE - stored
        plain = _open(keys, FOOTER_ORDINAL, codec, plain_length, memoryview(tail)[at : at + stored])
        return decode_footer(plain, keys.pack_id, keys.kind, size, name)

    def _footer_length(self, tail: Bytes, size: int, name: str) -> int:
        if len(tail) < TRAILER_SIZE or not HEADER_SIZE + OVERHEAD + TRAILER_SIZE <= size <= PACK_MAX:
            raise Damaged("a pack has an impossible length", subject=name, why=f"{size} bytes")
        magic, _, _, plain, stored = _TRAILER.unpack_from(tail, len(tail) - TRAILER_SIZE)
        if magic != _TRAILER_MAGIC or plain > FOOTER_PLAIN_MAX:
            raise Damaged("a pack does not end with a trailer", subject=name)
        if not OVERHEAD <= stored <= size - HEADER_SIZE - TRAILER_SIZE:
            raise Damaged("a pack has a trailer that does not fit", subject=name)
        return int(stored)


def _open(keys: PackKeys, ordinal: int, codec: int, plain_length: int, sealed: Bytes) -> bytes:
    packed = _scratch.packed(len(sealed) - OVERHEAD)
    keys.open_into(ordinal, codec, plain_length, sealed, packed)
    return _decoded(keys, ordinal, lambda: decompress(codec, packed, plain_length))


def _decoded(keys: PackKeys, ordinal: int, decode: Callable[[], R]) -> R:
    try:
        return decode()
    except Damaged as error:
        raise keys.damaged(ordinal, error.what) from error


def _check_lengths(keys: PackKeys, ordinal: int, plain_length: int, sealed: Bytes) -> None:
    if len(sealed) < OVERHEAD or not 0 <= plain_length <= SEGMENT_PLAIN_MAX:
        raise keys.damaged(ordinal, "it has an impossible length")


def _room(size: int) -> memoryview:
    # Unlike bytearray, NumPy does not write zeros into it: pages nobody uses are never touched. It begins on a page,
    # so that a store may hand it to the device as it is.
    room = np.empty(size + _PAGE, np.uint8)
    skip = -room.ctypes.data % _PAGE
    return room[skip : skip + size].data
