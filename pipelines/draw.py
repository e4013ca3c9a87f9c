"""Samples: some files of a source, drawn by lot, or files made up for the purpose. The source stays as it is."""

from __future__ import annotations

import os
import random
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from model.errors import UsageError
from sources.files.opening import open_directory, open_regular

MIB = 1 << 20
SAMPLE_BYTES = 64 * MIB
FILES_MAX = 20_000
PATHS_MAX = 1_000  # a sample is made of: a snapshot names them all
LOOKS_MAX = 200_000  # directory entries looked at to draw a sample
WORDS = 4000


@dataclass(frozen=True, slots=True)
class Sample:
    """What a backup is asked to take: absolute `paths`, each with all below it. `files` regular files of `size` bytes
    together. `whole`: whether that is all of the source. `cut`: whether it is one file longer than a sample should be,
    of which only the first `size` bytes are to be read."""

    paths: tuple[bytes, ...]
    files: int
    size: int
    origin: str
    whole: bool = False
    cut: bool = False

    @property
    def mean(self) -> float:
        """Bytes of a file, on average."""
        return self.size / max(self.files, 1)


def draw(source: bytes, most: int = SAMPLE_BYTES, files: int = FILES_MAX) -> Sample:
    """At most `most` bytes in at most `files` files of `source`, an absolute path: whole folders where they fit, in an
    order drawn by lot, because neighbouring files resemble each other and lie together. UsageError if there is nothing.

    If there is little but files longer than `most`, the sample is the beginning of one of them.
    """
    with _opened_root() as root:
        drawing = _Drawing(root, most, files, os.lstat(source).st_dev)
        drawing.fill(source)
    if drawing.size * 4 < most and drawing.large:
        return Sample((drawing.large,), 1, most, os.fsdecode(source), cut=True)
    if not drawing.size:
        raise UsageError("nothing to read", subject=os.fsdecode(source), why="no readable file with content")
    whole = drawing.paths == [source]
    return Sample(tuple(sorted(drawing.paths)), drawing.files, drawing.size, os.fsdecode(source), whole)


class _Drawing:
    """A sample while it is drawn."""

    def __init__(self, root: int, most: int, files: int, device: int) -> None:
        self._root = root
        self._most = most
        self._files_most = files
        self._device = device
        self._looks = LOOKS_MAX
        self.paths: list[bytes] = []
        self.files = 0
        self.size = 0
        self.large = b""  # a file that does not fit

    def fill(self, source: bytes) -> None:
        """Takes what fits, and looks into what does not."""
        rng, todo = random.Random(1), [source]
        while todo and len(self.paths) < PATHS_MAX and self.size < self._most and self._looks > 0:
            at = rng.randrange(len(todo))
            todo[at], todo[-1] = todo[-1], todo[at]
            path = todo.pop()
            measured = self._measured(path)
            if measured is not None:
                files, size = measured
                if files:
                    self.paths.append(path)
                self.files, self.size = self.files + files, self.size + size
            else:
                todo += self._inside(path)

    def _measured(self, path: bytes) -> tuple[int, int] | None:
        """Files and bytes at and below `path`; None if that is more than there is room for."""
        files, size, pending = 0, 0, [path]
        while pending:
            for status, name in self._look(pending.pop()):
                if stat.S_ISDIR(status.st_mode):
                    pending.append(name)
                elif stat.S_ISREG(status.st_mode):
                    files, size = files + 1, size + status.st_size
                if size > self._most - self.size or files > self._files_most - self.files or self._looks <= 0:
                    return None
        return files, size

    def _inside(self, path: bytes) -> list[bytes]:
        """What lies in a folder that does not fit as a whole; a file that does not fit is only remembered."""
        if stat.S_ISDIR(os.lstat(path).st_mode):
            return [name for _, name in self._look(path)]
        if os.lstat(path).st_size > self._most and os.access(path, os.R_OK):
            self.large = self.large or path
        return []

    def _look(self, path: bytes) -> Iterator[tuple[os.stat_result, bytes]]:
        """What is in a folder, or the file itself, if it is on the device of the source."""
        for status, name in _listed(self._root, path):
            self._looks -= 1
            if status.st_dev == self._device:
                yield status, name


def _listed(root: int, path: bytes) -> list[tuple[os.stat_result, bytes]]:
    """What is in a folder, by name, or the file itself; nothing of what cannot be read. Access times stay."""
    try:
        status = os.lstat(path)
        if not stat.S_ISDIR(status.st_mode):
            return [(status, path)]
        fd = open_directory(root, path.strip(b"/"))
        try:
            with os.scandir(fd) as entries:
                found = [(entry.stat(follow_symlinks=False), os.fsencode(entry.name)) for entry in entries]
        finally:
            os.close(fd)
    except OSError:
        return []
    return sorted(((status, os.path.join(path, name)) for status, name in found), key=lambda pair: pair[1])


@contextmanager
def _opened_root() -> Iterator[int]:
    fd = os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


class Pages:
    """What the system holds in memory of the files of a sample. They are looked for once."""

    def __init__(self, sample: Sample) -> None:
        with _opened_root() as root:
            self._files = [path.lstrip(b"/") for path in _regular_files(root, sample.paths)]

    def forget(self) -> None:
        """Lets the system drop it, so that the files are read again from where they lie.

        Asks for no right but to read them. What is not written to the disk yet stays, and so do names and inodes.
        """
        advise = getattr(os, "posix_fadvise", None)
        if advise is None:  # macOS
            return
        with _opened_root() as root:
            for path in self._files:
                try:
                    fd = open_regular(root, path)
                except OSError:
                    continue
                try:
                    advise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
                finally:
                    os.close(fd)


def _regular_files(root: int, paths: Iterable[bytes]) -> Iterator[bytes]:
    pending = list(paths)
    while pending:
        folder = pending.pop()
        for status, path in _listed(root, folder):
            if stat.S_ISREG(status.st_mode):
                yield path
            elif stat.S_ISDIR(status.st_mode):
                pending.append(path)


def make_up(folder: str, total: int = SAMPLE_BYTES) -> Sample:
    """Files in `folder`: two thirds text of random words, one third incompressible; sizes from 1 KiB to 4 MiB."""
    rng = random.Random(2)
    words = [bytes(rng.choices(b"etaoinshrdlucmfwypvbgkq", k=rng.randint(2, 11))) for _ in range(WORDS)]
    text = b" ".join(rng.choices(words, k=1 << 20))
    files = size = 0
    while size < total:
        length = min(int(1024 * 4096 ** rng.random()), total - size)
        begin = rng.randrange(max(1, len(text) - length))
        content = rng.randbytes(length) if files % 3 == 2 else text[begin : begin + length]
        with open(os.path.join(folder, f"file{files:05d}"), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # what is not on the disk yet cannot be forgotten, and would be read from memory
        files, size = files + 1, size + length
    return Sample((os.fsencode(folder),), files, size, "made-up files", whole=True)
