"""What the kernels take: bytes in any shape, columns checked before use."""

from __future__ import annotations

import mmap
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from model.entries import I64, U8, U32, Paths

Bytes: TypeAlias = bytes | bytearray | memoryview | mmap.mmap | npt.NDArray[np.uint8]


def bytes_of(data: Bytes) -> npt.NDArray[np.uint8]:
    """`data` as uint8[n], not copied."""
    return np.frombuffer(data, dtype=np.uint8)


def rows_of(paths: Paths) -> list[bytes]:
    """The rows of a column of byte strings; ValueError unless each lies in the blob."""
    offsets = paths.offsets.astype(np.int64)
    ends = np.concatenate([np.zeros(1, dtype=np.int64), offsets])
    if len(offsets) == 0 or (np.diff(ends) < 0).any() or offsets[-1] > len(paths.blob):
        raise ValueError("an offset does not lie in the blob")
    return list(paths)


def check_ranges(start: npt.NDArray[Any], length: npt.NDArray[Any], size: int) -> None:
    """ValueError unless every ``[start, start + length)`` lies in ``[0, size)``."""
    if len(start) != len(length):
        raise ValueError("start and length must have the same number of items")
    starts, lengths = start.astype(np.int64), length.astype(np.int64)
    outside = (starts < 0) | (starts > size) | (lengths < 0) | (lengths > size - starts)
    if outside.any():
        raise ValueError(f"row {int(outside.argmax())} does not lie in the body")


def check_items(column: npt.NDArray[Any], items: int, what: str) -> None:
    """ValueError unless `column` has `items` items."""
    if len(column) != items:
        raise ValueError(f"{what} must have {items} items, not {len(column)}")


def gather(body: Bytes, start: I64, length: U32, room: bytearray | memoryview | U8) -> int:
    """Copy ``body[start : start + length]`` of each row into `room`, side by side in row order; bytes written.

    ValueError, and nothing written, unless each row lies in the body and all of them fit into the room.
    """
    source, target, at = bytes_of(body), bytes_of(room), 0
    check_ranges(start, length, len(source))
    if int(length.sum(dtype=np.int64)) > len(target):
        raise ValueError("the ranges do not fit into the room")
    for begin, size in zip(start.tolist(), length.tolist(), strict=True):
        target[at : at + size] = source[begin : begin + size]
        at += size
    return at


def same_bytes(one: Bytes, other: Bytes) -> bool:
    """Whether both hold the same bytes. (Comparing memoryviews goes item by item.)"""
    return np.array_equal(bytes_of(one), bytes_of(other))


__all__ = ["I64", "Bytes", "bytes_of", "check_items", "check_ranges", "gather", "rows_of", "same_bytes"]
