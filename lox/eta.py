"""How fast a run is and how long it will take: pure arithmetic, fed with times by the caller.

Two things make an estimate jump: a rate taken over a short while, and a plain count of bytes, since ten thousand small
files take longer than their bytes suggest. So work is counted as bytes plus a constant for each file; the rate is a
mean of the recent past and of the whole run; and what is shown counts down with the clock and is only pulled gently
towards the newest estimate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

FILE_COST = 16 << 10  # bytes of work that opening and recording one file amounts to
RECENT = 12.0  # seconds over which the recent rate is taken
PULL = 8.0  # seconds in which the shown estimate closes most of its distance to the newest one
WARM_UP = 1.5  # seconds before anything is shown


@dataclass(slots=True)
class Pace:
    """Smoothed rates and the remaining time of one run; feed it with `update` every now and then."""

    started: float
    bytes_per_second: float = 0.0
    files_per_second: float = 0.0
    _work_per_second: float = 0.0
    _last: tuple[float, int, int] = field(default=(0.0, 0, 0))
    _shown: float | None = None
    _first: bool = True

    def __post_init__(self) -> None:
        self._last = (self.started, 0, 0)

    def update(
        self,
        now: float,
        files_done: int,
        bytes_done: int,
        files_total: int | None = None,
        bytes_total: int | None = None,
    ) -> None:
        """Takes in how far the run is at `now` (seconds of any steady clock); totals may still grow or be unknown."""
        then, files_then, bytes_then = self._last
        passed = now - then
        if passed <= 0.0:
            return
        self._last = (now, files_done, bytes_done)
        new_bytes, new_files = max(0, bytes_done - bytes_then), max(0, files_done - files_then)
        keep = 0.0 if self._first else math.exp(-passed / RECENT)
        # While the run is younger than the window, a plain mean over its life is the best there is.
        keep = min(keep, max(0.0, 1.0 - passed / max(now - self.started, passed)))
        self._first = False
        self.bytes_per_second = keep * self.bytes_per_second + (1 - keep) * new_bytes / passed
        self.files_per_second = keep * self.files_per_second + (1 - keep) * new_files / passed
        work = (new_bytes + FILE_COST * new_files) / passed
        self._work_per_second = keep * self._work_per_second + (1 - keep) * work
        self._follow(now, passed, self._estimate(now, files_done, bytes_done, files_total, bytes_total))

    def _estimate(
        self, now: float, files_done: int, bytes_done: int, files_total: int | None, bytes_total: int | None
    ) -> float | None:
        """Seconds left by what is known now; None if the total is unknown or already passed."""
        if bytes_total is None or now - self.started < WARM_UP:
            return None
        files_left = max(0, (files_total or 0) - files_done)
        left = max(0, bytes_total - bytes_done) + FILE_COST * files_left
        done = bytes_done + FILE_COST * files_done
        overall = done / (now - self.started)
        rate = 0.6 * self._work_per_second + 0.4 * overall
        return left / rate if rate > 0.0 else None

    def _follow(self, now: float, passed: float, estimate: float | None) -> None:
        if estimate is None:
            self._shown = None
        elif self._shown is None:
            self._shown = estimate
        else:
            # Near the end the pull is stronger, so that zero is reached when the run is done, not 8 seconds later.
            pull = min(PULL, max(1.0, estimate / 2))
            counted = max(0.0, self._shown - passed)
            self._shown = counted + (estimate - counted) * (1.0 - math.exp(-passed / pull))

    @property
    def remaining(self) -> float | None:
        """Seconds left as shown to the user, in steps that grow with the distance; None while nothing is known."""
        if self._shown is None:
            return None
        step = 1 if self._shown < 60 else 5 if self._shown < 600 else 30 if self._shown < 7200 else 300
        return float(math.ceil(self._shown / step) * step)


def share_done(files_done: int, bytes_done: int, files_total: int | None, bytes_total: int | None) -> float | None:
    """Fraction of the work that is done, 0 to 1; None while the total is unknown."""
    if bytes_total is None:
        return None
    total = max(bytes_total, bytes_done) + FILE_COST * max(files_total or 0, files_done)
    return (bytes_done + FILE_COST * files_done) / total if total else None
