"""``python -m tests.bench.lookups REPOSITORY PASSWORD CACHE``: what the index of a repository costs, as one JSON line.

Memory is counted in two ways: what this process holds (anonymous pages), and pages of the cache file that it has
touched, which the kernel may take back at any time. Each measurement follows on the one before.
"""

from __future__ import annotations

import json
import mmap
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from model.entries import U8
from repository.index import ChunkIndex
from repository.repository import Repository
from repository.store import open_store

BATCH = 4096  # ids asked for at once: a full batch of a backup
ROUNDS = 50


def measure(place: str, password: str, cache_dir: Path) -> dict[str, object]:
    """Load, look up warm, and again after the cache file was dropped from memory."""
    repository = Repository.open(open_store(place), password)
    list(repository.store.list("index/"))  # what every command takes is not counted
    before = memory()
    began = time.perf_counter()
    with Peak() as peak:
        index = ChunkIndex.load(repository, cache_dir, only_present=True)
    result: dict[str, object] = {"seconds": time.perf_counter() - began, "chunks": len(index)}
    result["held while loading"] = peak.bytes - before["RssAnon"]
    result["held"] = memory()["RssAnon"] - before["RssAnon"]
    queries = makers(index)
    for name, make in queries.items():
        mapped = memory()["RssFile"]
        batches = [make() for _ in range(ROUNDS)]
        index.contains(batches[0])
        result[f"{name} seconds"] = statistics.median(timed(index, batch) for batch in batches)
        result[f"{name} touched"] = memory()["RssFile"] - mapped
    for name in ("new", "known"):
        batch = queries[name]()
        drop(index, cache_dir)
        io = read_bytes()
        result[f"{name} cold seconds"] = timed(index, batch)
        result[f"{name} cold read"] = read_bytes() - io
    result["held at the end"] = memory()["RssAnon"] - before["RssAnon"]
    return result


class Peak:
    """The most anonymous memory this process has within a block, seen every 10 ms."""

    def __init__(self) -> None:
        self.bytes = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(0.01):
            self.bytes = max(self.bytes, memory()["RssAnon"])


def makers(index: ChunkIndex) -> dict[str, Callable[[], U8]]:
    """Batches by name: of ids nobody knows, of known ones, half of each. Unknown ones first: they touch least."""
    generator = np.random.default_rng(1)
    table = max(index.tables, key=len)

    def new(count: int = BATCH) -> U8:
        return generator.integers(0, 256, (count, 32), dtype=np.uint8)

    def known(count: int = BATCH) -> U8:
        return table.ids[generator.integers(0, len(table), count)]

    def mixed() -> U8:
        return generator.permutation(np.concatenate([new(BATCH // 2), known(BATCH // 2)]))

    return {"new": new, "known": known, "mixed": mixed}


def timed(index: ChunkIndex, batch: U8) -> float:
    """Seconds."""
    began = time.perf_counter()
    index.contains(batch)
    return time.perf_counter() - began


def memory() -> dict[str, int]:
    """Bytes of this process by the kernel's names."""
    lines = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
    return {words[0][:-1]: int(words[1]) << 10 for words in lines if words[0] in ("RssAnon:", "RssFile:")}


def read_bytes() -> int:
    """What this process has had read from a disk."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("read_bytes"))


def drop(index: ChunkIndex, cache_dir: Path) -> None:
    """Takes the cache files out of memory: out of this process, then out of the page cache."""
    for table in index.tables:
        owner: object = table.ids
        while not isinstance(owner, mmap.mmap):
            owner = owner.base if isinstance(owner, np.ndarray) else owner.obj  # type: ignore[attr-defined]
        owner.madvise(mmap.MADV_DONTNEED)
    for path in cache_dir.rglob("*.index"):
        fd = os.open(path, os.O_RDONLY)
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], sys.argv[2], Path(sys.argv[3]))))
