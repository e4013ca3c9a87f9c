"""Numbers with an interval, and how well content compresses as one of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from lox.analysis.contents import PIECE, Body, Range, Run
from lox.analysis.history import F64
from lox.analysis.lots import Drawn, Lot
from repository.codecs import Codec, compressor
from repository.pack_keys import PackKind
from repository.tables.view import View

DEVIATIONS = 2.0
SEGMENT = 4 << 20
PROBED = 256  # runs of neighbours that are compressed to learn how well they do: many and short, for they differ
RUNS_BYTES = PROBED * PIECE


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its interval."""

    value: float
    deviation: float
    least: float = 0.0
    most: float = math.inf
    below: float = 0.0  # how much less it may be for a reason that the deviation does not know

    @property
    def low(self) -> float:
        return max(self.least, self.value - DEVIATIONS * self.deviation - self.below)

    @property
    def high(self) -> float:
        return min(self.most, self.value + DEVIATIONS * self.deviation)

    def times(self, factor: float, relative: float = 0.0) -> Estimate:
        """Multiplied by a number that is itself known up to the `relative` deviation."""
        own = self.deviation / self.value if self.value else 0.0
        deviation = abs(self.value * factor) * math.hypot(own, relative)
        return Estimate(self.value * factor, deviation, below=self.below * factor)


def compression_of(runs: Lot[Run], read: Callable[[Sequence[Drawn[Range]]], Iterator[Body]]) -> Estimate:
    """Stored bytes for each plain byte: what zstd, as a backup uses it, makes of neighbouring files.

    Raises what reading raises.
    """
    compress = compressor(Codec.ZSTD)
    ratios, weights = [], []
    for run in [one.thing for _, some in runs.rounds() for one in some][:PROBED]:
        content = b"".join(bytes(body.data) for body in read(run.things))
        if content:
            ratios.append(min(1.0, len(compress(content)) / len(content)))
            weights.append(run.weight)
    return ratio_of(np.array(ratios), np.array(weights, np.float64), runs.fraction)


def stored_now(view: View) -> Estimate:
    """Stored bytes for each plain byte of content in a repository."""
    index = view.index
    content = np.flatnonzero(view.counted & (index.pack_table["kind"][index.segments.pack] == PackKind.DATA))
    plain, stored = (
        int(column[content].sum(dtype=np.int64)) for column in (index.segments.plain, index.segments.stored)
    )
    return Estimate(stored / plain if plain else 1.0, 0.0)


def ratio_of(ratios: F64, weights: F64, fraction: float) -> Estimate:
    """The mean of ratios of things that have so many bytes, if this fraction of all things was drawn."""
    if not weights.sum():
        return Estimate(1.0, 0.0)
    mean = float((ratios * weights).sum() / weights.sum())
    variance = float(((weights * (ratios - mean)) ** 2).sum()) * max(0.0, 1.0 - fraction)
    return Estimate(mean, math.sqrt(variance) / float(weights.sum()))
