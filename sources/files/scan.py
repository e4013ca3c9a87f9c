"""scan: which entries there are, and which of them must be read.

A tree is walked ahead by threads, compared with the parent snapshot as a column of rows, and cut into listings. No
regular file is opened, but for the extents of large files that are new or changed, and for the tag of directories when
caches are excluded.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

import kernels
from model.batches import BODY_MAX, ROWS_MAX, Listing
from model.entries import I32, U32, Kind, Paths, Stats, kinds_of
from model.errors import LoxError, UsageError
from sources.files import columns
from sources.files.ahead import stretches
from sources.files.listings import Batch, Lister, read_cost
from sources.files.mounts import pseudo_devices
from sources.files.parent import Matches, Parent, ParentCursor
from sources.files.patterns import Patterns
from sources.files.trouble import describe
from sources.files.walk import Rules, Stretch, Walker


@dataclass(frozen=True, slots=True)
class ScanOptions:
    """What to leave out. Patterns are those of docs/patterns.md."""

    excludes: tuple[bytes, ...] = ()
    includes: tuple[bytes, ...] = ()
    exclude_caches: bool = False
    one_file_system: bool = False
    exclude_larger_than: int | None = None  # bytes; regular files longer than this
    batch_rows: int = ROWS_MAX  # entries in a listing at most
    batch_bytes: int = BODY_MAX  # bytes of files in a listing at most; a longer file is alone in one
    threads: int = 2  # that look at directories ahead; more where each look takes long, 0: only the caller's


@dataclass(slots=True)
class ScanStats:
    """What the scan has found so far. `files` is everything but directories; bytes are sizes of regular files."""

    directories: int = 0
    files: int = 0
    files_new: int = 0
    files_changed: int = 0
    files_unchanged: int = 0
    bytes_total: int = 0
    bytes_to_read: int = 0  # of new and changed files; each hard-linked file once
    excluded: int = 0  # names left out, not what lies below them
    gone: int = 0  # rows of the parent that are no more
    finished: bool = False
    parent_trouble: LoxError | None = None  # why not all of the parent could be compared; the rest was listed as fresh
    problems: list[tuple[bytes, str]] = field(default_factory=list)  # directories that could not be listed


class Scanner:
    """One scan. Iterate it once; `stats` tells how far it is."""

    def __init__(
        self,
        roots: Sequence[bytes],
        options: ScanOptions | None = None,
        parent: Parent | None = None,
        root: bytes = b"/",
    ) -> None:
        """Scan the absolute paths `roots`, seen from the directory `root`. Symbolic links are never followed.

        UsageError if a pattern is wrong, a root is not absolute, or none of the roots exists.
        """
        self._options = options or ScanOptions()
        self._parent = parent
        self._root = root
        self._roots = sorted({_relative(path) for path in roots})
        if not self._roots:
            raise UsageError("nothing to scan", hint="name at least one path")
        self._patterns = Patterns.compile(self._options.excludes, self._options.includes, self._roots)
        self._devices: dict[int, int] = {}
        self.stats = ScanStats()

    def __iter__(self) -> Iterator[Listing]:
        root_fd = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            rules = self._rules(self._present(root_fd))
            cursor = ParentCursor(self._parent) if self._parent is not None else None
            lister = Lister(root_fd, self._options.batch_bytes)
            walk = stretches(Walker(root_fd, rules), self._options.threads)
            for paths, stat, borders in _of_good_length(self._counted(walk), self._options.batch_rows):
                yield from self._listed(paths, stat, borders, cursor, lister)
            if cursor is not None:
                self.stats.gone += cursor.left()
                self.stats.parent_trouble = cursor.trouble
            self.stats.finished = True
        finally:
            os.close(root_fd)

    def _listed(
        self, paths: Paths, stat: Stats, borders: I32, cursor: ParentCursor | None, lister: Lister
    ) -> Iterator[Listing]:
        """Compare some rows with the parent and list them."""
        device = self._ordinals(stat)
        nothing = Matches(None, np.zeros(0, dtype=np.int32), np.zeros(len(stat), dtype=np.bool_), 0)
        matches = nothing if cursor is None else cursor.match(paths, stat)
        carried = matches.carried
        if carried is not None:
            mine = device[matches.carried_at]
            if (carried["device"].to_numpy() != mine).any():
                column = carried.schema.get_field_index("device")
                carried = carried.set_column(column, carried.schema.field(column), [mine])
        self._count(stat, matches)
        for listing in lister.listings(Batch(paths, stat, device, borders, carried, matches.carried_at, matches.known)):
            piece = listing.piece
            self.stats.bytes_to_read += piece.length if piece is not None else int(read_cost(listing.fresh).sum())
            yield listing

    def _ordinals(self, stat: Stats) -> U32:
        """Small numbers for devices, in the order in which the scan meets them."""
        dev = np.ascontiguousarray(stat["dev"])
        first = int(dev[0])
        if (dev == first).all():
            return np.full(len(dev), self._devices.setdefault(first, len(self._devices)), dtype=np.uint32)
        distinct, at, which = np.unique(dev, return_index=True, return_inverse=True)
        for place in np.argsort(at).tolist():
            self._devices.setdefault(int(distinct[place]), len(self._devices))
        ordinals = np.array([self._devices[one] for one in distinct.tolist()], dtype=np.uint32)
        return ordinals[which]

    def _count(self, stat: Stats, matches: Matches) -> None:
        stats = self.stats
        kinds = kinds_of(stat["mode"])
        is_file = kinds != Kind.DIRECTORY
        files = int(np.count_nonzero(is_file))
        known = int(np.count_nonzero(is_file & matches.known))
        unchanged = int(np.count_nonzero(is_file[matches.carried_at]))
        stats.files += files
        stats.directories += len(stat) - files
        stats.files_new += files - known
        stats.files_changed += known - unchanged
        stats.files_unchanged += unchanged
        stats.bytes_total += int(stat["size"].sum(where=kinds == Kind.FILE))
        stats.gone += matches.gone

    def _counted(self, walk: Iterator[Stretch]) -> Iterator[Stretch]:
        for stretch in walk:
            self.stats.excluded += stretch.excluded
            self.stats.problems += [(path, describe(number)) for path, number in stretch.failed]
            yield stretch

    def _present(self, root_fd: int) -> list[bytes]:
        """The roots that exist; the others are reported."""
        rows = kernels.stat_paths(root_fd, Paths.of(self._roots))
        present = []
        for path, number in zip(self._roots, rows["errno"].tolist(), strict=True):
            if number:
                why = "no such file or directory" if number == errno.ENOENT else describe(number)
                self.stats.problems.append((path, why))
            else:
                present.append(path)
        if not present:
            path, why = self.stats.problems[0]
            raise UsageError("nothing to back up", subject="/" + path.decode("utf-8", "backslashreplace"), why=why)
        return present

    def _rules(self, roots: list[bytes]) -> Rules:
        options = self._options
        return Rules(
            frozenset(roots),
            _ways(roots),
            self._patterns,
            pseudo_devices(),
            options.exclude_caches,
            options.one_file_system,
            options.exclude_larger_than,
        )


def _of_good_length(walk: Iterator[Stretch], most: int) -> Iterator[tuple[Paths, Stats, I32]]:
    """Rows, their stat and borders, `most` at a time."""
    held: list[tuple[Paths, Stats, I32]] = []
    rows = 0
    for stretch in walk:
        held.append((stretch.paths, stretch.stat, stretch.borders))
        rows += len(stretch.stat)
        if rows < most:
            continue
        paths, stat, borders = _joined(held)
        for begin in range(0, rows - most + 1, most):
            yield _part(paths, stat, borders, begin, begin + most)
        begin = rows - rows % most
        held, rows = [_part(paths, stat, borders, begin, rows)], rows - begin
    if rows:
        yield _joined(held)


def _joined(held: list[tuple[Paths, Stats, I32]]) -> tuple[Paths, Stats, I32]:
    paths, stat = Paths.concat([one for one, _, _ in held]), columns.concat_stats([one for _, one, _ in held])
    firsts = np.cumsum([0, *(len(one) for _, one, _ in held)])
    borders = [one + np.int32(first) for (_, _, one), first in zip(held, firsts.tolist(), strict=False)]
    return paths, stat, np.concatenate(borders)


def _part(paths: Paths, stat: Stats, borders: I32, begin: int, end: int) -> tuple[Paths, Stats, I32]:
    inside = borders[(borders >= begin) & (borders < end)] - np.int32(begin)
    return paths.slice(begin, end), stat[begin:end], inside


def _ways(roots: list[bytes]) -> dict[bytes, list[bytes]]:
    """Every directory above a root, and the names in it that lead to roots, sorted."""
    ways: dict[bytes, set[bytes]] = {}
    for root in roots:
        path = root
        while path:
            directory, _, name = path.rpartition(b"/")
            ways.setdefault(directory, set()).add(name)
            path = directory
    return {directory: sorted(names) for directory, names in ways.items()}


def _relative(path: bytes) -> bytes:
    if not path.startswith(b"/"):
        raise UsageError("a path to back up must be absolute", subject=path.decode("utf-8", "backslashreplace"))
    parts = [part for part in path.split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise UsageError("a path to back up must not hold ..", subject=path.decode("utf-8", "backslashreplace"))
    return b"/".join(parts)


__all__ = ["Parent", "ScanOptions", "ScanStats", "Scanner"]
