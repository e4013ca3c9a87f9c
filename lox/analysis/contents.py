"""The content a sample is drawn from: files on disk, or versions of files in a repository; read body by body."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

import kernels
from lox.analysis.copies import Copies
from lox.analysis.history import by_time
from lox.analysis.lots import Drawn, Lot
from model.batches import Listing, Piece
from model.entries import I64, U8, U32, Kind, Paths
from model.errors import UsageError
from repository.entry_table import column, content_sizes
from repository.tables.parts import Parts, Progress, silent
from repository.tables.view import View
from sources.files.read import read_range
from sources.files.scan import Scanner, ScanOptions

REGION = 64 << 20  # bytes of a large file that are drawn on their own
BODY = 8 << 20
PIECE = 1 << 20  # of neighbours whose compression is tried
ITEMS = 2048  # of one body
MET_BITS = 28
MISSED = -1


@dataclass(frozen=True, slots=True)
class Range:
    """Bytes ``[offset, offset + length)`` of the content of a file; `path` is relative to ``/``."""

    path: bytes
    offset: int
    length: int
    extents: I64 | None = None  # of a sparse file: where its data lies


@dataclass(frozen=True, slots=True)
class Version:
    """A file as a repository holds it, by its chunks."""

    path: bytes
    ids: U8
    length: U32


@dataclass(slots=True, eq=False)
class Body:
    """Content of some things of a sample, back to back: thing `items[i]` is ``data[start[i] : start[i] + length[i]]``.

    A long thing comes alone, in several bodies; all but the last are not `final`.
    """

    data: memoryview
    start: I64
    length: I64
    items: I64
    final: bool = True


@dataclass(frozen=True, slots=True)
class Run:
    """Neighbours as a backup meets them: the first `PIECE` bytes of them, for all `weight` bytes that they have."""

    things: list[Drawn[Range]]
    weight: int


def draw_files(
    lot: Lot[Range], paths: Sequence[bytes], options: ScanOptions, progress: Progress = silent,
    runs: Lot[Run] | None = None, region: int = REGION, copies: Copies | None = None,
) -> int:  # fmt: skip
    """Offer the content of all files that a backup of `paths` would read; how many files those are.

    Of longer files each `region` is offered by itself. Files of one length are drawn together; those that `copies`
    knows are left out of the lot. Of neighbours as a backup meets them some are drawn in `runs`. Raises UsageError,
    and what `progress` raises.
    """
    files = 0
    for listing in Scanner(paths, options):
        run = _RunOf(runs)
        for path, content, extents in _to_read(listing):
            files += 1
            if copies is not None and extents is None and copies.has(path, content):
                lot.left_out += content
                continue
            for at in range(0, content, region):
                thing = Range(path, at, min(region, content - at), extents)
                lot.offer(b"%d %d" % (content, at // region), thing, thing.length, copies=True)
                run.add(thing)
        run.offer()
        progress("looking for files", files, files)
    if not lot.offered:
        raise UsageError("nothing to read", subject=os.fsdecode(paths[0]), why="no file with content")
    return files


def _to_read(listing: Listing) -> Iterator[tuple[bytes, int, I64 | None]]:
    """Path, bytes of content and extents of each file of a listing that a backup would read; of the pieces of a large
    one the first speaks for all."""
    fresh, piece = listing.fresh, listing.piece
    if piece is not None and piece.index:
        return
    rows = np.flatnonzero((fresh.kinds == Kind.FILE) & ~fresh.same_as & (fresh.stat["size"] > 0))
    for row, size in zip(rows.tolist(), fresh.stat["size"][rows].tolist(), strict=True):
        extents = piece.extents if piece is not None else fresh.extents.get(row)
        yield fresh.paths[row], size if extents is None else int(extents[:, 1].sum()), extents


class _RunOf:
    """The neighbours of one listing. What follows in a long file is a run of its own, as it fills segments alone."""

    def __init__(self, runs: Lot[Run] | None) -> None:
        self._runs = runs
        self._things = list[Drawn[Range]]()
        self._held = self._weight = 0

    def add(self, thing: Range) -> None:
        """The next of the neighbours."""
        if self._runs is None:
            return
        if thing.offset:
            self.offer()
        if self._held < PIECE:
            part = replace(thing, length=min(thing.length, PIECE - self._held))
            self._things.append(Drawn(part, part.length, 0.0, len(self._things)))
            self._held += part.length
        self._weight += thing.length

    def offer(self) -> None:
        """All of them were added."""
        if self._runs is not None and self._things:
            first = self._things[0].thing
            self._runs.offer(first.path + b"\0%d" % first.offset, Run(self._things, self._weight), self._held)
        self._things, self._held, self._weight = [], 0, 0


def draw_versions(lot: Lot[Version], view: View, progress: Progress = silent, region: int = REGION) -> tuple[int, int]:
    """Offer the content of all files of all snapshots, of each path every different version once.

    How many versions those are, and the logical bytes of all snapshots together. All versions of one path are drawn
    together; of longer files each `region`. Memory: 32 MiB, that no version comes twice (should two look alike to it,
    as one in 27 does of ten million, one of them is left out). Raises NotFound, Damaged, and what `progress` raises.
    """
    versions = logical = 0
    met = np.zeros(1 << MET_BITS - 3, np.uint8)
    for part in Parts(view, by_time(view), progress=progress):
        sizes = content_sizes(part.rows)
        rows = np.flatnonzero((column(part.rows, "kind") == Kind.FILE) & (np.diff(part.lists.offsets) > 0))
        paths = part.rows["path"]
        logical += int(sizes[rows].sum()) * len(part.snapshots)
        for row in rows.tolist():
            path = paths[row].as_py()
            ids, length = part.lists.row(row)
            if _is_new(met, path, ids):
                versions += 1
                _offer_version(lot, path, ids, length, region)
    return versions, logical


def _is_new(met: U8, path: bytes, ids: U8) -> bool:
    """Whether this version was not met before; it is then."""
    digest = hashlib.blake2b(path + b"\0" + ids.tobytes(), digest_size=8).digest()
    bit = int.from_bytes(digest, "big") >> (64 - MET_BITS)
    known = bool(met[bit >> 3] >> (bit & 7) & 1)
    met[bit >> 3] |= np.uint8(1 << (bit & 7))
    return not known


def _offer_version(lot: Lot[Version], path: bytes, ids: U8, length: U32, region: int) -> None:
    ends = np.cumsum(length, dtype=np.int64)
    first = 0
    while first < len(ids):
        base = int(ends[first - 1]) if first else 0
        last = max(first + 1, int(np.searchsorted(ends, base + region, side="right")))
        thing = Version(path, ids[first:last].copy(), length[first:last].copy())
        lot.offer(path + b"\0%d" % (base // region), thing, int(ends[last - 1]) - base)
        first = last


def read_files(drawn: Sequence[Drawn[Range]]) -> Iterator[Body]:
    """The content of drawn files. What cannot be read any more is left out: its length is `MISSED`."""
    root_fd = os.open(b"/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        small: list[int] = []
        room = 0
        for number, one in enumerate(drawn):
            if one.size > BODY or one.thing.extents is not None or one.thing.offset:
                yield from _long_file(root_fd, one.thing, number)
                continue
            if small and (room + one.size > BODY or len(small) >= ITEMS):
                yield _small_files(root_fd, drawn, small)
                small, room = [], 0
            small.append(number)
            room += one.size
        if small:
            yield _small_files(root_fd, drawn, small)
    finally:
        os.close(root_fd)


def _small_files(root_fd: int, drawn: Sequence[Drawn[Range]], numbers: list[int]) -> Body:
    sizes = np.array([drawn[number].size for number in numbers], np.int64)
    data = memoryview(bytearray(int(sizes.sum())))
    paths = Paths.of([drawn[number].thing.path for number in numbers])
    stat, length = kernels.read_files(root_fd, paths, sizes, data)
    start = np.cumsum(length) - length
    missed = stat["errno"] != 0
    return Body(data, start, np.where(missed, MISSED, length), np.array(numbers, np.int64))


def _long_file(root_fd: int, thing: Range, number: int) -> Iterator[Body]:
    for at in range(thing.offset, thing.offset + thing.length, BODY):
        want = min(BODY, thing.offset + thing.length - at)
        try:
            data = read_range(root_fd, thing.path, Piece(0, 0, 1, at, want, thing.extents), at, want)
        except OSError:
            data = b""
        final = len(data) < want or at + want == thing.offset + thing.length
        length = MISSED if not data and at == thing.offset else len(data)
        yield _alone(data, length, number, final)
        if final:
            return


def versions_reader(view: View) -> Callable[[Sequence[Drawn[Version]]], Iterator[Body]]:
    """Reads drawn versions from the repository of `view`. Raises Damaged, StoreError."""

    def read(drawn: Sequence[Drawn[Version]]) -> Iterator[Body]:
        for number, one in enumerate(drawn):
            ends = np.cumsum(one.thing.length, dtype=np.int64)
            ids, done = one.thing.ids, 0
            while done < len(ids):
                base = int(ends[done - 1]) if done else 0
                last = max(done + 1, int(np.searchsorted(ends, base + BODY, side="right")))
                data = b"".join(view.fetcher.fetch([row.tobytes() for row in ids[done:last]]))
                yield _alone(data, len(data), number, last >= len(ids))
                done = last

    return read


def _alone(data: bytes, length: int, number: int, final: bool) -> Body:
    return Body(memoryview(data), np.zeros(1, np.int64), np.array([length]), np.array([number]), final)


class Clock:
    """The time a sample may take; None: as long as it takes."""

    def __init__(self, seconds: float | None) -> None:
        self._end = None if seconds is None else time.monotonic() + seconds

    @property
    def over(self) -> bool:
        """Whether it is used up."""
        return self._end is not None and time.monotonic() >= self._end
