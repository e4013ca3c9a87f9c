"""How much of everything is unique, from a sample: what was seen once may have a copy that was not drawn.

Of a chunk that m clusters hold, j are in a sample of the fraction p with the binomial probability of j among m. The
numbers seen in 1, 2, 3 ... clusters are turned back into the numbers that are held by 1, 2, 3 ... (expectation
maximisation from an even start). The share of their sum in what all of them hold is the share that is unique. With
p = 1 nothing is unseen, and the answer is what was counted.
"""

from __future__ import annotations

import math

import numpy as np

from lox.analysis.history import F64
from model.entries import I64

SEEN_MAX = 40  # clusters of the sample: chunks that more hold than that are taken to be in all that the sample implies
STEPS = 300
GROWTH = 1.35  # from one number of holders looked at to the next


def unseen_total(held: F64 | I64, seen_in: I64, fraction: float, everything: float) -> float:
    """What all different chunks have together, from those of a sample.

    `held` is bytes (or 1, to count) of each different chunk of the sample, `seen_in` in how many clusters of it the
    chunk occurs, `fraction` which part of all clusters was drawn, `everything` what all clusters hold, each counted by
    itself.
    """
    if not len(held):
        return 0.0
    if fraction >= 1.0:
        return float(held.sum())
    often = seen_in > SEEN_MAX
    seen = np.bincount(seen_in[~often], weights=held[~often], minlength=SEEN_MAX + 1)[1:].astype(np.float64)
    holders, different = _unfolded(seen, fraction)
    total = float(held[often].sum()) + float(different.sum())
    copies = float((held[often] * (seen_in[often] / fraction)).sum()) + float((different * holders).sum())
    return everything * total / copies if copies else 0.0


def _unfolded(seen: F64, fraction: float) -> tuple[F64, F64]:
    """Numbers of holders, and what chunks with so many have together."""
    holders = _holders(fraction)
    chance = _binomial(holders, fraction)  # [holders, seen]
    shown = np.maximum(chance.sum(axis=1), 1e-300)  # that a chunk with so many holders is seen at all
    different: F64 = np.full(len(holders), seen.sum() / float(shown.sum()))
    for _ in range(STEPS):
        expected = np.maximum(different @ chance, 1e-300)
        different = different / shown * (chance @ (seen / expected))
    return holders, different


def _holders(fraction: float) -> F64:
    """Numbers of holders to tell apart: all small ones, then ever fewer, up to what `SEEN_MAX` of a sample imply."""
    numbers, most = [1.0], max(float(SEEN_MAX), SEEN_MAX / fraction)
    while numbers[-1] < most:
        numbers.append(max(numbers[-1] + 1, math.floor(numbers[-1] * GROWTH)))
    return np.array(numbers)


def _binomial(holders: F64, fraction: float) -> F64:
    """The chance that 1 to `SEEN_MAX` of so many holders are drawn."""
    seen = np.arange(1, SEEN_MAX + 1)
    hit, miss = math.log(fraction), math.log1p(-fraction)
    factorial = np.array([math.lgamma(number + 1) for number in range(int(holders[-1]) + 1)])
    rest = np.maximum(holders[:, None].astype(np.int64) - seen, 0)
    ways = factorial[holders.astype(np.int64)][:, None] - factorial[seen] - factorial[rest]
    chance: F64 = np.where(holders[:, None] >= seen, np.exp(ways + seen * hit + rest * miss), 0.0)
    return chance
