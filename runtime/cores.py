"""How many processor cores have nothing to do: whether more lanes could use them."""

from __future__ import annotations

import os
import time

STAT = "/proc/stat"
TICKS = os.sysconf("SC_CLK_TCK")  # of the kernel's clock, a second


class CoreMeter:
    """Counts from when it is made. `allowed` is how many cores this process may use."""

    __slots__ = ("_idle", "_own", "allowed")

    def __init__(self) -> None:
        self.allowed = len(os.sched_getaffinity(0))
        self._idle, self._own = _idle_seconds(), time.process_time()

    def idle(self, wall: float) -> float | None:
        """Cores without work on the average of the last `wall` seconds, those since this was made; None: unknown.

        Neither more than the whole host had idle, nor than this process left of those it may use.
        """
        now = _idle_seconds()
        if now is None or self._idle is None or wall <= 0:
            return None
        own = (time.process_time() - self._own) / wall
        return max(0.0, min((now - self._idle) / wall, self.allowed - own))


def _idle_seconds() -> float | None:
    """Seconds that the cores of the host together have been idle since it started; waiting for a disk is idle.

    Read here and not by psutil, whose import takes longer than all else a short run spends on its trace.
    """
    try:
        with open(STAT, "rb") as file:
            numbers = file.readline().split()
        return (int(numbers[4]) + int(numbers[5])) / TICKS
    except (OSError, ValueError, IndexError):
        return None
