"""Fetching single chunks by id, as manifests are read; the content of files has the restore graph."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np

from model.entries import I64, U8
from model.errors import Damaged, Missing
from repository.index import Locations, SegmentTable
from repository.pack import HEADER_SIZE, PackKeys, pack_name
from repository.repository import Repository

OPENED_BYTES = 32 << 20  # plain bytes of segments kept; the last one always is
HEADERS_KEPT = 256
RANGE_BYTES = 8 << 20  # stored bytes fetched at once


class Lookup(Protocol):
    """Where chunks lie: `ChunkIndex`."""

    def lookup(self, ids: U8) -> Locations: ...


class ChunkFetcher:
    """Chunks by id, each proved to be what its id says. Keeps the segments opened last; thread-safe."""

    def __init__(self, repository: Repository, index: Lookup) -> None:
        self._repository = repository
        self._index = index
        self._lock = threading.Lock()
        self._opened: OrderedDict[int, bytes] = OrderedDict()  # by row of the index's segments
        self._opened_bytes = 0
        self._headers: dict[bytes, PackKeys] = {}

    def fetch(self, ids: Sequence[bytes]) -> list[bytes]:
        """The chunks, in the order of their ids. Raises Damaged for one that is missing or not what it should be."""
        if not ids:
            return []
        where = self._index.lookup(np.frombuffer(b"".join(ids), np.uint8).reshape(-1, 32))
        for chunk_id, found in zip(ids, where.found.tolist(), strict=True):
            if not found:
                raise Damaged("a chunk is in no index", subject=chunk_id.hex(), hint="lox check lists what it concerns")
        chunks: list[bytes] = [b""] * len(ids)
        with self._lock:
            for segment, plain in self._segments(where):
                for row in np.flatnonzero(where.segment == segment).tolist():
                    begin = int(where.offset[row])
                    chunks[row] = self._proved(ids[row], plain[begin : begin + int(where.length[row])])
        return chunks

    def _proved(self, chunk_id: bytes, chunk: bytes) -> bytes:
        if self._repository.keys.chunk_id(chunk) != chunk_id:
            raise Damaged("a chunk is not what its id says", subject=chunk_id.hex())
        return chunk

    def _segments(self, where: Locations) -> Iterator[tuple[int, bytes]]:
        """Each segment that is needed, opened once; neighbours are fetched in one range."""
        needed: I64 = np.unique(where.segment)
        for segment in needed.tolist():
            if segment in self._opened:
                self._opened.move_to_end(segment)
        wanted = np.array([segment for segment in needed.tolist() if segment not in self._opened], np.int64)
        for segment in needed.tolist():
            if segment in self._opened:
                yield segment, self._opened[segment]
        for start, end in neighbours(where.segments.take(wanted)):
            for segment, plain in self._open(where, wanted[start:end]):
                self._keep(segment, plain)
                yield segment, plain

    def _open(self, where: Locations, rows: I64) -> Iterator[tuple[int, bytes]]:
        table = where.segments.take(rows)
        pack_id = where.packs[int(table.pack[0])]
        name, begin = pack_name(pack_id), int(table.offset[0])
        try:
            keys = self._header(pack_id)
            data = memoryview(
                self._repository.store.get(name, begin, int(table.offset[-1]) + int(table.stored[-1]) - begin)
            )
        except Missing as error:
            raise Damaged("a pack is missing", subject=name) from error
        for number, segment in enumerate(rows.tolist()):
            at, stored = int(table.offset[number]) - begin, int(table.stored[number])
            sealed = data[at : at + stored]
            if len(sealed) != stored:
                raise keys.damaged(int(table.ordinal[number]), "the pack is cut off")
            ordinal, codec, plain = int(table.ordinal[number]), int(table.codec[number]), int(table.plain[number])
            yield segment, self._repository.packs.open_segment(keys, ordinal, codec, plain, sealed)

    def _header(self, pack_id: bytes) -> PackKeys:
        if pack_id not in self._headers:
            if len(self._headers) >= HEADERS_KEPT:
                self._headers.clear()
            header = self._repository.store.get(pack_name(pack_id), 0, HEADER_SIZE)
            self._headers[pack_id] = self._repository.packs.open_header(header, pack_id)
        return self._headers[pack_id]

    def _keep(self, segment: int, plain: bytes) -> None:
        self._opened[segment] = plain
        self._opened_bytes += len(plain)
        while self._opened_bytes > OPENED_BYTES and len(self._opened) > 1:
            self._opened_bytes -= len(self._opened.popitem(last=False)[1])


def neighbours(table: SegmentTable) -> Iterator[tuple[int, int]]:
    """Ranges of rows of `table` that lie side by side in one pack, up to `RANGE_BYTES`."""
    start = 0
    for at in range(1, len(table) + 1):
        if (
            at == len(table)
            or table.pack[at] != table.pack[start]
            or int(table.offset[at]) != int(table.offset[at - 1]) + int(table.stored[at - 1])
            or int(table.offset[at]) + int(table.stored[at]) - int(table.offset[start]) > RANGE_BYTES
        ):
            yield start, at
            start = at
