"""Storing chunks that are at hand as bytes: solid segments into packs, read back, one after the other."""

from __future__ import annotations

import numpy as np

from model.batches import Receipt, Segment
from repository.codecs import Codec, compressor
from repository.pack import PACK_TARGET, PackBuffers, PackKind, PackWriter, pack_name
from repository.repository import Repository

SEGMENT_BYTES = 4 << 20  # plain bytes from which a segment is sealed


class ChunkWriter:
    """Packs of one kind, filled chunk by chunk. For one thread; the receipts are the caller's to report and to index.

    `pack_bytes` is the size from which a pack is stored. In a dry run all is done but storing.
    """

    def __init__(
        self, repository: Repository, kind: PackKind, pack_bytes: int = PACK_TARGET, dry_run: bool = False
    ) -> None:
        self._repository = repository
        self._kind = kind
        self._pack_bytes = pack_bytes
        self._dry_run = dry_run
        self._compress = compressor(Codec.ZSTD)
        self._buffers = PackBuffers()
        self._pack: PackWriter | None = None
        self._chunks: list[tuple[bytes, bytes]] = []  # id and bytes, of the segment under way
        self._size = 0
        self._raw = True  # nothing of the segment under way is worth compressing
        self._taken: set[bytes] = set()
        self._receipts: list[Receipt] = []

    def __contains__(self, chunk_id: object) -> bool:
        return chunk_id in self._taken

    def take(self, chunk_id: bytes, plain: bytes) -> bool:
        """Store a chunk; False if it was taken before. It is durable once a receipt says so. Raises StoreError."""
        if chunk_id in self._taken:
            return False
        self._taken.add(chunk_id)
        self.put(chunk_id, plain)
        return True

    def put(self, chunk_id: bytes, plain: bytes, raw: bool = False) -> None:
        """As `take`, of a chunk that is certainly new: it is not remembered. `raw`: it was not worth compressing."""
        self._chunks.append((chunk_id, plain))
        self._size += len(plain)
        self._raw &= raw
        if self._size >= SEGMENT_BYTES:
            self._end_segment()

    def take_segment(self, segment: Segment) -> None:
        """Store a segment that comes compressed, with all it holds. Raises StoreError."""
        self._add(segment, memoryview(segment.data), as_packed=True)

    def receipts(self) -> list[Receipt]:
        """Receipts of packs stored since the last call."""
        done, self._receipts = self._receipts, []
        return done

    def finish(self) -> list[Receipt]:
        """Store what is left; receipts of packs stored since the last call. Raises StoreError."""
        self._end_segment()
        self._end_pack()
        return self.receipts()

    def _end_segment(self) -> None:
        if not self._chunks:
            return
        plain = b"".join([chunk for _, chunk in self._chunks])
        codec, data = (Codec.NONE, plain) if self._raw else (Codec.ZSTD, self._compress(plain))
        if len(data) >= len(plain):
            codec, data = Codec.NONE, plain
        length = np.array([len(chunk) for _, chunk in self._chunks], np.uint32)
        ids = np.frombuffer(b"".join([chunk_id for chunk_id, _ in self._chunks]), np.uint8).reshape(-1, 32)
        offset = np.concatenate([[0], np.cumsum(length)[:-1]]).astype(np.uint32)
        self._chunks, self._size, self._raw = [], 0, True
        self._add(Segment(codec, len(plain), data, ids, offset, length), memoryview(plain), as_packed=False)

    def _add(self, segment: Segment, expected: memoryview, as_packed: bool) -> None:
        if self._pack is None:
            self._pack = PackWriter(self._repository.keys, self._kind, self._pack_bytes, self._buffers)
        self._pack.add(segment, expected, as_packed=as_packed)
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
