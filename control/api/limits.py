"""How often somebody may ask: token buckets in memory, per class of route and per caller.

Each process counts for itself. When there are too many buckets, the one not used for longest is forgotten: an attacker
with many addresses cannot fill the memory.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from control.api.problems import TooMany

BUCKETS_MAX = 100_000


@dataclass(frozen=True, slots=True)
class Allowance:
    """`burst` requests at once, and `rate` a second after that."""

    rate: float
    burst: float


CLASSES = {
    "login": Allowance(0.2, 10),
    "enrol": Allowance(2, 50),
    "costly": Allowance(0.5, 20),  # starts a program, or asks another server
    "failures": Allowance(1, 60),  # requests without a valid secret, per address
    "ordinary": Allowance(50, 500),
    "agent": Allowance(20, 200),
    "data": Allowance(500, 5_000),
    "free": Allowance(float("inf"), float("inf")),
}


class Limits:
    """Raises TooMany. `clock` gives seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, factor: float = 1.0) -> None:
        self._clock = clock
        self._factor = factor
        self._buckets: OrderedDict[tuple[str, str], tuple[float, float]] = OrderedDict()

    def take(self, name: str, caller: str) -> None:
        """One request of the class `name`. Raises TooMany with the seconds to wait."""
        level, rate = self._level(name, caller)
        if rate == float("inf"):
            return
        self._buckets.pop((name, caller), None)
        self._buckets[name, caller] = (level if level < 1 else level - 1, self._clock())
        if level < 1:
            raise TooMany((1 - level) / rate)
        while len(self._buckets) > BUCKETS_MAX:
            self._buckets.popitem(last=False)

    def check(self, name: str, caller: str) -> None:
        """Raises TooMany if `take` would; takes nothing."""
        level, rate = self._level(name, caller)
        if level < 1:
            raise TooMany((1 - level) / rate)

    def _level(self, name: str, caller: str) -> tuple[float, float]:
        allowance, now = CLASSES[name], self._clock()
        rate, burst = allowance.rate * self._factor, allowance.burst * self._factor
        level, since = self._buckets.get((name, caller), (burst, now))
        return min(burst, level + (now - since) * rate) if rate != float("inf") else burst, rate
