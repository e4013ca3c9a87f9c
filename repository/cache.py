"""The local cache of the index: a few sorted tables in memory-mapped files, made from index objects and disposable.

    file = magic | number of sources | BLAKE3 of all that follows | source names (16 bytes each) | table

A file that is damaged, or made from an index object that is gone, is thrown away and its sources are read again. The
checksum is keyed by the repository, so that a file put there by somebody else is thrown away too.
"""

from __future__ import annotations

import mmap
import os
import struct
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from blake3 import blake3

from model.entries import U8, U32
from model.errors import Damaged, LoxError, Missing, Revoked
from repository.index_table import (
    ID_SIZE,
    PACK,
    SEGMENT,
    IndexTable,
    Records,
    decode_index,
    encode_counts,
    gather_receipts,
    marked_written,
    sort_ids,
    view_table,
)
from repository.seal import ObjectKind

if TYPE_CHECKING:
    from repository.repository import Repository

Report = Callable[[Damaged], None]

INDEX_PREFIX = "index/"
WRITTEN_FOLDER = "written"  # of what a write-only machine remembers of what it stored
FILES_MAX = 8  # tables a lookup goes through
GROWTH = 4  # a table is merged into one up to so many times its size
MERGE_ROWS = 1 << 18  # rows sorted at once: what merging takes in memory does not grow with the index

REPAIR_HINT = "lox repair moves it aside and writes a new one"

_MAGIC = b"LOXCACH1"
_HEAD = struct.Struct("<8sQ32s")
_SUFFIX = ".index"


def default_cache_dir() -> Path:
    """Where caches of all repositories lie: `LOX_CACHE_DIR`, else where the platform wants them."""
    if chosen := os.environ.get("LOX_CACHE_DIR"):
        return Path(chosen)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "lox"
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "lox"


def load_tables(repository: Repository, cache_dir: Path | None, on_damage: Report | None = None) -> list[IndexTable]:
    """Tables of all index objects in the store; see `ChunkIndex.load`. A write-only machine knows only its own."""
    if repository.write_only:
        cache = None if cache_dir is None else _Cache.open(cache_dir / repository.id.hex() / WRITTEN_FOLDER, repository)
        return [] if cache is None else [file.table for file in cache.read(None)]
    names = [name for name, _ in repository.store.list(INDEX_PREFIX)]
    cache = None if cache_dir is None else _Cache.open(cache_dir / repository.id.hex(), repository)
    known = [] if cache is None else cache.read(set(names))
    seen = {source for file in known for source in file.sources}
    fresh = [name for name in names if name not in seen]
    tables, read, ignored = _read_objects(repository, fresh, on_damage)
    if cache is not None:
        known = cache.add(known, tables, read)
        tables = [file.table for file in known]
    elif len(tables) > 1:
        tables = [merge_tables(tables)]
    if len(read) + ignored < len(fresh):
        tables = [*tables, *unlisted_packs(repository, tables, on_damage)]
    return tables


def _read_objects(
    repository: Repository, names: Sequence[str], on_damage: Report | None
) -> tuple[list[IndexTable], list[str], int]:
    """The tables that open, their names, and how many do not count."""
    tables, read, ignored = [], [], 0
    for name in names:
        try:
            tables.append(read_index_object(repository, name))
        except Revoked:
            ignored += 1
            continue
        except Damaged as error:
            if on_damage is None:
                raise Damaged(error.what, subject=name, why=error.why, hint=REPAIR_HINT) from error
            on_damage(error)
            continue
        read.append(name)
    return tables, read, ignored


def read_index_object(repository: Repository, name: str) -> IndexTable:
    """One index object. Raises StoreError, Damaged, NewerFormat; Revoked for one that does not count."""
    data, writer = repository.get_written(ObjectKind.INDEX, name)
    table = decode_index(data, name)
    return table if writer is None else marked_written(table)


def remember_written(repository: Repository, cache_dir: Path, table: IndexTable, name: str) -> None:
    """On a write-only machine: keep the table of an index object it just stored, because it cannot read it back."""
    cache = _Cache.open(cache_dir / repository.id.hex() / WRITTEN_FOLDER, repository)
    if cache is not None:
        cache.add(cache.read(None), [table], [name])


def unlisted_packs(repository: Repository, tables: Sequence[IndexTable], on_damage: Report | None) -> list[IndexTable]:
    """What the packs that no table names say of themselves: stands in for index objects that are damaged."""
    listed = {row.tobytes() for table in tables for row in table.packs["id"]}
    receipts = []
    for pack_id, size in list_packs(repository):
        if pack_id in listed:
            continue
        try:
            receipts.append(repository.packs.read_footer(repository.store, pack_id, size))
        except (Damaged, Missing) as error:
            if on_damage is not None and isinstance(error, Damaged):
                on_damage(error)
    return [gather_receipts(receipts)] if receipts else []


def list_packs(repository: Repository) -> Iterable[tuple[bytes, int]]:
    """(id, size) of every pack in the store; names that are no pack's are skipped."""
    for name, size in repository.store.list("packs/"):
        folder, _, text = name.removeprefix("packs/").partition("/")
        if len(text) == 32 and text[:2] == folder and not set(text) - set("0123456789abcdef"):
            yield bytes.fromhex(text), size


def merge_tables(tables: Sequence[IndexTable]) -> IndexTable:
    """One table of all of them, in memory."""
    packs, segments = _joined_places(tables)
    windows = list(_windows(tables))
    ids, segment, offset, length = (np.concatenate(column) for column in zip(*windows, strict=True))
    return IndexTable(packs, segments, ids, segment, offset, length)


def _joined_places(tables: Sequence[IndexTable]) -> tuple[Records, Records]:
    packs = np.concatenate([np.zeros(0, PACK), *(table.packs for table in tables)])
    segments = np.concatenate([np.zeros(0, SEGMENT), *(table.segments for table in tables)])
    row, base = 0, 0
    for table in tables:
        segments["pack"][row : row + len(table.segments)] += np.uint32(base)
        row, base = row + len(table.segments), base + len(table.packs)
    return packs, segments


def _windows(tables: Sequence[IndexTable]) -> Iterable[tuple[U8, U32, U32, U32]]:
    """The merged chunk columns, window by window: all ids that begin with the same few bytes at once."""
    total = sum(len(table) for table in tables)
    shift = 256 // min(256, 1 << (total // MERGE_ROWS).bit_length())
    bases = np.cumsum([0, *(len(table.segments) for table in tables)]).tolist()
    starts = [0] * len(tables)
    for border in range(shift, 257, shift):
        ends = [
            len(table) if border == 256 else int(np.searchsorted(table.ids[:, 0], border, side="left"))
            for table in tables
        ]
        cut = [
            (table.ids[rows], table.segment[rows] + np.uint32(base), table.offset[rows], table.length[rows])
            for table, base, rows in zip(tables, bases, map(slice, starts, ends), strict=False)
        ]
        ids, segment, offset, length = (np.concatenate(column) for column in zip(*cut, strict=True))
        order = sort_ids(ids)
        yield ids[order], segment[order], offset[order], length[order]
        starts = ends


@dataclass(slots=True, eq=False)
class _File:
    path: Path
    sources: list[str]
    table: IndexTable


class _Cache:
    """The cache files of one repository in a folder of their own."""

    def __init__(self, folder: Path, repository: Repository) -> None:
        self._folder = folder
        self._key = repository.keys.local_key("index cache")

    @classmethod
    def open(cls, folder: Path, repository: Repository) -> _Cache | None:
        """None if there can be no such folder: work goes on without a cache."""
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError:
            return None
        return cls(folder, repository)

    def read(self, existing: set[str] | None) -> list[_File]:
        """The files that are sound and made only from `existing` (None: any) index objects, no source twice; others
        go."""
        files: list[_File] = []
        seen: set[str] = set()
        for path in sorted(self._folder.glob("*" + _SUFFIX)):
            file = self._read_file(path)
            stale = file is None or (existing is not None and not existing.issuperset(file.sources))
            if stale or file is None or not seen.isdisjoint(file.sources):
                path.unlink(missing_ok=True)
                continue
            seen.update(file.sources)
            files.append(file)
        return files

    def _read_file(self, path: Path) -> _File | None:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            with os.fdopen(fd, "rb") as source:
                magic, count, digest = _HEAD.unpack(source.read(_HEAD.size))
                if magic != _MAGIC or digest != self._digest(source):
                    return None
                data = memoryview(mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ))
            at = _HEAD.size + 16 * count
            names = [data[begin : begin + 16].hex() for begin in range(_HEAD.size, at, 16)]
            return _File(path, [INDEX_PREFIX + name for name in names], view_table(data[at:], str(path)))
        except (OSError, ValueError, struct.error, LoxError):
            return None

    def _digest(self, source: BinaryIO) -> bytes:
        """Checksum from where `source` stands to its end; read, not mapped: the pages are not ours to keep."""
        checksum = blake3(key=self._key)
        while block := source.read(1 << 20):
            checksum.update(block)
        return checksum.digest()

    def add(self, files: list[_File], tables: list[IndexTable], sources: list[str]) -> list[_File]:
        """`files` and the new tables; merged where it pays. A full or read-only disk costs the cache, not the run."""
        if not sources:
            return files
        files = sorted(files, key=lambda file: -len(file.table))
        old: list[_File] = []
        size = sum(len(table) for table in tables)
        while files and (len(files) >= FILES_MAX or len(files[-1].table) <= GROWTH * size):
            old.append(files.pop())
            size += len(old[-1].table)
        tables = [*(file.table for file in old), *tables]
        sources = [*(source for file in old for source in file.sources), *sources]
        try:
            path = self._write(tables, sources)
        except OSError:
            return [*files, _File(Path(), sources, merge_tables(tables))]
        for file in old:
            file.path.unlink(missing_ok=True)
        written = self._read_file(path)
        return [*files, written or _File(Path(), sources, merge_tables(tables))]

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
        packs, segments = _joined_places(tables)
        total = sum(len(table) for table in tables)
        out.write(_HEAD.pack(_MAGIC, len(sources), bytes(32)))
        out.write(b"".join(bytes.fromhex(source.removeprefix(INDEX_PREFIX)) for source in sources))
        out.write(encode_counts(len(packs), len(segments), total) + packs.tobytes() + segments.tobytes())
        out.flush()
        at = out.tell()
        places = [at, *(at + total * (ID_SIZE + 4 * column) for column in range(3))]
        for ids, segment, offset, length in _windows(tables):
            for number, column in enumerate((ids.tobytes(), segment.tobytes(), offset.tobytes(), length.tobytes())):
                out.seek(places[number])
                places[number] += out.write(column)
        out.seek(_HEAD.size)
        digest = self._digest(out)
        out.seek(0)
        out.write(_HEAD.pack(_MAGIC, len(sources), digest))
