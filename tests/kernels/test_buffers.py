"""Moving and comparing bytes: what `gather` and `same_bytes` promise."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

BODY = bytes(range(256)) * 20


@pytest.mark.parametrize(
    "ranges",
    [
        [],
        [(0, 5120)],
        [(10, 0), (10, 5), (15, 7), (22, 1)],  # neighbours
        [(5000, 120), (0, 1), (5119, 1), (7, 0), (100, 300)],
        [(3, 9), (3, 9), (0, 12)],  # overlapping
    ],
)
def test_ranges_come_side_by_side(kernel: Any, ranges: list[tuple[int, int]]) -> None:
    start = np.array([begin for begin, _ in ranges], dtype=np.int64)
    length = np.array([size for _, size in ranges], dtype=np.uint32)
    wanted = b"".join(BODY[begin : begin + size] for begin, size in ranges)
    room = bytearray(b"." * (len(wanted) + 3))
    assert kernel.gather(BODY, start, length, room) == len(wanted)
    assert bytes(room) == wanted + b"..."


@pytest.mark.parametrize(
    ("start", "length", "room"),
    [([-1], [1], 9), ([0], [5121], 9999), ([5120], [1], 9), ([0, 0], [5, 5], 9), ([2**62], [1], 9)],
)
def test_ranges_that_do_not_fit_write_nothing(kernel: Any, start: list[int], length: list[int], room: int) -> None:
    out = bytearray(b"." * room)
    with pytest.raises(ValueError, match=r"body|room"):
        kernel.gather(BODY, np.array(start, dtype=np.int64), np.array(length, dtype=np.uint32), out)
    assert bytes(out) == b"." * room


def test_same_bytes(kernel: Any) -> None:
    other = bytearray(BODY)
    assert kernel.same_bytes(BODY, other)
    assert kernel.same_bytes(b"", b"")
    assert not kernel.same_bytes(BODY, BODY[:-1])
    for at in (0, 4095, len(BODY) - 1):
        other[at] ^= 1
        assert not kernel.same_bytes(memoryview(BODY), memoryview(other))
        other[at] ^= 1
