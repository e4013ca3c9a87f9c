"""dump: one file's content as a stream; folders are the business of `pipelines.archive`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import BinaryIO

import pyarrow as pa

from model.entries import Kind
from model.errors import Damaged, NotFound, UsageError
from repository.cache_dir import default_cache_dir
from repository.fetch import ChunkFetcher
from repository.manifest_reader import ManifestReader
from repository.reading_index import ReadingIndex
from repository.repository import Repository
from repository.snapshot import Snapshot

AHEAD = 64  # chunks fetched at once: some 8 MiB
ZEROS = bytes(1 << 20)

OnDamage = Callable[[Damaged], None]  # told of damage that what was asked for could be had in spite of


def dump(
    repository: Repository, snapshot: Snapshot, path: bytes, out: BinaryIO, on_damage: OnDamage = lambda error: None
) -> None:
    """Write the content of the file at `path`; holes come as zeros. Raises NotFound, UsageError, Damaged."""
    source = SnapshotContent(repository, snapshot, on_damage)
    entry = source.manifest.find(path)
    if entry is None:
        raise not_found(snapshot, path)
    kind = Kind(entry["kind"][0].as_py())
    if kind is Kind.DIRECTORY:
        raise UsageError("a folder is dumped as an archive", subject=_display(path), hint="add --archive tar")
    if kind is not Kind.FILE:
        raise UsageError("only files have content", subject=_display(path), why=f"it is a {kind.name.lower()}")
    for data in source.content(entry):
        out.write(data)
    out.flush()


class SnapshotContent:
    """The manifest of a snapshot and the content of its files."""

    def __init__(self, repository: Repository, snapshot: Snapshot, on_damage: OnDamage) -> None:
        self._fetcher = ChunkFetcher(repository, ReadingIndex(repository, default_cache_dir(), on_damage))
        self.manifest = ManifestReader(snapshot.root, self._fetcher.fetch, snapshot.name)

    def content(self, entry: pa.Table) -> Iterator[bytes]:
        """The bytes of a file as a reader of the file would get them."""
        extents = entry["extents"][0].as_py()
        size = entry["size"][0].as_py()
        if extents is None:
            yield from self._stored(entry)
            return
        data = _Joined(self._stored(entry))
        at = 0
        for extent in extents:
            yield from _zeros(extent["offset"] - at)
            yield from data.take(extent["length"])
            at = extent["offset"] + extent["length"]
        yield from _zeros(size - at)

    def _stored(self, entry: pa.Table) -> Iterator[bytes]:
        lists = self.manifest.content(entry)
        ids = [row.tobytes() for row in lists.ids]
        for at in range(0, len(ids), AHEAD):
            yield from self._fetcher.fetch(ids[at : at + AHEAD])


class _Joined:
    """Chunks as one stream."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = b""

    def take(self, length: int) -> Iterator[bytes]:
        while length > 0:
            if not self._rest:
                self._rest = next(self._chunks)
            part, self._rest = self._rest[:length], self._rest[length:]
            length -= len(part)
            yield part


def _zeros(length: int) -> Iterator[bytes]:
    while length > 0:
        yield ZEROS[:length]
        length -= len(ZEROS)


def _display(path: bytes) -> str:
    return "/" + path.decode("utf-8", "backslashreplace")


def not_found(snapshot: Snapshot, path: bytes) -> NotFound:
    """The error for a path that a snapshot does not have."""
    return NotFound("no such path in the snapshot", subject=_display(path), hint=f"lox ls {snapshot.short_id}")
