"""The range of a spread holds the true median as often as it says."""

from __future__ import annotations

import random

import pytest

from pipelines.pairs import SURE, Spread, spread_of


def test_few_pairs_give_the_whole_range_and_are_not_sure() -> None:
    assert spread_of([0.9, 1.2, 1.0]) == Spread(1.0, 0.9, 1.2, 3)
    assert not spread_of([0.5] * 5).sure and spread_of([0.5] * 6).sure


def test_more_pairs_give_a_narrower_range() -> None:
    ratios = [0.8 + number / 100 for number in range(12)]
    spread = spread_of(ratios)
    assert (spread.low, spread.high) == (ratios[2], ratios[-3])


@pytest.mark.parametrize("pairs", [6, 9, 12, 20])
def test_the_range_holds_the_true_median(pairs: int) -> None:
    """Whatever the distribution: here one with a long tail, as times have."""
    rng, rounds = random.Random(pairs), 2000
    spreads = [spread_of([rng.expovariate(1.0) for _ in range(pairs)]) for _ in range(rounds)]
    inside = sum(spread.low <= 0.6931 <= spread.high for spread in spreads)
    assert inside / rounds > SURE - 0.015


def test_nothing_has_no_spread() -> None:
    with pytest.raises(ValueError):
        spread_of([])
