"""The values of all metrics of this process, as flat samples: (name, values of the labels) → number.

Of a histogram the samples are those Prometheus sees: a counter for each bucket, with its bound as the last label, and
the sum and count of all. So everything is either a number that is set, or one that only grows and can be added up
with what was counted before, or elsewhere.
"""

from __future__ import annotations

import math
import platform
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from itertools import accumulate
from typing import TYPE_CHECKING

from model import __version__
from pipelines.metrics.catalog import BY_NAME, BY_SAMPLE, CATALOG, FAILURES, PREFIX, Metric
from repository.store.measured import REQUESTS, Requests, Tally

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

Key = tuple[str, tuple[str, ...]]
Samples = dict[Key, float]

SPEED_SECONDS = 10.0  # over which the speed of now is taken


class Values:
    """All samples of one process. Thread-safe. Names are those of the catalog, without ``lox_agent_``."""

    def __init__(self, requests: Requests = REQUESTS) -> None:
        self._lock = threading.Lock()
        self._samples: Samples = {}
        self._requests = requests
        requests.take()  # what was asked before is not of the runs that are counted here
        self._sent: list[tuple[float, float]] = []  # times and bytes sent until then
        for name in ("upload_bytes_total", "download_bytes_total"):
            self.add(name, 0)
        for outcome in FAILURES:
            self.add("store_failures_total", 0, outcome)
        self.put("upload_speed_bytes_per_second", 0)

    def put(self, name: str, value: float, *labels: str) -> None:
        """Set a gauge."""
        metric = _metric(name, "gauge", labels)
        with self._lock:
            if metric.alone:
                for key in [key for key in self._samples if key[0] == metric.name]:
                    del self._samples[key]
            self._samples[metric.name, labels] = float(value)

    def add(self, name: str, amount: float, *labels: str) -> None:
        """Count on; adding 0 makes the series known before anything happens."""
        assert amount >= 0, "a counter never goes back"
        key = _metric(name, "counter", labels).name, labels
        with self._lock:
            self._samples[key] = self._samples.get(key, 0.0) + amount

    def observe(self, name: str, value: float, *labels: str) -> None:
        """One more value of a histogram."""
        metric = _metric(name, "histogram", labels)
        counts = [int(value <= bound) for bound in (*metric.buckets, math.inf)]
        self._add_counts(metric, labels, counts, value)

    def touch(self, name: str, *labels: str) -> None:
        """Make a histogram known before anything happens."""
        metric = _metric(name, "histogram", labels)
        self._add_counts(metric, labels, [0] * (len(metric.buckets) + 1), 0.0)

    def forget(self, job: str, *names: str) -> None:
        """Give up these series of a job, or all of them."""
        full = {PREFIX + name for name in names}
        with self._lock:
            for key in [key for key in self._samples if is_of(job, key) and (not full or key[0] in full)]:
                del self._samples[key]

    def say_nothing_of(self, name: str) -> None:
        """Give up a gauge without labels: whoever joins these values with earlier ones keeps what it was."""
        with self._lock:
            self._samples.pop((_metric(name, "gauge", ()).name, ()), None)

    def beat(self, interval: float, now: float | None = None) -> None:
        """The program shows that it goes on, and says that it will again within `interval` seconds; 0: it ends."""
        now = time.time() if now is None else now
        self.put("heartbeat_timestamp", now)
        self.put("heartbeat_timestamp_seconds", now)
        self.put("heartbeat_interval_seconds", interval)

    def run_by(self, executor: str) -> None:
        """What runs the stages."""
        self.put("build_info", 1, __version__, platform.python_version(), executor)

    def take_requests(self) -> float:
        """Count what was asked of stores since the last call. Returns bytes sent in all."""
        tally: Tally = self._requests.take()
        metric = BY_NAME[PREFIX + "store_request_seconds"]
        for (operation, outcome), spent in tally.requests.items():
            self._add_counts(metric, (operation, outcome), list(accumulate(spent.counts)), spent.seconds)
            if outcome in FAILURES:
                self.add("store_failures_total", sum(spent.counts), outcome)
        self.add("upload_bytes_total", tally.sent)
        self.add("download_bytes_total", tally.received)
        with self._lock:
            return self._samples[PREFIX + "upload_bytes_total", ()]

    def measure_speed(self, now: float) -> None:
        """The speed of the last seconds, by a clock that never goes back."""
        sent = self.take_requests()
        with self._lock:
            self._sent = [(at, count) for at, count in self._sent if now - at <= SPEED_SECONDS] + [(now, sent)]
            first, before = self._sent[0]
        self.put("upload_speed_bytes_per_second", (sent - before) / (now - first) if now > first else 0.0)

    def samples(self) -> Samples:
        """All of them as they are now."""
        self.take_requests()
        with self._lock:
            return _with_ratios(dict(self._samples))

    def registry(self) -> CollectorRegistry:
        """What prometheus_client serves."""
        return registry_of(self.samples)

    def _add_counts(self, metric: Metric, labels: tuple[str, ...], counts: Iterable[int], total: float) -> None:
        """`counts` are cumulative, as Prometheus wants them."""
        bounds = [*map(bound_text, metric.buckets), "+Inf"]
        pairs = [
            ((f"{metric.name}_bucket", (*labels, bound)), float(count))
            for bound, count in zip(bounds, counts, strict=True)
        ]
        pairs += [((f"{metric.name}_sum", labels), total), ((f"{metric.name}_count", labels), pairs[-1][1])]
        with self._lock:
            for key, amount in pairs:
                self._samples[key] = self._samples.get(key, 0.0) + amount


def bound_text(bound: float) -> str:
    """A bound as Prometheus writes it in the label ``le``."""
    return repr(bound)


def label_names(metric: Metric, sample: str) -> tuple[str, ...]:
    """The labels of one of its samples: a bucket has its bound as the last."""
    return (*metric.labels, "le") if sample == f"{metric.name}_bucket" and metric.kind == "histogram" else metric.labels


def is_of(job: str, key: Key) -> bool:
    """Whether this is a sample of that job."""
    return BY_SAMPLE[key[0]].labels[:1] == ("job",) and key[1][0] == job


def merged(before: Mapping[Key, float], added: Mapping[Key, float], said: Mapping[Key, float]) -> Samples:
    """`before` with `added` counted on, and gauges as they are `said` to be now."""
    result = dict(before)
    for (name, labels), value in said.items():
        metric = BY_SAMPLE[name]
        if metric.alone:
            result = {key: kept for key, kept in result.items() if key[0] != name}
        if metric.kind == "gauge":
            result[name, labels] = value
    for key, amount in added.items():
        result[key] = result.get(key, 0.0) + amount
    return _with_ratios(result)


def _with_ratios(samples: Samples) -> Samples:
    """With the ratio of each job as its counters have it; while nothing was new there is none."""
    for (name, labels), unique in list(samples.items()):
        if name == f"{PREFIX}dedup_unique_bytes_total" and unique > 0:
            samples[f"{PREFIX}dedup_ratio", labels] = samples[f"{PREFIX}dedup_logical_bytes_total", labels] / unique
    return samples


def exposition(samples: Samples) -> bytes:
    """The samples in the text format of Prometheus, version 0.0.4."""
    from prometheus_client import generate_latest

    return generate_latest(registry_of(lambda: samples))


def registry_of(read: Callable[[], Samples]) -> CollectorRegistry:
    """A registry of what `read` gives each time it is asked, and of nothing else."""
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import Metric as Family
    from prometheus_client.registry import Collector

    class Reading(Collector):
        """Makes families of the samples when it is asked."""

        def collect(self) -> Iterable[Family]:
            by_metric: dict[str, list[tuple[Key, float]]] = {}
            for key, value in read().items():
                by_metric.setdefault(BY_SAMPLE[key[0]].name, []).append((key, value))
            for metric in CATALOG:
                family = Family(metric.name.removesuffix("_total"), metric.help, metric.kind)
                for (name, labels), value in by_metric.get(metric.name, ()):
                    family.add_sample(name, dict(zip(label_names(metric, name), labels, strict=True)), value)
                if family.samples:
                    yield family

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Reading())
    return registry


def _metric(name: str, kind: str, labels: tuple[str, ...]) -> Metric:
    metric = BY_NAME[PREFIX + name]
    assert metric.kind == kind and len(labels) == len(metric.labels), metric
    return metric
