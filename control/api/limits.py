"""How often somebody may ask: token buckets in memory, per class of route and per caller.

Each process counts for itself; of what guards against guessing it has only its share. When there are too many buckets,
the one not used for longest is forgotten: an attacker with many addresses cannot fill the memory.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address, ip_network

from control.api.problems import TooMany

GUARDS = frozenset({"login", "failures"})  # against guessing: divided, whichever of the processes answers
BUCKETS_MAX = 100_000
SITE_BITS = 64  # of an IPv6 address, of which one customer has all that begin alike


@dataclass(frozen=True, slots=True)
class Allowance:
    """`burst` requests at once, and `rate` a second after that."""

    rate: float
    burst: float


CLASSES = {
    "login": Allowance(0.2, 10),
    "costly": Allowance(0.5, 20),  # starts a program, or asks another server
    "failures": Allowance(1, 60),  # requests without a valid secret, per address; valid ones are never held up by it
    "ordinary": Allowance(50, 500),
    "agent": Allowance(20, 200),
    "data": Allowance(500, 5_000),
    "free": Allowance(float("inf"), float("inf")),
}


def caller_of(address: str) -> str:
    """Under which name the requests of an address are counted."""
    try:
        found = ip_address(address)
    except ValueError:
        return address
    if isinstance(found, IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return str(ip_network((found, SITE_BITS), strict=False))
    return address


class Limits:
    """Raises TooMany. `clock` gives seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, factor: float = 1.0, processes: int = 1) -> None:
        self._clock = clock
        self._factor = factor
        self._processes = processes
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

    def _level(self, name: str, caller: str) -> tuple[float, float]:
        allowance, now = CLASSES[name], self._clock()
        share = self._factor / (self._processes if name in GUARDS else 1)
        rate, burst = allowance.rate * share, max(1.0, allowance.burst * share)
        level, since = self._buckets.get((name, caller), (burst, now))
        return min(burst, level + (now - since) * rate) if rate != float("inf") else burst, rate
