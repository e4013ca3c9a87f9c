"""Entries of a file tree as columns: what the scan finds, what the reader completes.

A path is bytes, relative to ``/``, without a leading or trailing slash (``b"etc/passwd"``). Rows of a snapshot are
in *manifest order*: by parent directory, compared component by component, then by name. So all entries of one
directory lie together, and so do all rows below a directory. ``order_key`` is the order in one line.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import pairwise

import numpy as np
import numpy.typing as npt

U8 = npt.NDArray[np.uint8]
U32 = npt.NDArray[np.uint32]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]
Bool = npt.NDArray[np.bool_]
Stats = npt.NDArray[np.void]


class Kind(IntEnum):
    """What an entry is. The numbers are part of the repository format."""

    FILE = 0
    DIRECTORY = 1
    SYMLINK = 2
    FIFO = 3
    CHAR_DEVICE = 4
    BLOCK_DEVICE = 5
    SOCKET = 6
    UNKNOWN = 7


# One row of lstat(2), as the kernels fill it: 88 bytes, little-endian, times in nanoseconds since the epoch,
# size in bytes, blocks in units of 512 bytes. `errno` is 0 or why the row could not be read. `flags` holds the
# inode flags of chattr(1) in its low 24 bits and the READ_* bits above.
STAT = np.dtype(
    [
        ("mode", "<u4"),
        ("uid", "<u4"),
        ("gid", "<u4"),
        ("nlink", "<u4"),
        ("size", "<i8"),
        ("mtime", "<i8"),
        ("ctime", "<i8"),
        ("atime", "<i8"),
        ("ino", "<u8"),
        ("dev", "<u8"),
        ("rdev", "<u8"),
        ("blocks", "<i8"),
        ("errno", "<i4"),
        ("flags", "<u4"),
    ]
)
assert STAT.itemsize == 88

INODE_FLAGS = 0x00FFFFFF
READ_HAS_XATTRS = 1 << 31
READ_CHANGED = 1 << 30
READ_NOT_REGULAR = 1 << 29

_KIND_OF_FORMAT = np.full(16, Kind.UNKNOWN, dtype=np.uint8)
for _format, _kind in {
    0o01: Kind.FIFO,
    0o02: Kind.CHAR_DEVICE,
    0o04: Kind.DIRECTORY,
    0o06: Kind.BLOCK_DEVICE,
    0o10: Kind.FILE,
    0o12: Kind.SYMLINK,
    0o14: Kind.SOCKET,
}.items():
    _KIND_OF_FORMAT[_format] = _kind


def kinds_of(mode: U32) -> U8:
    """`Kind` of each ``st_mode``."""
    kinds: U8 = _KIND_OF_FORMAT[(mode >> 12) & 0xF]
    return kinds


def order_key(path: bytes) -> tuple[bytes, bytes]:
    """Sort key of manifest order."""
    directory, _, name = path.rpartition(b"/")
    return directory.replace(b"/", b"\0"), name


@dataclass(slots=True, eq=False)
class Paths:
    """A column of byte strings in Arrow's layout: row i is ``blob[offsets[i]:offsets[i + 1]]``."""

    blob: bytes
    offsets: I32

    @classmethod
    def of(cls, items: Iterable[bytes]) -> Paths:
        rows = list(items)
        offsets = np.zeros(len(rows) + 1, dtype=np.int32)
        np.cumsum([len(row) for row in rows], out=offsets[1:])
        return cls(b"".join(rows), offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> bytes:
        return self.blob[self.offsets[row] : self.offsets[row + 1]]

    def __iter__(self) -> Iterator[bytes]:
        ends = self.offsets.tolist()
        return (self.blob[start:end] for start, end in pairwise(ends))

    def take(self, rows: npt.NDArray[np.integer]) -> Paths:
        return Paths.of([self[int(row)] for row in rows])

    def slice(self, start: int, end: int) -> Paths:
        base = int(self.offsets[start])
        return Paths(self.blob[base : int(self.offsets[end])], self.offsets[start : end + 1] - np.int32(base))

    @classmethod
    def concat(cls, parts: list[Paths]) -> Paths:
        if len(parts) == 1:
            return parts[0]
        offsets = [np.zeros(1, dtype=np.int32)]
        base = 0
        for part in parts:
            offsets.append(part.offsets[1:] + np.int32(base))
            base += len(part.blob)
        return cls(b"".join([part.blob for part in parts]), np.concatenate(offsets))


@dataclass(slots=True, eq=False)
class Fresh:
    """Entries that are new or changed since the parent snapshot, n rows in manifest order.

    The scan fills paths, stat, device and same_as; the reader fills the sparse columns (row → value), which hold
    only rows that have such a thing.
    """

    paths: Paths
    stat: Stats  # STAT[n]
    device: U32  # small ordinal of st_dev within this snapshot: st_dev itself changes between boots
    same_as: Bool  # a later member of a hard-link group: its content is that of the first member
    targets: dict[int, bytes] = field(default_factory=dict)
    xattrs: dict[int, list[tuple[bytes, bytes]]] = field(default_factory=dict)
    extents: dict[int, I64] = field(default_factory=dict)  # sparse files: (k, 2) offset, length of their data
    problems: dict[int, str] = field(default_factory=dict)
    known: Bool | None = None  # the parent snapshot has this path too: changed, not new; None: no parent

    def __len__(self) -> int:
        return len(self.stat)

    @property
    def kinds(self) -> U8:
        return kinds_of(self.stat["mode"])
