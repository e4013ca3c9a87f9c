"""Material for `lox bench`: a sample of real files, or files made up for the purpose."""

from __future__ import annotations

import os
import random
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from model.entries import Paths

SAMPLE_BYTES = 64 << 20
FILE_MAX = 8 << 20  # bytes taken of one file: what one lane reads at once
FILES_MAX = 20_000
DIRECTORIES_MAX = 50_000  # looked at to draw the sample from
WORDS = 4000


@dataclass(frozen=True, slots=True)
class Sample:
    """Files to measure with: paths relative to ``/`` and the bytes taken of each."""

    paths: Paths
    sizes: list[int]
    origin: str

    @property
    def total(self) -> int:
        return sum(self.sizes)


def sample_of(source: bytes, limit: int = SAMPLE_BYTES) -> Sample:
    """Files below `source`, whole folders in an order drawn by lot, up to `limit` bytes.

    Whole folders, because neighbouring files resemble each other and lie together, in a backup as here.
    """
    folders = list(_folders(source))
    random.Random(1).shuffle(folders)
    paths: list[bytes] = []
    sizes: list[int] = []
    left = limit
    for folder in folders:
        for path, size in _files(folder):
            if left <= 0 or len(paths) >= FILES_MAX:
                break
            taken = min(size, FILE_MAX, left)
            paths.append(path.lstrip(b"/"))
            sizes.append(taken)
            left -= taken
    return Sample(Paths.of(paths), sizes, os.fsdecode(source))


def _folders(source: bytes) -> Iterator[bytes]:
    """`source` and folders below it on the same file system, breadth first."""
    if not stat.S_ISDIR(os.lstat(source).st_mode):
        yield source
        return
    device = os.lstat(source).st_dev
    pending = [source]
    for folder in pending:
        yield folder
        if len(pending) >= DIRECTORIES_MAX:
            continue
        try:
            with os.scandir(folder) as entries:
                pending += [
                    one.path
                    for one in entries
                    if one.is_dir(follow_symlinks=False) and one.stat(follow_symlinks=False).st_dev == device
                ]
        except OSError:
            continue


def _files(folder: bytes) -> Iterator[tuple[bytes, int]]:
    """Readable regular files directly in `folder`, by name."""
    try:
        status = os.lstat(folder)
        if stat.S_ISREG(status.st_mode):
            yield folder, status.st_size
            return
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda one: one.name)
        for one in found:
            if one.is_file(follow_symlinks=False) and os.access(one.path, os.R_OK):
                yield one.path, one.stat(follow_symlinks=False).st_size
    except OSError:
        return


def make_up(folder: str, total: int = SAMPLE_BYTES) -> Sample:
    """Files in `folder`: two thirds text of random words, one third incompressible; sizes from 1 KiB to 4 MiB."""
    rng = random.Random(2)
    words = [bytes(rng.choices(b"etaoinshrdlucmfwypvbgkq", k=rng.randint(2, 11))) for _ in range(WORDS)]
    text = b" ".join(rng.choices(words, k=1 << 20))
    paths: list[bytes] = []
    sizes: list[int] = []
    while sum(sizes) < total:
        size = min(int(1024 * 4096 ** rng.random()), total - sum(sizes))
        begin = rng.randrange(max(1, len(text) - size))
        content = rng.randbytes(size) if len(paths) % 3 == 2 else text[begin : begin + size]
        path = os.path.join(folder, f"file{len(paths):05d}")
        with open(path, "wb") as file:
            file.write(content)
        paths.append(os.fsencode(path).lstrip(b"/"))
        sizes.append(len(content))
    return Sample(Paths.of(paths), sizes, "made-up files")
