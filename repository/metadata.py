"""Where manifests are stored: as chunks in metadata packs, deduplicated like all others."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from model.batches import Receipt, Segment
from model.entries import U8, Bool
from repository.codecs import Codec, compressor
from repository.pack import PackBuffers, PackKind, PackWriter, pack_name
from repository.repository import Repository

SEGMENT_BYTES = 4 << 20  # plain bytes from which a segment is sealed
PACK_BYTES = 16 << 20


class Claims(Protocol):
    """What is stored already: `ClaimTable` or a proxy of it."""

    def resolved(self, ids: U8) -> Bool: ...


class MetadataStore:
    """Stores plain bytes as chunks. For one thread; the receipts are the caller's to report and to index.

    Nothing is claimed and no claim is trusted: a file may hold the very bytes of a manifest, and whoever stores the
    one must not wait for the other, which may be stored last of all. In a dry run all is done but storing.
    """

    def __init__(self, repository: Repository, claims: Claims, dry_run: bool = False) -> None:
        self._repository = repository
        self._claims = claims
        self._dry_run = dry_run
        self._compress = compressor(Codec.ZSTD)
        self._buffers = PackBuffers()
        self._chunks: list[tuple[bytes, bytes]] = []  # id and bytes, of the segment under way
        self._size = 0
        self._pack: PackWriter | None = None
        self._taken: set[bytes] = set()
        self._receipts: list[Receipt] = []

    def store(self, plain: bytes) -> bytes:
        """The id of `plain` as a chunk; it is durable once a receipt says so. Raises StoreError."""
        chunk_id = self._repository.keys.chunk_id(plain)
        known = chunk_id in self._taken or self._claims.resolved(np.frombuffer(chunk_id, np.uint8).reshape(1, 32))[0]
        if not known:
            self._taken.add(chunk_id)
            self._chunks.append((chunk_id, plain))
            self._size += len(plain)
            if self._size >= SEGMENT_BYTES:
                self._end_segment()
        return chunk_id

    def receipts(self) -> list[Receipt]:
        """Receipts of packs stored since the last call."""
        done, self._receipts = self._receipts, []
        return done

    def finish(self) -> list[Receipt]:
        """Store what is left; receipts of packs stored since the last call."""
        self._end_segment()
        self._end_pack()
        return self.receipts()

    def _end_segment(self) -> None:
        if not self._chunks:
            return
        plain = b"".join([chunk for _, chunk in self._chunks])
        codec, data = Codec.ZSTD, self._compress(plain)
        if len(data) >= len(plain):
            codec, data = Codec.NONE, plain
        length = np.array([len(chunk) for _, chunk in self._chunks], np.uint32)
        ids = np.frombuffer(b"".join([chunk_id for chunk_id, _ in self._chunks]), np.uint8).reshape(-1, 32)
        offset = np.concatenate([[0], np.cumsum(length)[:-1]]).astype(np.uint32)
        if self._pack is None:
            self._pack = PackWriter(self._repository.keys, PackKind.META, PACK_BYTES, self._buffers)
        self._pack.add(Segment(codec, len(plain), data, ids, offset, length), verify_against=plain)
        self._chunks, self._size = [], 0
        if self._pack.full:
            self._end_pack()

    def _end_pack(self) -> None:
        if self._pack is None:
            return
        pack = self._pack.finish()
        self._pack = None
        if not self._dry_run:
            self._repository.store.put(pack_name(pack.pack_id), pack.parts)
        pack.release()
        self._receipts.append(pack.receipt)
