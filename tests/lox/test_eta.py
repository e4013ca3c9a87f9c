"""The remaining time is near the truth, counts down, and does not jump."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise

from lox.eta import FILE_COST, Pace, share_done

MB = 1_000_000
STEP = 0.2


def run(rate: Callable[[float], float], total: int, files: int = 0) -> list[tuple[float, float | None]]:
    """(seconds, shown remaining) of a run that does `rate(t)` bytes a second; files are spread evenly."""
    pace, now, done = Pace(0.0), 0.0, 0.0
    shown: list[tuple[float, float | None]] = []
    while done < total:
        now += STEP
        done = min(total, done + rate(now) * STEP)
        pace.update(now, int(files * done / total), int(done), files, total)
        shown.append((now, pace.remaining))
    return shown


def jumps(shown: list[tuple[float, float | None]]) -> list[float]:
    """By how much the display departs from counting down, relative to what it says, at every update after 5 s."""
    known = [(now, left) for now, left in shown if left is not None and now > 5]
    return [abs(after - (before - STEP)) / max(before, 10.0) for (_, before), (_, after) in pairwise(known)]


def test_a_steady_run_is_told_exactly() -> None:
    shown = run(lambda _: 100 * MB, 6000 * MB)
    end = shown[-1][0]
    for now, left in shown:
        if now > 3:
            assert left is not None
            assert abs(left - (end - now)) <= 2.5
    assert shown[-1][1] is not None and shown[-1][1] <= 1


def test_a_noisy_run_does_not_jump() -> None:
    rng = random.Random(1)
    noisy = run(lambda _: rng.choice([10, 50, 100, 300, 900]) * MB / 3, 12_000 * MB)
    assert max(jumps(noisy)) < 0.12
    wrong = [abs(left - (noisy[-1][0] - now)) / noisy[-1][0] for now, left in noisy if left is not None and now > 15]
    assert sum(wrong) / len(wrong) < 0.15


def test_a_stall_lets_the_estimate_grow_smoothly() -> None:
    shown = run(lambda now: 1 * MB if 20 < now < 60 else 100 * MB, 8000 * MB)
    assert max(jumps(shown)) < 0.25


def test_small_files_count_as_work() -> None:
    """First 50,000 tiny files, then one large one: bytes alone would promise hours during the files."""
    pace, total_files, total_bytes = Pace(0.0), 50_000, 1000 * MB
    for tick in range(1, 26):
        pace.update(tick * STEP, tick * 2000, tick * 2000 * 100, total_files, total_bytes)
    assert pace.remaining is not None and pace.remaining < 30


def test_nothing_is_promised_without_a_total_or_too_early() -> None:
    pace = Pace(0.0)
    pace.update(0.5, 10, MB, 100, 10 * MB)
    assert pace.remaining is None
    pace.update(5.0, 20, 2 * MB)
    assert pace.remaining is None and pace.bytes_per_second > 0


def test_hostile_clocks_and_counts_do_no_harm() -> None:
    pace = Pace(100.0)
    for now, files, size, total in [(100, 0, 0, 10), (90, 5, 5, 10), (101, 3, 2, 10), (101, 9, 9, 0), (300, 0, 0, 0)]:
        pace.update(now, files, size, total, total)
    assert pace.bytes_per_second >= 0


def test_share_never_passes_one() -> None:
    assert share_done(5, 10, None, None) is None
    assert share_done(0, 0, 0, 0) is None
    assert share_done(20, 2000, 10, 1000) == 1.0
    assert share_done(1, 0, 2, 0) == 0.5
    assert share_done(0, FILE_COST, 1, FILE_COST) == 0.5
