"""Who needs which chunks: sets of groups, kept small because most chunks have one group only."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from model.entries import I32, I64, Bool

U64 = npt.NDArray[np.uint64]

GROUPS_MAX = 1 << 24
_SHIFT = np.uint64(24)
_MASK = np.uint64(GROUPS_MAX - 1)
_PENDING = 1 << 20  # pairs that are collected before they are sorted in


class Sharing:
    """Which of any number of groups need each of n chunks; both are numbers.

    Takes 4 bytes a chunk, and 8 to 24 for each further group of a chunk.
    """

    def __init__(self, chunks: int) -> None:
        self.first: I32 = np.full(chunks, -1, np.int32)  # a group of each chunk, -1: nobody needs it
        self._more: U64 = np.zeros(0, np.uint64)  # (chunk, group) of further groups, ascending
        self._pending: list[U64] = []
        self._count = 0

    def add(self, chunks: I64, groups: I32) -> None:
        """`groups[i]` needs `chunks[i]`; of chunks that are not stored (-1) nothing is known."""
        stored = chunks >= 0
        keys = np.unique((chunks[stored].astype(np.uint64) << _SHIFT) | groups[stored].astype(np.uint64))
        chunk, group = _split(keys)
        fresh = (self.first[chunk] < 0) & np.concatenate([[True], chunk[1:] != chunk[:-1]])[: len(chunk)]
        self.first[chunk[fresh]] = group[fresh]
        further = keys[self.first[chunk] != group]
        if len(further):
            self._pending.append(further)
            self._count += len(further)
        if self._count > max(_PENDING, len(self._more)):
            self._sort_in()

    def _sort_in(self) -> None:
        self._more = np.unique(np.concatenate([self._more, *self._pending]))
        self._pending, self._count = [], 0

    def shared(self) -> tuple[I64, I64]:
        """(chunk, group) for every group of all chunks that have several, ascending."""
        self._sort_in()
        chunk, group = _split(self._more)
        several = np.unique(chunk)
        firsts = self.first[several].astype(np.int64)
        chunk, group = np.concatenate([chunk, several]), np.concatenate([group, firsts])
        order = np.lexsort((group, chunk))
        return chunk[order], group[order]

    def alone(self) -> Bool:
        """Which chunks have exactly one group, which `first` names."""
        self._sort_in()
        alone: Bool = self.first >= 0
        alone[_split(self._more)[0]] = False
        return alone


def _split(keys: U64) -> tuple[I64, I64]:
    return (keys >> _SHIFT).astype(np.int64), (keys & _MASK).astype(np.int64)
