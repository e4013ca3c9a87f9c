"""How many requests this process answered, and how fast."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Histogram

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1, 2.5, 10, 60)


class Requests:
    """Labels have few values: routes by their pattern, statuses by their first digit."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._seconds = Histogram(
            "lox_server_request_seconds",
            "Requests that this process answered, and how long that took",
            ["method", "route", "status"],
            buckets=BUCKETS,
            registry=self.registry,
        )

    def count(self, method: str, route: str, status: int, seconds: float) -> None:
        """One request. `route` is empty for paths that there are not."""
        known = method if method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE") else "other"
        self._seconds.labels(known, route or "none", f"{status // 100}xx").observe(seconds)
