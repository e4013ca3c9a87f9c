"""Reading restored files back and comparing every chunk with its id."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from kernels import open_beneath, read_files
from model.entries import I32, I64, U8, U32, Paths
from sources.files.columns import take
from sources.files.existing import reason
from sources.files.target_writer import is_simple, ranges

BODY_BYTES = 8 << 20
SIZE_DIFFERS = "verification: its size is not what it should be"
CONTENT_DIFFERS = "verification: what was read back is not what the snapshot holds"

# (body, start, length) → uint8[m, 32]: ids of the chunks ``body[start[j] : start[j] + length[j]]``
HashChunks = Callable[[bytes | bytearray, I64, U32], U8]


@dataclass(slots=True, eq=False)
class Check:
    """f files and the m chunks they must consist of, in file order (`file` ascending)."""

    rows: I32  # [f] whatever the caller knows the files by
    paths: Paths  # [f]
    size: I64  # [f] of the file, holes included
    file: I32  # [m]
    ids: U8  # [m, 32]
    length: U32  # [m]
    extents: dict[int, I64] = field(default_factory=dict)  # file → data of a sparse one


def verify(root_fd: int, check: Check, hash_chunks: HashChunks) -> dict[int, str]:
    """Compare files below `root_fd` with what they must be. Returns row → what is wrong. Access times are kept."""
    problems: dict[int, str] = {}
    content = np.bincount(check.file, weights=check.length, minlength=len(check.rows)).astype(np.int64)
    small = is_simple(content <= BODY_BYTES, check.extents)
    first = np.searchsorted(check.file, np.arange(len(check.rows) + 1)).astype(np.int64)
    body = bytearray(min(BODY_BYTES, int(content[small].sum())))
    for files in _batches(np.flatnonzero(small), content):
        _verify_batch(root_fd, check, files, first, content[files], body, hash_chunks, problems)
    for file in np.flatnonzero(~small).tolist():
        text = _verify_large(root_fd, check, file, range(int(first[file]), int(first[file + 1])), hash_chunks)
        if text:
            problems[int(check.rows[file])] = text
    return problems


def _batches(files: npt.NDArray[np.int64], content: I64) -> Iterator[npt.NDArray[np.int64]]:
    """Runs of files whose content fits into a body together."""
    ends = np.cumsum(content[files])
    start = 0
    while start < len(files):
        begin = int(ends[start - 1]) if start else 0
        end = int(np.searchsorted(ends, begin + BODY_BYTES, side="right"))
        yield files[start:end]
        start = end


def _verify_batch(
    root_fd: int,
    check: Check,
    files: npt.NDArray[np.int64],
    first: I64,
    content: I64,
    body: bytearray,
    hash_chunks: HashChunks,
    problems: dict[int, str],
) -> None:
    found, got = read_files(root_fd, take(check.paths, files), content, body)
    whole = (found["errno"] == 0) & (found["size"] == check.size[files]) & (got == content)
    for at in np.flatnonzero(~whole).tolist():
        number = int(found["errno"][at])
        problems[int(check.rows[files[at]])] = f"verification: {reason(number)}" if number else SIZE_DIFFERS
    counts = (first[files + 1] - first[files])[whole]
    if not counts.sum():
        return
    # Chunks of the whole files in order, and where each begins: where its file does, plus what comes before it there.
    nth = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
    chunk = np.repeat(first[files][whole], counts) + nth
    before = np.concatenate([[0], np.cumsum(check.length, dtype=np.int64)])
    file_start = np.repeat((np.cumsum(got) - got)[whole] - before[first[files][whole]], counts)
    ids = hash_chunks(body, file_start + before[chunk], check.length[chunk])
    bad = (ids != check.ids[chunk]).any(axis=1)
    for file in np.unique(check.file[chunk[bad]]).tolist():
        problems[int(check.rows[file])] = CONTENT_DIFFERS


def _verify_large(root_fd: int, check: Check, file: int, chunks: range, hash_chunks: HashChunks) -> str:
    try:
        fd = _open_to_read(root_fd, check.paths[file])
    except OSError as error:
        return f"verification: {reason(error.errno or errno.EIO)}"
    try:
        if os.fstat(fd).st_size != int(check.size[file]):
            return SIZE_DIFFERS
        at = 0
        for chunk in chunks:
            length = int(check.length[chunk])
            data = b"".join(os.pread(fd, n, place) for place, _, n in ranges(at, length, check.extents.get(file)))
            if len(data) != length:
                return CONTENT_DIFFERS
            ids = hash_chunks(data, np.zeros(1, dtype=np.int64), check.length[chunk : chunk + 1])
            if (ids[0] != check.ids[chunk]).any():
                return CONTENT_DIFFERS
            at += length
    except OSError as error:
        return f"verification: {error.strerror or error}"
    finally:
        os.close(fd)
    return ""


def _open_to_read(root_fd: int, path: bytes) -> int:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
    try:
        return open_beneath(root_fd, path, flags | os.O_NOATIME)
    except PermissionError:  # O_NOATIME is for owners
        return open_beneath(root_fd, path, flags)
