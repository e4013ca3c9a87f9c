"""How many processor cores have nothing to do: whether more lanes could use them."""

from __future__ import annotations

import os
import time

import psutil


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
    """Seconds that the cores of the host together have been idle since it started."""
    try:
        times = psutil.cpu_times()
    except OSError:
        return None
    return float(times.idle + getattr(times, "iowait", 0.0))
