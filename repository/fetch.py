"""Fetching single chunks by id, as manifests are read; the content of files has the restore graph."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar, runtime_checkable

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
MISSING = "a pack is missing"


class Lookup(Protocol):
    """Where chunks lie: `ChunkIndex`."""

    def lookup(self, ids: U8) -> Locations: ...


@runtime_checkable
class Copies(Lookup, Protocol):
    """An index for readers, which do with any copy: `ReadingIndex`. Who is to decide which copy stays has none."""

    def elsewhere(self, ids: U8, failed: I64) -> Locations: ...
    def spoiled(self) -> dict[bytes, str]: ...


class ChunkFetcher:
    """Chunks by id, each proved to be what its id says. Keeps the segments opened last; thread-safe.

    With an index that knows of `Copies` what cannot be had from one pack is had from another, if there is one; the
    damaged pack is noted with the `rereads` of the repository.
    """

    def __init__(self, repository: Repository, index: Lookup) -> None:
        self._repository = repository
        self._index = index
        self._copies = index if isinstance(index, Copies) else None
        self._failed: dict[int, Damaged] = {}  # by row of segments that did not open
        self._lock = threading.Lock()
        self._opened: OrderedDict[int, bytes] = OrderedDict()  # by row of the index's segments
        self._opened_bytes = 0
        self._headers: dict[bytes, PackKeys] = {}

    def fetch(self, ids: Sequence[bytes]) -> list[bytes]:
        """The chunks, in the order of their ids. Raises Damaged for one that is missing or not what it should be."""
        if not ids:
            return []
        with self._lock:
            chunks, why = self._gather(ids)
        if why is not None:
            raise why
        return [chunks[chunk_id] for chunk_id in ids]

    def fetch_others(self, ids: Sequence[bytes], pack_id: bytes, ordinals: Sequence[int]) -> dict[bytes, bytes]:
        """Those of the chunks that can be had, though in these segments of a pack they cannot."""
        with self._lock:
            where = self._lookup(list(ids), ())
            packs = [row for row, pack in enumerate(where.packs) if pack == pack_id]  # two index objects may list it
            bad = np.isin(where.segments.pack, packs) & np.isin(where.segments.ordinal, ordinals)
            return self._gather(ids, np.flatnonzero(bad).tolist())[0]

    def _gather(self, ids: Sequence[bytes], avoid: Sequence[int] = ()) -> tuple[dict[bytes, bytes], Damaged | None]:
        """Chunks, from wherever they can be had but the segments to `avoid`; and why some cannot."""
        chunks: dict[bytes, bytes] = {}
        wrong: dict[int, Damaged] = {}  # by row of segments in which something was looked for in vain
        lost: Damaged | None = None
        rest = list(dict.fromkeys(ids))
        while rest:
            where = self._lookup(rest, (*avoid, *wrong))
            if not where.found.all():
                lost = lost or self._why_lost(rest[int(np.argmin(where.found))], wrong)
                rest = [rest[row] for row in np.flatnonzero(where.found).tolist()] if self._copies else []
                continue
            wrong |= self._take(rest, where, chunks)
            rest = [chunk_id for chunk_id in rest if chunk_id not in chunks]
        if lost is None and wrong:
            self._tell({where.packs[int(where.segments.pack[segment])]: error for segment, error in wrong.items()})
        return chunks, lost

    def _lookup(self, ids: list[bytes], avoid: Sequence[int]) -> Locations:
        if self._copies is None or not (avoid or self._failed):
            return self._index.lookup(_rows(ids))
        return self._copies.elsewhere(_rows(ids), np.array(sorted({*avoid, *self._failed}), np.int64))

    def _why_lost(self, chunk_id: bytes, wrong: dict[int, Damaged]) -> Damaged:
        unknown = Damaged("a chunk is in no index", subject=chunk_id.hex(), hint="lox check lists what it concerns")
        if self._copies is None:
            return unknown
        segment = int(self._index.lookup(_rows([chunk_id])).segment[0])
        return wrong.get(segment) or self._failed.get(segment) or unknown

    def _tell(self, wrong: dict[bytes, Damaged]) -> None:
        """Packs that were of no use, but for those that a prune took away since the index was loaded."""
        assert self._copies is not None, "without there is nowhere else to look"
        gone = self._copies.spoiled() if any(error.what == MISSING for error in wrong.values()) else {}
        for pack, error in wrong.items():
            if error.what != MISSING or pack in gone:
                self._repository.rereads.spared(pack_name(pack), str(error))

    def _take(self, ids: list[bytes], where: Locations, chunks: dict[bytes, bytes]) -> dict[int, Damaged]:
        """What can be had where `where` says; by segment, why something cannot: raised if there are no other copies."""
        wrong: dict[int, Damaged] = {}
        for segment, plain in self._segments(where):
            if isinstance(plain, Damaged):
                wrong[segment] = plain
                if self._copies is not None:
                    plain.__cause__ = plain.__context__ = plain.__traceback__ = None  # they hold what was read
                    self._failed[segment] = plain
            else:
                for row in np.flatnonzero(where.segment == segment).tolist():
                    begin = int(where.offset[row])
                    chunk = plain[begin : begin + int(where.length[row])]
                    if self._repository.keys.chunk_id(chunk) == ids[row]:
                        chunks[ids[row]] = chunk
                    else:
                        wrong[segment] = Damaged("a chunk is not what its id says", subject=ids[row].hex())
            if segment in wrong and self._copies is None:
                raise wrong[segment]
        return wrong

    def _segments(self, where: Locations) -> Iterator[tuple[int, bytes | Damaged]]:
        """Each segment that is needed, opened once, or why it does not open; neighbours are fetched in one range."""
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
                if not isinstance(plain, Damaged):
                    self._keep(segment, plain)
                yield segment, plain

    def _open(self, where: Locations, rows: I64) -> Iterator[tuple[int, bytes | Damaged]]:
        table = where.segments.take(rows)
        pack_id = where.packs[int(table.pack[0])]
        name, begin = pack_name(pack_id), int(table.offset[0])
        try:
            keys = self._header(pack_id)
            data = memoryview(
                self._repository.store.get(name, begin, int(table.offset[-1]) + int(table.stored[-1]) - begin)
            )
        except Missing:
            yield from ((segment, Damaged(MISSING, subject=name)) for segment in rows.tolist())
            return
        except Damaged as error:
            yield from ((segment, error) for segment in rows.tolist())
            return
        for number, segment in enumerate(rows.tolist()):
            at, stored = int(table.offset[number]) - begin, int(table.stored[number])
            place = SealedSegment(pack_id, *(int(column[number]) for column in _columns(table)))
            try:
                yield segment, open_segment(self._repository, keys, place, data[at : at + stored])
            except Damaged as error:
                yield segment, error

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


def _rows(ids: list[bytes]) -> U8:
    return np.frombuffer(b"".join(ids), np.uint8).reshape(-1, 32)


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
