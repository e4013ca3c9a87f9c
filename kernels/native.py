"""The compiled variant: thin wrappers that give the C functions NumPy columns. The reference documents each of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from kernels import _native, ids
from kernels.buffers import Bytes
from kernels.ids import Guide
from kernels.tree import SCAN_LIMIT
from model.chunking import ChunkerParams
from model.entries import I32, I64, STAT, U8, U32, U64, Paths, Stats

HASH_WAYS = [way for way in (2, 1) if _native.can_hash() & way]  # 2: in pairs by SHA instructions, 1: by OpenSSL


def _params(params: ChunkerParams) -> tuple[int, int, int, int, int, int]:
    largest = [min(limit, 1 << 64) - 1 for limit in (params.loose_limit, params.strict_limit)]
    kind = 1 if params.kind == "fixed" else 0
    return kind, params.minimum, params.average, params.maximum, largest[0], largest[1]


def _column(column: npt.NDArray[Any], dtype: Any) -> npt.NDArray[Any]:
    return np.ascontiguousarray(column, dtype=dtype)


def _offsets(paths: Paths) -> I32:
    return np.ascontiguousarray(paths.offsets, dtype=np.int32)


def candidates(data: Bytes, table: U64, params: ChunkerParams, context: int = 0) -> I64:
    """As `kernels.chunk.candidates`."""
    found = _native.candidates(data, _column(table, np.uint64), _params(params), context)
    return np.frombuffer(found, dtype=np.int64)


def select(candidates: I64, params: ChunkerParams, start: int, end: int, final: bool) -> I64:
    """As `kernels.chunk.select`."""
    cuts = _native.select(_column(candidates, np.int64), _params(params), start, end, final)
    return np.frombuffer(cuts, dtype=np.int64)


def cut_files(body: Bytes, start: I64, length: I64, table: U64, params: ChunkerParams) -> tuple[I64, I32]:
    """As `kernels.chunk.cut_files`."""
    counts = np.empty(len(start), dtype=np.int32)
    starts, lengths, words = _column(start, np.int64), _column(length, np.int64), _column(table, np.uint64)
    ends = _native.cut_files(body, starts, lengths, words, _params(params), counts)
    return np.frombuffer(ends, dtype=np.int64), counts


def hash_chunks(key: bytes | None, body: Bytes, start: I64, length: U32) -> U8:
    """As `kernels.ids.hash_chunks`, all chunks in one call: with the processor's instructions, or by OpenSSL where it
    is a library of its own."""
    if not HASH_WAYS:
        return ids.hash_chunks(key, body, start, length)
    digests = np.empty((len(start), ids.ID_BYTES), dtype=np.uint8)
    pads = b"" if key is None else ids.hmac_pads(key)
    _native.hash_chunks(HASH_WAYS[0], pads, body, _column(start, np.int64), _column(length, np.uint32), digests)
    return digests


def gather(body: Bytes, start: I64, length: U32, room: bytearray | memoryview | U8) -> int:
    """As `kernels.buffers.gather`."""
    return _native.gather(body, _column(start, np.int64), _column(length, np.uint32), room)


def same_bytes(one: Bytes, other: Bytes) -> bool:
    """As `kernels.buffers.same_bytes`."""
    return _native.same_bytes(one, other)


def find_ids(table: Bytes, queries: U8) -> I64:
    """As `kernels.ids.find_ids`."""
    rows = np.empty(queries.size // 32, dtype=np.int64)
    _native.find_ids(table, _column(queries, np.uint8), rows)
    return rows


def find_guided(table: Bytes, guide: Guide, queries: U8) -> I64:
    """As `kernels.ids.find_guided`."""
    rows = np.empty(queries.size // 32, dtype=np.int64)
    starts, marks = _column(guide.starts, np.uint32), _column(guide.marks, np.uint16)
    _native.find_guided(table, starts, marks, _column(queries, np.uint8), rows)
    return rows


def open_beneath(root_fd: int, path: bytes, flags: int, mode: int = 0o600) -> int:
    """As `kernels.tree.open_beneath`."""
    return _native.open_beneath(root_fd, path, flags, mode)


def list_directory(fd: int) -> tuple[Paths, U8]:
    """As `kernels.tree.list_directory`."""
    blob, offsets, types = _native.list_directory(fd)
    return Paths(blob, np.frombuffer(offsets, dtype=np.int32)), np.frombuffer(types, dtype=np.uint8)


def stat_names(dir_fd: int, names: Paths, lo: int, hi: int) -> Stats:
    """As `kernels.tree.stat_names`."""
    stats = np.empty(max(hi - lo, 0), dtype=STAT)
    _native.stat_names(dir_fd, names.blob, _offsets(names), lo, hi, stats)
    return stats


def stat_paths(root_fd: int, paths: Paths) -> Stats:
    """As `kernels.tree.stat_paths`."""
    stats = np.empty(len(paths), dtype=STAT)
    _native.stat_paths(root_fd, paths.blob, _offsets(paths), stats)
    return stats


def scan_directory(root_fd: int, path: bytes, limit: int = SCAN_LIMIT) -> tuple[Paths, Stats]:
    """As `kernels.tree.scan_directory`."""
    blob, offsets, stats = _native.scan_directory(root_fd, path, limit)
    return Paths(blob, np.frombuffer(offsets, dtype=np.int32)), np.frombuffer(stats, dtype=STAT)


def join_sorted(a: Paths, b: Paths) -> tuple[I32, int]:
    """As `kernels.tree.join_sorted`."""
    match = np.empty(len(a), dtype=np.int32)
    return match, _native.join_sorted(a.blob, _offsets(a), b.blob, _offsets(b), match)


def look_at(root_fd: int, paths: Paths, modes: U32) -> tuple[U32, Paths]:
    """As `kernels.tree_files.look_at`."""
    flags, ends = np.empty(len(paths), dtype=np.uint32), np.empty(len(paths) + 1, dtype=np.int32)
    targets = _native.look_at(root_fd, paths.blob, _offsets(paths), _column(modes, np.uint32), flags, ends)
    return flags, Paths(targets, ends)


def read_files(root_fd: int, paths: Paths, limits: I64, body: bytearray | memoryview | U8) -> tuple[Stats, I64]:
    """As `kernels.tree_files.read_files`."""
    stats, lengths = np.empty(len(paths), dtype=STAT), np.empty(len(paths), dtype=np.int64)
    _native.read_files(root_fd, paths.blob, _offsets(paths), _column(limits, np.int64), body, stats, lengths)
    return stats, lengths


def write_files(root_fd: int, paths: Paths, body: Bytes, start: I64, length: I64, meta: Stats, flags: int = 0) -> I32:
    """As `kernels.tree_files.write_files`."""
    errors = np.empty(len(paths), dtype=np.int32)
    starts, lengths, rows = _column(start, np.int64), _column(length, np.int64), _column(meta, STAT)
    _native.write_files(root_fd, paths.blob, _offsets(paths), body, starts, lengths, rows, flags, errors)
    return errors


def create_directories(root_fd: int, paths: Paths) -> I32:
    """As `kernels.tree_files.create_directories`."""
    errors = np.empty(len(paths), dtype=np.int32)
    _native.create_directories(root_fd, paths.blob, _offsets(paths), errors)
    return errors
