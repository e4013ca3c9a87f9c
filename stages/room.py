"""Memory a lane uses again for every item: first touch of fresh memory costs as much as the work done in it."""

from __future__ import annotations

import numpy as np

from model.entries import U32


class Room:
    """One growing buffer, cut anew for each item; what was cut before is then void."""

    def __init__(self) -> None:
        self._bytes = memoryview(b"")

    def slices(self, lengths: U32) -> list[memoryview]:
        """Writable memory of these lengths, side by side."""
        ends = np.cumsum(lengths, dtype=np.int64).tolist()
        if ends and ends[-1] > len(self._bytes):
            # np.empty does not write zeros into it: pages nobody uses are never touched.
            self._bytes = np.empty(ends[-1], dtype=np.uint8).data
        return [self._bytes[end - length : end] for end, length in zip(ends, lengths.tolist(), strict=True)]
