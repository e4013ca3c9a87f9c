"""What pairs of measurements say. Both halves of a pair are measured one right after the other, so that whatever else
the machine does meanwhile hurts both; what counts is their ratio, and of many ratios the median.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

SURE = 0.95  # how often the range of a spread is to hold the true median


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of some ratios, and the narrowest range of them that holds the true median in 95 of 100 cases, or
    all of them if there are fewer than six: then it is less sure."""

    median: float
    low: float
    high: float
    pairs: int

    @property
    def below(self) -> bool:
        """Whether the ratio is below one beyond noise."""
        return self.pairs > 0 and self.high < 1.0

    @property
    def sure(self) -> bool:
        """Whether there were enough pairs for the range to mean what it says."""
        return _coverage(self.pairs, 0) >= SURE


def spread_of(ratios: Sequence[float]) -> Spread:
    """The spread of some ratios, by the order statistics of the median: nothing is assumed of how they are
    distributed. ValueError if there are none."""
    if not ratios:
        raise ValueError("no ratios")
    ranked, drop = sorted(ratios), 0
    while 2 * (drop + 1) < len(ranked) and _coverage(len(ranked), drop + 1) >= SURE:
        drop += 1
    return Spread(median(ranked), ranked[drop], ranked[-1 - drop], len(ranked))


def _coverage(count: int, drop: int) -> float:
    """How often the range of `count` values without the `drop` lowest and highest holds the true median."""
    if count < 1:
        return 0.0
    outside = sum(math.comb(count, number) for number in range(drop + 1)) / 2.0**count
    return 1.0 - 2.0 * outside
