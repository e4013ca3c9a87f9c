"""Fetching single chunks by id, as manifests are read; the content of files has the restore graph."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np

from model.entries import I64, U8
from model.errors import Damaged, Missing
from repository.index import Locations, SegmentTable
from repository.pack import HEADER_SIZE, PackKeys, pack_name
from repository.repository import Repository

T = TypeVar("T")
Opener = Callable[[PackKeys, int, int, int, memoryview], T]
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
            place = SealedSegment(pack_id, *(int(column[number]) for column in _columns(table)))
            yield segment, open_segment(self._repository, keys, place, data[at : at + stored])

    def _header(self, pack_id: bytes) -> PackKeys:
        if pack_id not in self._headers:
            if len(self._headers) >= HEADERS_KEPT:
                self._headers.clear()
            self._headers[pack_id] = open_header(self._repository, pack_id)
        return self._headers[pack_id]

    def _keep(self, segment: int, plain: bytes) -> None:
        self._opened[segment] = plain
        self._opened_bytes += len(plain)
        while self._opened_bytes > OPENED_BYTES and len(self._opened) > 1:
            self._opened_bytes -= len(self._opened.popitem(last=False)[1])


@dataclass(frozen=True, slots=True)
class SealedSegment:
    """Where a segment lies, and what it opens to."""

    pack_id: bytes
    ordinal: int
    offset: int
    stored: int
    plain: int
    codec: int


def _columns(table: SegmentTable) -> tuple[np.ndarray, ...]:
    return table.ordinal, table.offset, table.stored, table.plain, table.codec


def open_header(repository: Repository, pack_id: bytes) -> PackKeys:
    """The keys of a pack; read again if its header does not open. Raises Missing, StoreError, Damaged, NewerFormat."""
    name = pack_name(pack_id)

    def attempt() -> PackKeys:
        return repository.packs.open_header(repository.store.get(name, 0, HEADER_SIZE), pack_id)

    return repository.rereads.read(name, attempt)


def open_segment(repository: Repository, keys: PackKeys, place: SealedSegment, sealed: memoryview) -> bytes:
    """The plain bytes of a segment that was fetched as `sealed`; fetched again if that does not open.

    Raises StoreError, Damaged, NewerFormat.
    """
    return _opened(repository, keys, place, sealed, repository.packs.open_segment)


def open_packed(repository: Repository, keys: PackKeys, place: SealedSegment, sealed: memoryview) -> memoryview:
    """As `open_segment`, as compressed as it is, and good until the next call in this thread."""
    return _opened(repository, keys, place, sealed, repository.packs.open_packed)


def _opened(repository: Repository, keys: PackKeys, place: SealedSegment, sealed: memoryview, opener: Opener[T]) -> T:
    name, fetched = pack_name(place.pack_id), [sealed]

    def attempt() -> T:
        data = fetched.pop() if fetched else memoryview(repository.store.get(name, place.offset, place.stored))
        if len(data) != place.stored:
            raise keys.damaged(place.ordinal, "the pack is cut off")
        return opener(keys, place.ordinal, place.codec, place.plain, data)

    return repository.rereads.read(name, attempt)


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
