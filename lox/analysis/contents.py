"""The content a sample is drawn from: files on disk, or versions of files in a repository; read body by body."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

import kernels
from lox.analysis.history import by_time
from lox.analysis.lots import Drawn, Lot
from model.batches import Piece
from model.entries import I64, U8, U32, Kind, Paths
from model.errors import UsageError
from repository.entry_table import column, content_sizes
from repository.tables.parts import Parts, Progress, silent
from repository.tables.view import View
from sources.files.read import read_range
from sources.files.scan import Scanner, ScanOptions

REGION = 64 << 20  # bytes of a large file that are drawn on their own
BODY = 8 << 20
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


def draw_files(
    lot: Lot[Range], paths: Sequence[bytes], options: ScanOptions, progress: Progress = silent,
    runs: Lot[list[Drawn[Range]]] | None = None, region: int = REGION,
) -> int:  # fmt: skip
    """Offer the content of all files that a backup of `paths` would read; how many files those are.

    Of longer files each `region` is offered by itself. Files of one length are drawn together. Of neighbours as a
    backup meets them, up to `BODY` bytes at a time, some are drawn in `runs`. Raises UsageError, and what `progress`
    raises.
    """
    files = 0
    for listing in Scanner(paths, options):
        fresh = listing.fresh
        if listing.piece is not None and listing.piece.index:
            continue
        to_read = np.flatnonzero((fresh.kinds == Kind.FILE) & ~fresh.same_as & (fresh.stat["size"] > 0))
        files += len(to_read)
        progress("looking for files", files, files)
        run: list[Drawn[Range]] = []
        for row, size in zip(to_read.tolist(), fresh.stat["size"][to_read].tolist(), strict=True):
            extents = listing.piece.extents if listing.piece is not None else fresh.extents.get(row)
            content = size if extents is None else int(extents[:, 1].sum())
            for at in range(0, content, region):
                length = min(region, content - at)
                cluster = b"%d %d" % (content, at // region)
                lot.offer(cluster, Range(fresh.paths[row], at, length, extents), length, copies=True)
            first = Range(fresh.paths[row], 0, min(content, BODY), extents)
            run.append(Drawn(first, first.length, 0.0, row))
        if runs is not None and run:
            runs.offer(b"%d" % files, run, sum(one.size for one in run))
    if not lot.offered:
        raise UsageError("nothing to read", subject=os.fsdecode(paths[0]), why="no file with content")
    return files


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
