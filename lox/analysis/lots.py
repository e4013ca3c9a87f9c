"""Samples drawn by lot: things that belong together are all in the sample or none, whatever their order.

A thing has a *cluster*, words that those it may duplicate have in common: the length of a file, the path of a version.
The hash of the cluster decides. So copies are drawn together, which is what makes a sample of files say something about
duplicates at all; and which part of everything was drawn is a number, `fraction`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from itertools import pairwise
from typing import Generic, TypeVar

T = TypeVar("T")

ITEMS_MAX = 200_000
LARGE = 1 << 20  # bytes of a thing that is remembered though it is not drawn
ALIKE_MAX = 1 << 17  # clusters of those
KEEP = 0.9  # of what is drawn, when it is too much
# Ends of the parts of the sample, each a sample itself: whoever runs out of time has some whole ones. The first are
# small, so that there is one soon.
ROUNDS = (1 / 128, 1 / 64, 1 / 32, *(number / 16 for number in range(1, 17)))


@dataclass(frozen=True, slots=True)
class Drawn(Generic[T]):
    """A thing of the sample. `place` in [0, 1) is the same for all of its cluster; `size` in bytes."""

    thing: T
    size: int
    place: float
    order: int  # in which it was offered


class Lot(Generic[T]):
    """Draws a sample of at most `limit` bytes (or one cluster) while things are offered; memory for the sample only.

    `offered` counts things, `offered_bytes` their bytes; `left_out` the bytes of what need not be drawn, as it is a
    copy of what was offered.
    """

    def __init__(self, limit: int, seed: int = 0, items_max: int = ITEMS_MAX) -> None:
        self.fraction = 1.0
        self.offered = 0
        self.offered_bytes = 0
        self.left_out = 0
        self._limit = limit
        self._items_max = items_max
        self._salt = b"lox lot %d" % seed
        self._kept: list[Drawn[T]] = []
        self._alike: dict[float, tuple[int, int]] = {}  # of large things that may be copies: bytes of all, of one
        self._bytes = 0

    def offer(self, cluster: bytes, thing: T, size: int, copies: bool = False) -> None:
        """A thing that may be drawn; with `copies`, things of its cluster are likely to be copies of each other."""
        self.offered += 1
        self.offered_bytes += size
        place = int.from_bytes(hashlib.blake2b(cluster, digest_size=8, key=self._salt).digest(), "big") / 2**64
        if copies and size >= LARGE and (place in self._alike or len(self._alike) < ALIKE_MAX):
            total, one = self._alike.get(place, (0, 0))
            self._alike[place] = total + size, max(one, size)
        if place >= self.fraction:
            return
        self._kept.append(Drawn(thing, size, place, self.offered))
        self._bytes += size
        while self._too_much() and len({one.place for one in self._kept}) > 1:
            self.fraction *= KEEP
            self._kept = [one for one in self._kept if one.place < self.fraction]
            self._bytes = sum(one.size for one in self._kept)

    def unread_copies(self, fraction: float) -> int:
        """Bytes of large things beyond the first of each cluster that is not in this fraction: what would be saved if
        all of them were copies. A few such clusters may hold most of what there is to save, and a sample misses them.
        """
        return sum(total - one for place, (total, one) in self._alike.items() if place >= fraction)

    def _too_much(self) -> bool:
        return self._bytes > self._limit or len(self._kept) > self._items_max

    def rounds(self) -> list[tuple[float, list[Drawn[T]]]]:
        """The sample in parts (see `ROUNDS`), each in the order of offering, and the fraction drawn up to its end."""
        found: list[tuple[float, list[Drawn[T]]]] = []
        for low, high in pairwise(self.fraction * edge for edge in (0.0, *ROUNDS)):
            some = [one for one in self._kept if low <= one.place < high]
            found.append((high, sorted(some, key=lambda one: one.order)))
        return found
