"""The local cache of the index: a few sorted tables in memory-mapped files, made from index objects and disposable.

    file = magic | number of sources | bytes of the table | BLAKE3 of all that follows |
           source names (16 bytes each) | table | guide: where its buckets start, mark of each row

A file that is damaged, or made from an index object that is gone, is thrown away and its sources are read again. The
checksum is keyed by the repository, so that a file put there by somebody else is thrown away too. Of an id that is not
stored, the guide (`kernels.Guide`) is all that is looked at; of one that is, one row of the table.
"""

from __future__ import annotations

import mmap
import os
import struct
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from blake3 import blake3

from kernels import Guide, guide_buckets, guide_places
from model.errors import LoxError
from repository.index_merge import joined_places, merge_tables, windows
from repository.index_table import ID_SIZE, INDEX_PREFIX, IndexTable, encode_counts, view_table

if TYPE_CHECKING:
    from repository.repository import Repository

Group = tuple[list[IndexTable], list[str]]
"""Tables, and the names of the index objects they are of."""

FILES_MAX = 8  # tables a lookup goes through
GROWTH = 4  # a table is merged into one up to so many times its size

_MAGIC = b"LOXCACH2"
_HEAD = struct.Struct("<8sQQ32s")
_SUFFIX = ".index"


@dataclass(slots=True, eq=False)
class CacheFile:
    """A table and what it was made of; without a path it is in memory only."""

    sources: list[str]
    table: IndexTable
    path: Path | None = None


class CacheFiles:
    """The cache files of one repository in a folder of their own."""

    def __init__(self, folder: Path, repository: Repository) -> None:
        self._folder = folder
        self._key = repository.keys.local_key("index cache")

    @classmethod
    def open(cls, folder: Path, repository: Repository) -> CacheFiles | None:
        """None if there can be no such folder: work goes on without a cache."""
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError:
            return None
        return cls(folder, repository)

    def read(self, existing: set[str] | None) -> list[CacheFile]:
        """The files that are sound and made only from `existing` (None: any) index objects, no source twice; others
        go."""
        files: list[CacheFile] = []
        seen: set[str] = set()
        for path in sorted(self._folder.glob("*" + _SUFFIX)):
            file = self._read_file(path)
            stale = file is None or (existing is not None and not existing.issuperset(file.sources))
            if file is None or stale or not seen.isdisjoint(file.sources):
                path.unlink(missing_ok=True)
                continue
            seen.update(file.sources)
            files.append(file)
        return files

    def _read_file(self, path: Path) -> CacheFile | None:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            with os.fdopen(fd, "rb") as source:
                magic, count, size, digest = _HEAD.unpack(source.read(_HEAD.size))
                if magic != _MAGIC or digest != self._digest(source):
                    return None
                data = memoryview(mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ))
            at = _HEAD.size + 16 * count
            if at > len(data):  # the counts are not under the checksum
                return None
            names = [data[begin : begin + 16].hex() for begin in range(_HEAD.size, at, 16)]
            table = view_table(data[at : at + size], str(path))
            table = replace(table, guide=_view_guide(data[at + size :], len(table)))
            return CacheFile([INDEX_PREFIX + name for name in names], table, path)
        except (OSError, ValueError, struct.error, LoxError):
            return None

    def _digest(self, source: BinaryIO) -> bytes:
        """Checksum from where `source` stands to its end; read, not mapped: the pages are not ours to keep."""
        checksum = blake3(key=self._key)
        while block := source.read(1 << 20):
            checksum.update(block)
        return checksum.digest()

    def add(self, files: list[CacheFile], groups: Iterable[Group]) -> list[CacheFile]:
        """`files` and the new tables; merged where it pays. A full or read-only disk costs the cache, not the run.

        Each group goes into a file before the next one is asked for: memory is bounded, and a run that is interrupted
        has not read in vain.
        """
        fresh = [self._stored(tables, sources) for tables, sources in groups]
        if not fresh:
            return files
        kept, merged = sorted(files, key=lambda file: -len(file.table)), fresh
        size = sum(len(file.table) for file in fresh)
        while kept and (len(kept) >= FILES_MAX or len(kept[-1].table) <= GROWTH * size):
            merged = [kept.pop(), *merged]
            size += len(merged[0].table)
        return [*kept, self._merged(merged)]

    def _merged(self, files: list[CacheFile]) -> CacheFile:
        if len(files) == 1:
            return files[0]
        whole = self._stored([file.table for file in files], [source for file in files for source in file.sources])
        if whole.path is not None:
            for file in files:
                if file.path is not None:
                    file.path.unlink(missing_ok=True)
        return whole

    def _stored(self, tables: Sequence[IndexTable], sources: list[str]) -> CacheFile:
        try:
            file = self._read_file(self._write(tables, sources))
        except OSError:
            file = None
        return file or CacheFile(sources, merge_tables(tables))

    def _write(self, tables: Sequence[IndexTable], sources: Sequence[str]) -> Path:
        fd, temporary = tempfile.mkstemp(prefix=".new-", dir=self._folder)  # 0600
        try:
            with os.fdopen(fd, "w+b") as out:
                self._write_table(out, tables, sources)
            path = self._folder / (os.urandom(8).hex() + _SUFFIX)
            os.rename(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
        return path

    def _write_table(self, out: BinaryIO, tables: Sequence[IndexTable], sources: Sequence[str]) -> None:
        packs, segments = joined_places(tables)
        total = sum(len(table) for table in tables)
        out.write(_HEAD.pack(_MAGIC, len(sources), 0, bytes(32)))
        out.write(b"".join(bytes.fromhex(source.removeprefix(INDEX_PREFIX)) for source in sources))
        begin = out.tell()
        out.write(encode_counts(len(packs), len(segments), total) + packs.tobytes() + segments.tobytes())
        at = out.tell()
        places = [at, *(at + total * (ID_SIZE + 4 * column) for column in range(4))]
        size = places[-1] - begin
        places.append(places[-1] + 4 * (guide_buckets(total) + 1))
        for parts in _columns(tables, total):
            for number, part in enumerate(parts):
                out.seek(places[number])
                places[number] += out.write(part)
        out.seek(_HEAD.size)
        digest = self._digest(out)
        out.seek(0)
        out.write(_HEAD.pack(_MAGIC, len(sources), size, digest))


def _columns(tables: Sequence[IndexTable], total: int) -> Iterator[Sequence[bytes]]:
    """The columns of a file piece by piece: ids, segments, offsets, lengths, where buckets start, marks."""
    step = guide_buckets(total) // 256  # buckets of ids that begin with the same byte
    before = 0
    for window in windows(tables):
        bucket, marks = guide_places(window.ids, 256 * step)
        last = 1 if window.border == 256 else 0
        starts = np.searchsorted(bucket, np.arange(window.first * step, window.border * step + last)) + before
        before += len(bucket)
        columns = window.ids, window.segment, window.offset, window.length, starts.astype("<u4"), marks.astype("<u2")
        yield [column.tobytes() for column in columns]


def _view_guide(data: memoryview, rows: int) -> Guide:
    """Raises ValueError if `data` is not as long as the guide of a table of `rows`."""
    starts = guide_buckets(rows) + 1
    if len(data) != 4 * starts + 2 * rows:
        raise ValueError("its guide has another length")
    return Guide(np.frombuffer(data, "<u4", starts), np.frombuffer(data, "<u2", rows, 4 * starts))
