"""Walking a tree in manifest order, a bounded stretch at a time.

Manifest order is a depth-first walk: all entries of a directory, then each of its subdirectories with all below it.
So the walk is a stack of `Frame`, and any stack can be split into an earlier and a later half that different threads
walk at the same time; ``sources.files.ahead`` puts the stretches back in order.

Python is spent per directory, never per entry: names and lstat rows come as columns from one kernel call.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from zlib import crc32

import numpy as np

import kernels
from model.batches import ROWS_MAX
from model.entries import I32, I64, STAT, Bool, Paths, Stats
from sources.files import columns
from sources.files.patterns import Patterns

STRETCH_SECONDS = 0.05  # a stretch ends after this, so that slow file systems are soon shared among threads
STRETCH_DIRECTORIES = 1024
BORDER = 32  # one directory in so many may begin a manifest part
CACHE_TAG = b"CACHEDIR.TAG"
CACHE_SIGNATURE = b"Signature: 8a477f597d28d172789f06886806bc55"

_FORMAT, _IS_DIRECTORY, _IS_REGULAR = np.uint32(0o170000), np.uint32(stat.S_IFDIR), np.uint32(stat.S_IFREG)


@dataclass(slots=True, eq=False)
class Frame:
    """Subdirectories of one directory that are still to be walked: ``names[at:]``.

    Those in `passing` are left out themselves (or lie above every root) but lead to a root: of what they hold only
    that way is taken.
    """

    path: bytes
    names: list[bytes]
    keys: list[int]  # device and inode number of each in one integer
    root_device: int  # device of the backup root above
    chain: frozenset[int]  # keys of `path` and the directories above it
    passing: frozenset[bytes] = frozenset()
    at: int = 0


@dataclass(slots=True, eq=False)
class Slices:
    """A directory of more than `ROWS_MAX` names, of which those from `at` are still to be looked at."""

    path: bytes
    names: Paths
    at: int
    below: Frame  # its subdirectories so far


Stack = list[Frame | Slices]  # the last is walked first


@dataclass(slots=True, eq=False)
class Stretch:
    """Neighbouring rows of the walk, complete but for what happened to them since, and what is left to walk after."""

    paths: Paths
    stat: Stats
    borders: I32  # rows with which a directory begins whose hash says that a manifest part may begin there
    rest: Stack
    excluded: int = 0
    failed: list[tuple[bytes, int]] = field(default_factory=list)  # directories that could not be listed, errno


@dataclass(frozen=True, slots=True, eq=False)
class Rules:
    """What the walk takes. Paths are relative to ``/``."""

    roots: frozenset[bytes]
    ways: dict[bytes, list[bytes]]  # directories on the way to roots → names in them that lead there, sorted
    patterns: Patterns
    pseudo: frozenset[int]
    exclude_caches: bool = False
    one_file_system: bool = False
    exclude_larger_than: int | None = None


class Walker:
    """Walks stretches below `root_fd`. Shared by threads: it keeps no state between calls."""

    def __init__(self, root_fd: int, rules: Rules, clock: Callable[[], float] = time.monotonic) -> None:
        self._root_fd = root_fd
        self._rules = rules
        self._selective = not rules.patterns.keep_everything or rules.exclude_larger_than is not None
        self._clock = clock

    def start(self) -> Stack:
        """The stack of the whole walk."""
        status = os.fstat(self._root_fd)
        key = _key(status.st_dev, status.st_ino)
        return [Frame(b"", [b""], [key], status.st_dev, frozenset(), passing=frozenset([b""]))]

    def walk(self, stack: Stack) -> Stretch:
        """Walk on until there are about `ROWS_MAX` rows. The stack is consumed."""
        found = _Found()
        end = self._clock() + STRETCH_SECONDS
        while stack and found.rows < ROWS_MAX and found.directories < STRETCH_DIRECTORIES:
            top = stack[-1]
            if isinstance(top, Slices):
                self._slice(top, stack, found)
            elif top.at == len(top.names):
                stack.pop()
            else:
                if found.directories and self._clock() > end:
                    break
                self._directory(top, stack, found)
        return found.stretch(stack)

    def _directory(self, frame: Frame, stack: Stack, found: _Found) -> None:
        """Take the next directory of `frame`."""
        name, key = frame.names[frame.at], frame.keys[frame.at]
        frame.at += 1
        found.directories += 1
        path = frame.path + b"/" + name if frame.path else name
        is_root = path in self._rules.roots
        root_device = _device(key) if is_root else frame.root_device
        below = Frame(path, [], [], root_device, frame.chain | {key})
        try:
            names, rows = self._listed(path, below, not is_root and name in frame.passing, found)
        except OSError as error:
            found.failed.append((path, error.errno or errno.EIO))
            return
        large = len(names) > len(rows)
        self._take(names.slice(0, len(rows)) if large else names, rows, below, found, first=True)
        if large:
            stack.append(Slices(path, names, len(rows), below))
        elif below.names:
            stack.append(below)

    def _slice(self, top: Slices, stack: Stack, found: _Found) -> None:
        """Look at the next names of a large directory; its subdirectories come after the last of them."""
        end = min(top.at + ROWS_MAX, len(top.names))
        names = top.names.slice(top.at, end)
        try:
            rows = self._stat(top.path, names)
        except OSError as error:
            found.failed.append((top.path, error.errno or errno.EIO))
            end = len(top.names)
        else:
            self._take(names, rows, top.below, found, first=False)
        top.at = end
        if end == len(top.names):
            stack.pop()
            if top.below.names:
                stack.append(top.below)

    def _listed(self, path: bytes, below: Frame, passing: bool, found: _Found) -> tuple[Paths, Stats]:
        """Names of a directory in order and the lstat of the first `ROWS_MAX`. OSError if it cannot be read."""
        way = self._rules.ways.get(path, [])
        if not passing:
            names, rows = kernels.scan_directory(self._root_fd, path, ROWS_MAX)
            if not (self._rules.exclude_caches and CACHE_TAG in names.blob and self._is_cache(path)):
                return names, rows
            found.excluded += len(names) - 1
            way = sorted({CACHE_TAG, *way})
        below.passing = frozenset(way)
        names = Paths.of(way)
        return names, self._stat(path, names)

    def _stat(self, path: bytes, names: Paths) -> Stats:
        fd = kernels.open_beneath(self._root_fd, path, os.O_PATH | os.O_DIRECTORY)
        try:
            return kernels.stat_names(fd, names, 0, len(names))
        finally:
            os.close(fd)

    def _take(self, names: Paths, rows: Stats, below: Frame, found: _Found, first: bool) -> None:
        """Add rows of one directory, without those left out, and its subdirectories to `below`."""
        is_directory = (rows["mode"] & _FORMAT) == _IS_DIRECTORY
        if self._selective:
            kept = self._kept(names, rows, is_directory, below)
            if not kept.all():
                chosen = np.flatnonzero(kept)
                found.excluded += len(kept) - len(chosen)
                names, rows, is_directory = columns.take(names, chosen), rows[chosen], is_directory[chosen]
        found.add(below.path, names, rows, first)
        which = is_directory.nonzero()[0]  # flatnonzero takes twice the time
        if len(which):
            self._descend(names, rows, which, below)

    def _kept(self, names: Paths, rows: Stats, is_directory: Bool, below: Frame) -> Bool:
        """Which rows are not excluded. What is but leads to a root stays, to be passed through."""
        rules = self._rules
        kept = np.ones(len(names), dtype=np.bool_)
        if rules.exclude_larger_than is not None:
            kept &= (rows["size"] <= rules.exclude_larger_than) | ((rows["mode"] & _FORMAT) != _IS_REGULAR)
        if not rules.patterns.keep_everything:
            kept &= rules.patterns.kept(below.path, names, is_directory)
        way = rules.ways.get(below.path)
        if way is not None:
            leading = np.fromiter((name in way for name in names), dtype=np.bool_, count=len(names))
            below.passing |= {names[row] for row in np.flatnonzero(leading & ~kept).tolist()}
            kept |= leading
        return kept

    def _descend(self, names: Paths, rows: Stats, which: I64, below: Frame) -> None:
        """Add the directories among the rows to `below`, but for mount points and loops that are not to be entered."""
        starts, ends = names.offsets[which].tolist(), names.offsets[which + 1].tolist()
        found = [names.blob[start:end] for start, end in zip(starts, ends, strict=True)]
        keys = [_key(*pair) for pair in zip(rows["dev"][which].tolist(), rows["ino"][which].tolist(), strict=True)]
        devices = rows["dev"][which]
        if (devices != below.root_device).any() or not below.chain.isdisjoint(keys):
            way = self._rules.ways.get(below.path, [])
            barred = {name for name, key in zip(found, keys, strict=True) if not self._enters(key, below)}
            below.passing |= barred.intersection(way)
            kept = [at for at, name in enumerate(found) if name not in barred or name in way]
            found, keys = [found[at] for at in kept], [keys[at] for at in kept]
        below.names += found
        below.keys += keys

    def _enters(self, key: int, below: Frame) -> bool:
        """Whether to walk a directory that may be on another file system, or be one of those above it once more."""
        device = _device(key)
        if key in below.chain:
            return False
        if device == below.root_device:
            return True
        return not self._rules.one_file_system and device not in self._rules.pseudo

    def _is_cache(self, path: bytes) -> bool:
        """Whether the directory is tagged as in https://bford.info/cachedir/."""
        try:
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
            fd = kernels.open_beneath(self._root_fd, path + b"/" + CACHE_TAG if path else CACHE_TAG, flags)
        except OSError:
            return False
        try:
            return stat.S_ISREG(os.fstat(fd).st_mode) and os.read(fd, len(CACHE_SIGNATURE)) == CACHE_SIGNATURE
        except OSError:
            return False
        finally:
            os.close(fd)


class _Found:
    """Rows of a stretch while it grows: a list item per directory."""

    def __init__(self) -> None:
        self.rows = 0
        self.directories = 0
        self.excluded = 0
        self.failed: list[tuple[bytes, int]] = []
        self._paths: list[bytes] = []
        self._names: list[Paths] = []
        self._stats: list[Stats] = []
        self._borders: list[int] = []

    def add(self, path: bytes, names: Paths, rows: Stats, first: bool) -> None:
        """Rows of the directory `path`; `first` unless a part of it was added before."""
        if first and crc32(path) % BORDER == 0:
            self._borders.append(self.rows)
        self.rows += len(rows)
        self._paths.append(path)
        self._names.append(names)
        self._stats.append(rows)

    def stretch(self, rest: Stack) -> Stretch:
        counts = [len(rows) for rows in self._stats]
        rows = columns.concat_stats(self._stats) if self._stats else np.zeros(0, dtype=STAT)
        names = Paths.concat(self._names) if self._names else Paths.of([])
        paths = columns.below(self._paths, counts, names)
        borders = np.array(self._borders, dtype=np.int32)
        if rows["errno"].any():
            kept = rows["errno"] != errno.ENOENT  # gone before anything of it was known: it was never there
            borders = (np.cumsum(kept) - kept).astype(np.int32)[borders[borders < len(kept)]]
            chosen = np.flatnonzero(kept)
            paths, rows = columns.take(paths, chosen), rows[chosen]
        borders = np.unique(borders[borders < len(rows)])
        return Stretch(paths, rows, borders, rest, self.excluded, self.failed)


def split(stack: Stack) -> tuple[Stack, Stack]:
    """The stack as two: what is walked first, and the rest. The first is empty if there is nothing to share out."""
    remaining = [1 if isinstance(frame, Slices) else len(frame.names) - frame.at for frame in stack]
    total = sum(remaining)
    if total < 2:
        return [], stack
    wanted = min(total // 2, 64)
    first: Stack = []
    rest = list(stack)
    while wanted > 0:
        count, top = remaining.pop(), rest.pop()
        if count <= wanted or isinstance(top, Slices):
            first.insert(0, top)
            wanted -= count
            continue
        end = top.at + wanted
        first.insert(0, Frame(top.path, top.names[:end], top.keys, top.root_device, top.chain, top.passing, top.at))
        rest.append(Frame(top.path, top.names, top.keys, top.root_device, top.chain, top.passing, end))
        break
    return first, rest


def _key(device: int, inode: int) -> int:
    return device << 64 | inode


def _device(key: int) -> int:
    return key >> 64
