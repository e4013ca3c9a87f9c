"""Copying chunks out of damaged packs: what still opens and verifies goes into new packs."""

from __future__ import annotations

from collections.abc import Iterator, Set

import numpy as np

from model.batches import Receipt, Segment
from model.errors import Damaged, Missing, NewerFormat
from repository.codecs import Codec, compressor
from repository.footer import PACK_MAX, check_receipt
from repository.pack import HEADER_SIZE, PackBuffers, PackKind, PackWriter, pack_name
from repository.repository import Repository

SEGMENT_BYTES = 4 << 20  # plain bytes from which a segment is sealed


def readable_chunks(repository: Repository, receipt: Receipt, wanted: Set[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """(id, bytes) of those of the `wanted` chunks that can still be had from a pack, each proved. Raises StoreError."""
    packs = repository.packs
    try:
        data = memoryview(repository.store.get(pack_name(receipt.pack_id), 0, PACK_MAX + 1))
        keys = packs.open_header(bytes(data[:HEADER_SIZE]), receipt.pack_id)
        check_receipt(receipt, pack_name(receipt.pack_id))
    except (Damaged, Missing, NewerFormat):
        return
    for ordinal in range(len(receipt.segment_offset)):
        rows = [
            row for row in np.flatnonzero(receipt.segment == ordinal).tolist() if receipt.ids[row].tobytes() in wanted
        ]
        if not rows:
            continue
        begin, stored = int(receipt.segment_offset[ordinal]), int(receipt.segment_stored[ordinal])
        codec, length = int(receipt.segment_codec[ordinal]), int(receipt.segment_plain[ordinal])
        try:
            plain = packs.open_segment(keys, ordinal, codec, length, data[begin : begin + stored])
        except (Damaged, NewerFormat):
            continue
        for row in rows:
            at, chunk_id = int(receipt.offset[row]), receipt.ids[row].tobytes()
            chunk = plain[at : at + int(receipt.length[row])]
            if repository.keys.chunk_id(chunk) == chunk_id:
                yield chunk_id, chunk


class Salvage:
    """Stores chunks in new packs of one kind. For one thread; the receipts are the caller's to index."""

    def __init__(self, repository: Repository, kind: PackKind) -> None:
        self._repository = repository
        self._kind = kind
        self._compress = compressor(Codec.ZSTD)
        self._buffers = PackBuffers()
        self._pack: PackWriter | None = None
        self._chunks: list[tuple[bytes, bytes]] = []  # id and bytes, of the segment under way
        self._size = 0
        self._taken: set[bytes] = set()
        self.receipts: list[Receipt] = []
        self.bytes = 0  # plain bytes taken

    def take(self, chunk_id: bytes, chunk: bytes) -> None:
        """Store a chunk, unless it was taken already. Raises StoreError."""
        if chunk_id in self._taken:
            return
        self._taken.add(chunk_id)
        self._chunks.append((chunk_id, chunk))
        self._size += len(chunk)
        self.bytes += len(chunk)
        if self._size >= SEGMENT_BYTES:
            self._end_segment()

    def finish(self) -> None:
        """Store what is left. Raises StoreError."""
        self._end_segment()
        self._end_pack()

    def __len__(self) -> int:
        return len(self._taken)

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
            self._pack = PackWriter(self._repository.keys, self._kind, buffers=self._buffers)
        self._pack.add(Segment(codec, len(plain), data, ids, offset, length), verify_against=plain)
        self._chunks, self._size = [], 0
        if self._pack.full:
            self._end_pack()

    def _end_pack(self) -> None:
        if self._pack is None:
            return
        pack = self._pack.finish()
        self._pack = None
        self._repository.store.put(pack_name(pack.pack_id), pack.parts)
        pack.release()
        self.receipts.append(pack.receipt)
