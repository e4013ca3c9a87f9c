"""Numbers with an interval, and how well content compresses as one of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from lox.analysis.contents import Body
from lox.analysis.lots import Drawn, Lot
from repository.codecs import Codec, compressor
from repository.pack_keys import PackKind
from repository.tables.view import View

T = TypeVar("T")

DEVIATIONS = 2.0
SEGMENT = 4 << 20
PROBED = 48  # runs of neighbours that are compressed to learn how well they do
RUNS_BYTES = PROBED * 8 << 20


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


def compression_of(runs: Lot[list[Drawn[T]]], read: Callable[[Sequence[Drawn[T]]], Iterator[Body]]) -> Estimate:
    """Stored bytes for each plain byte: what zstd, as a backup uses it, makes of segments of neighbouring files.

    Raises what reading raises.
    """
    compress = compressor(Codec.ZSTD)
    sizes: list[tuple[int, int]] = []
    for run in [one.thing for _, some in runs.rounds() for one in some][:PROBED]:
        content = bytearray()
        for body in read(run):
            content += body.data[: SEGMENT - len(content)]
            if len(content) >= SEGMENT:
                break
        if content:
            sizes.append((len(content), min(len(content), len(compress(bytes(content))))))
    return ratio_of(sizes)


def stored_now(view: View) -> Estimate:
    """Stored bytes for each plain byte of content in a repository."""
    index = view.index
    content = np.flatnonzero(view.counted & (index.pack_table["kind"][index.segments.pack] == PackKind.DATA))
    plain, stored = (
        int(column[content].sum(dtype=np.int64)) for column in (index.segments.plain, index.segments.stored)
    )
    return Estimate(stored / plain if plain else 1.0, 0.0)


def ratio_of(sizes: Sequence[tuple[int, int]]) -> Estimate:
    """Stored bytes for each plain byte, from pairs of both."""
    plain, stored = np.array(sizes, np.float64).reshape(-1, 2).T
    if not plain.sum():
        return Estimate(1.0, 0.0)
    ratio = float(stored.sum() / plain.sum())
    return Estimate(ratio, float(np.sqrt(((stored - ratio * plain) ** 2).sum())) / float(plain.sum()))
