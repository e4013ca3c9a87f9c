"""What is backed up: made once below the work folder and kept there. The same parameters give the same input.

software tree   files of this machine's own software, copied: `ROOTS` in order, directories whole, files over
                `LARGEST` left out, and wherever the mean size runs ahead of what was asked files over `BIG` left out
                too, so that both counts are met. A machine with less gives a smaller tree; the report names its size.
million files   directories of 1,000 files of 100 bytes each.
random files    incompressible bytes from a seeded generator.
long history    a repository as after many years, see history.py.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import struct
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests import trees
from tests.bench.history import History, write_history

ROOTS = (
    "/usr/share",
    "/usr/include",
    "/usr/lib",
    sys.prefix,
    sys.base_prefix,
    "/usr/local",
    "~/.cargo/registry",
    "~/go/pkg/mod",
)
LARGEST = 32 << 20
BIG = 256 << 10
GB = 1_000_000_000
BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Input:
    """Where an input lies and what it holds."""

    paths: tuple[Path, ...]
    files: int
    size: int  # bytes


class Inputs:
    """Makes and remembers inputs. `scale` multiplies every count and size."""

    def __init__(self, folder: Path, scale: float, tree: Path | None) -> None:
        self.folder = folder
        self.scale = scale
        self._given_tree = tree

    def software_tree(self) -> Input:
        """About 118,000 files with 2.5 GB, or the tree that was named with --tree."""
        if self._given_tree is not None:
            size = trees.measure(os.fsencode(self._given_tree))
            return Input((self._given_tree,), size.files, size.size)
        files, total = int(118_000 * self.scale), int(2.5 * GB * self.scale)
        return self._cached(f"tree-{files}", lambda path: copy_software(path, files, total))

    def million_tree(self) -> Input:
        files = int(1_000_000 * self.scale)
        return self._cached(f"small-{files}", lambda path: write_small_files(path, files))

    def one_large(self) -> Input:
        size = int(8 * GB * self.scale)
        return self._cached(f"one-{size}", lambda path: write_random(path, [size]))

    def eight_files(self) -> Input:
        size = int(GB * self.scale)
        return self._cached(f"eight-{size}", lambda path: write_random(path, [size] * 8))

    def random_files(self) -> Input:
        """Four files of together 2 GB, incompressible."""
        size = int(GB * self.scale / 2)
        return self._cached(f"four-{size}", lambda path: write_random(path, [size] * 4))

    def half_gone(self) -> Input:
        """20 GB of incompressible files of 256 KiB in folders of 64. Of a third of these folders all files are called
        *.gone, of another third every second one."""
        size = int(20 * GB * self.scale)
        return self._cached(f"half-{size}", lambda path: write_half(path, size))

    def long_history(self, password: str) -> tuple[Path, History]:
        """A repository of 10,000 snapshots and 4 million chunks under this password. Not to be changed: copy it."""
        history = History(snapshots=max(50, int(10_000 * self.scale)), chunks=int(4_000_000 * self.scale))
        name = f"history-{history.snapshots}-{history.chunks}"
        made = self._cached(name, lambda path: write_history(path / "repository", password, history))
        return made.paths[0] / "repository", history

    def _cached(self, name: str, make: Callable[[Path], object]) -> Input:
        path, done = self.folder / name, self.folder / f"{name}.json"
        if not done.exists():
            print(f"making input {name} ...", file=sys.stderr, flush=True)
            shutil.rmtree(path, ignore_errors=True)
            path.mkdir(parents=True)
            make(path)
            size = trees.measure(os.fsencode(path))
            done.write_text(json.dumps({"files": size.files, "size": size.size}))
        known = json.loads(done.read_text())
        return Input((path,), known["files"], known["size"])


def copy_software(target: Path, files: int, size: int) -> None:
    """Copy files below `ROOTS` until there are `files` of them or `size` bytes."""
    mean = size / max(1, files)
    copied = bytes_copied = 0
    for root in map(os.path.expanduser, ROOTS):
        if not os.path.isdir(root) or os.path.islink(root):
            continue
        for path, entry in trees.walk(os.fsencode(root)):
            place = os.path.join(os.fsencode(target), os.fsencode(root).strip(b"/"), path)
            status = entry.stat(follow_symlinks=False)
            if stat.S_ISLNK(status.st_mode):
                os.makedirs(os.path.dirname(place), exist_ok=True)
                os.symlink(os.readlink(entry.path), place)
            elif stat.S_ISREG(status.st_mode) and os.access(entry.path, os.R_OK):
                ahead = bytes_copied > mean * (copied + 1)
                if status.st_size > (BIG if ahead else LARGEST) or bytes_copied + status.st_size > size:
                    continue
                os.makedirs(os.path.dirname(place), exist_ok=True)
                if os.path.lexists(place):
                    continue
                shutil.copy2(entry.path, place, follow_symlinks=False)
                copied += 1
                bytes_copied += status.st_size
                if copied >= files:
                    return


def write_small_files(target: Path, files: int) -> None:
    """Directories of 1,000 files of 100 bytes, every file different."""
    for start in range(0, files, 1000):
        directory = target / f"{start // 100_000:03}" / f"{start // 1000:04}"
        directory.mkdir(parents=True)
        root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        for number in range(start, min(start + 1000, files)):
            descriptor = os.open(f"file-{number:07}.txt", os.O_CREAT | os.O_WRONLY, 0o644, dir_fd=root)
            os.write(descriptor, b"%099d\n" % number)
            os.close(descriptor)
        os.close(root)


def write_random(target: Path, sizes: list[int]) -> None:
    """Files of incompressible bytes, the k-th from the generator seeded with its size and k."""
    for number, size in enumerate(sizes):
        generator = np.random.default_rng([size, number])
        with (target / f"random-{number}.bin").open("wb") as output:
            for start in range(0, size, 16 * BLOCK):
                output.write(generator.bytes(min(16 * BLOCK, size - start)))


FOLDER_FILES, FILE_BYTES = 64, 256 << 10


def write_half(target: Path, size: int) -> None:
    """What `Inputs.half_gone` says."""
    generator = np.random.default_rng(size)
    for number in range(max(12, size // FILE_BYTES)):
        folder, place = divmod(number, FOLDER_FILES)
        gone = (False, place % 2 == 1, True)[folder % 3]
        path = target / f"{folder:05}" / f"{place:02}.{'gone' if gone else 'kept'}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(generator.bytes(FILE_BYTES))


def change_in_place(path: Path, share: float, round_number: int) -> int:
    """Overwrite `share` of a file with noise, in runs of 1 MiB at random places; gives the bytes written."""
    size = path.stat().st_size
    generator = np.random.default_rng([size, 1_000_000 + round_number])
    blocks = max(1, round(size * share / BLOCK))
    places = generator.choice(max(1, size // BLOCK), size=min(blocks, max(1, size // BLOCK)), replace=False)
    with path.open("r+b") as file:
        for place in sorted(places.tolist()):
            file.seek(place * BLOCK)
            file.write(generator.bytes(min(BLOCK, size - place * BLOCK)))
    return len(places) * BLOCK


def writer_list(source: Input) -> bytes:
    """The input as records for the bare writer (see bare_write.c); symbolic links and hard links are left out."""
    return b"".join(_records(source))


def _records(source: Input) -> Iterator[bytes]:
    for root in source.paths:
        for path, entry in trees.walk(os.fsencode(root)):
            status = entry.stat(follow_symlinks=False)
            if stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode):
                size = status.st_size if stat.S_ISREG(status.st_mode) else 0
                yield struct.pack("<QqII", size, status.st_mtime_ns, status.st_mode, len(path)) + path
