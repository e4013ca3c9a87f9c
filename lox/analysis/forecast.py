"""How stored bytes have grown, how they will, when a capacity is reached, and what a policy would change.

The history is that of the snapshots that are left: each adds the chunks it is the first to need. Future days are drawn
from past ones, in runs of a week where there are enough, so that weekends stay weekends; each path of the future draws
from its own resample of the past, so that the interval is wider where the past is short.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa

from lox.analysis.history import F64, Places, Source, Spans, by_time, source_of, spans_of
from model.entries import I64
from model.errors import UsageError
from repository.retention import Candidate, Policy, simulate
from repository.snapshot import Snapshot
from repository.tables.parts import Parts, Progress, silent
from repository.tables.view import View

DAY = 86_400 * 10**9  # ns
PATHS = 1000  # futures drawn
WEEK = 7
DAYS_MIN = 3  # with an increment of their own, below which nothing can be said
DAYS_MAX = 36_500
DRAWS = 200  # of what a policy leaves
CURVE_POINTS = 24
SNAPSHOTS_MAX = 400  # of one source that are compared with each other; of more, so many are chosen evenly
BOUNDS = (5.0, 50.0, 95.0)  # percent of the futures

GROWTH_SCHEMA = pa.schema(
    [
        pa.field("snapshot", pa.string()),
        pa.field("time", pa.timestamp("ns", "UTC")),
        pa.field("host", pa.string()),
        pa.field("baseline", pa.bool_()),  # the first of its source
        pa.field("unique_added", pa.int64()),
        pa.field("stored_added", pa.int64()),
        pa.field("stored_total", pa.int64()),
    ]
)
FORECAST_SCHEMA = pa.schema(
    [("day", pa.int64()), ("time", pa.timestamp("ns", "UTC"))]
    + [(name, pa.int64()) for name in ("stored_low", "stored_median", "stored_high")]
)


@dataclass(slots=True)
class Forecast:
    """`days` in `FORECAST_SCHEMA`: between low and high lie nine of ten futures. `full_*` are days from now until
    `capacity` is reached in the fastest 5 %, half and all but 5 % of them; None: not within the days looked at."""

    days: pa.Table
    per_day: float
    capacity: int | None
    full_early: int | None
    full_median: int | None
    full_late: int | None


def growth(view: View, progress: Progress = silent) -> pa.Table:
    """What each snapshot was the first to need, in `GROWTH_SCHEMA`, oldest first. Raises NotFound, Damaged.

    Reads each part of a manifest once; memory: 8 bytes for each chunk of the index.
    """
    snapshots = by_time(view)
    places = Places(view)
    return growth_of(snapshots, places, spans_of(places, Parts(view, snapshots, progress=progress)))


def growth_of(snapshots: Sequence[Snapshot], places: Places, spans: Spans) -> pa.Table:
    """As `growth`, from what is known already."""
    length, stored = places.weights()
    needed = spans.first >= 0
    unique = np.bincount(spans.first[needed], weights=length[needed], minlength=len(snapshots))
    added = np.bincount(spans.first[needed], weights=stored[needed], minlength=len(snapshots))
    met: set[Source] = set()
    baseline = []
    for one in snapshots:
        baseline.append(source_of(one) not in met)
        met.add(source_of(one))
    columns = [
        [one.id for one in snapshots],
        pa.array([one.time for one in snapshots], pa.timestamp("ns", "UTC")),
        [one.host for one in snapshots],
        baseline,
        np.round(unique).astype(np.int64),
        np.round(added).astype(np.int64),
        np.round(np.cumsum(added)).astype(np.int64),
    ]
    return pa.table([pa.array(column) for column in columns], schema=GROWTH_SCHEMA)


def daily_growth(grown: pa.Table) -> F64:
    """Stored bytes added on each day from the first to the last, first backups of a source left out.

    Raises UsageError if there are not enough days to say anything.
    """
    day = grown["time"].cast(pa.int64()).to_numpy() // DAY
    added = np.where(grown["baseline"].to_numpy(), 0, grown["stored_added"].to_numpy())
    days: F64 = np.bincount(day - day.min(), weights=added).astype(np.float64)
    days = days[1:]  # the first day has the first backup
    if len(np.unique(day[~grown["baseline"].to_numpy()])) < DAYS_MIN:
        raise UsageError(
            "the history is too short for a forecast", why=f"less than {DAYS_MIN} days with a further backup"
        )
    return days


def forecast(
    grown: pa.Table, now_stored: int, now: int, days: int = 365, capacity: int | None = None, seed: int = 0
) -> Forecast:
    """The next `days` after `now` (ns since the epoch), when the store has `now_stored` bytes, if nothing is forgotten.

    `grown` is in `GROWTH_SCHEMA`. Raises UsageError for a history that is too short.
    """
    history = daily_growth(grown)
    if not 0 < days <= DAYS_MAX:
        raise UsageError("a forecast looks 1 to 36,500 days ahead", subject=str(days))
    futures = now_stored + draw(history, days, np.random.default_rng(seed))
    bounds = np.round(np.percentile(futures, BOUNDS, axis=0)).astype(np.int64)
    numbers = np.arange(1, days + 1)
    times = pa.array(now + numbers * DAY, pa.timestamp("ns", "UTC"))
    table = pa.table([pa.array(numbers), times, *map(pa.array, bounds)], schema=FORECAST_SCHEMA)
    full = [None if capacity is None else _reached(futures, capacity, share, now_stored) for share in BOUNDS]
    return Forecast(table, float(history.mean()), capacity, *full)


def draw(history: F64, days: int, rng: np.random.Generator) -> F64:
    """`PATHS` futures of `days` days each: what was added in all up to each day."""
    block = WEEK if len(history) >= 3 * WEEK else 1
    starts = len(history) - block + 1
    futures = np.empty((PATHS, days), np.float64)
    for path in range(PATHS):
        own = rng.integers(0, starts, max(2, starts // block))  # its view of the past
        chosen = rng.choice(own, -(-days // block))
        increments = history[(chosen[:, None] + np.arange(block)).ravel()[:days]]
        np.cumsum(increments, out=futures[path])
    return futures


def _reached(futures: F64, capacity: int, percent: float, now_stored: int) -> int | None:
    """The day by which `percent` of the futures have reached `capacity`."""
    if now_stored >= capacity:
        return 0
    reached = futures >= capacity
    day = np.where(reached.any(axis=1), reached.argmax(axis=1) + 1, futures.shape[1] + 1)
    which = int(np.sort(day)[int(np.ceil(percent / 100 * len(day))) - 1])
    return which if which <= futures.shape[1] else None


@dataclass(frozen=True, slots=True)
class Kept:
    """What a policy would leave after some days: snapshots, and stored bytes with the interval of nine of ten draws."""

    policy: Policy
    snapshots: int
    stored_low: int
    stored_median: int
    stored_high: int


class Retention:
    """How much the older ones of kept snapshots cost: what they need that the next newer kept one does not.

    Taken as if each chunk were needed from its first to its last snapshot: then what a set of snapshots of one source
    needs is the newest, and for each older one what has gone until the next. How much goes in how many days is measured
    on all pairs of snapshots there are.
    """

    def __init__(self, view: View, progress: Progress = silent) -> None:
        """Reads each part of a manifest once for each source. Raises NotFound, Damaged."""
        self.snapshots = by_time(view)
        places = Places(view)
        _, stored = places.weights()
        self._sources: dict[Source, _Turnover] = {}
        self._shared = 1.0  # what all sources need together, of the sum of what each needs
        by_source: dict[Source, list[Snapshot]] = {}
        anyone = np.zeros(places.rows, dtype=bool)
        for one in self.snapshots:
            by_source.setdefault(source_of(one), []).append(one)
        for source, everyone in by_source.items():
            some = _thinned(everyone)
            spans = spans_of(places, Parts(view, some, progress=progress))
            needed = spans.first >= 0
            anyone |= needed
            cell = spans.first[needed].astype(np.int64) * len(some) + spans.last[needed]
            table = np.bincount(cell, weights=stored[needed], minlength=len(some) ** 2).astype(np.float64)
            self._sources[source] = _Turnover(some, table.reshape(len(some), len(some)))
        everything = self.held({one.id for one in self.snapshots})
        self._shared = float(stored[anyone].sum()) / everything if everything else 1.0

    def held(self, ids: set[str]) -> float:
        """Stored bytes that the snapshots of these ids need, by this model. Sources share as much as they do now."""
        return self._shared * sum(turnover.needed(ids) for turnover in self._sources.values())

    def after(
        self, candidates: Sequence[Candidate], policy: Policy, now: int, days: int, every: int, seed: int = 0
    ) -> Kept:
        """What `policy` leaves after `days` of backups each `every` ns from `now`. Raises UsageError."""
        times = range(now, now + days * DAY + 1, every)
        rng = np.random.default_rng(seed)
        totals: F64 = np.zeros(DRAWS)
        count = 0
        for one in simulate(candidates, policy, times):
            kept = sorted(decision.candidate.time for decision in one.group.decisions if decision.keep)
            count += len(kept)
            source = one.group.decisions[0].candidate.source
            if source in self._sources:
                totals += self._sources[source].future(kept, now, rng)
        low, median, high = (round(value) for value in np.percentile(self._shared * totals, BOUNDS).tolist())
        return Kept(policy, count, low, median, high)


def _thinned(snapshots: list[Snapshot]) -> list[Snapshot]:
    """At most `SNAPSHOTS_MAX` of them, the first and the last among them."""
    if len(snapshots) <= SNAPSHOTS_MAX:
        return snapshots
    return [snapshots[at] for at in np.linspace(0, len(snapshots) - 1, SNAPSHOTS_MAX).round().astype(int)]


class _Turnover:
    """Of the n snapshots of one source: `table[i, j]` stored bytes are needed from snapshot i to snapshot j."""

    def __init__(self, snapshots: Sequence[Snapshot], table: F64) -> None:
        self._ids = [one.id for one in snapshots]
        self._times: I64 = np.array([one.time for one in snapshots], np.int64)
        n = len(snapshots)
        ends = table[:, ::-1].cumsum(axis=1)[:, ::-1]  # first i, last j or later
        alive = ends.cumsum(axis=0)  # first up to i, last j or later
        self._size = alive[np.arange(n), np.arange(n)]
        self._of, later = np.triu_indices(n, 1)
        self._gap: F64 = (self._times[later] - self._times[self._of]) / DAY
        self._gone: F64 = self._size[self._of] - alive[self._of, later]
        self._alive = alive

    def needed(self, ids: set[str]) -> float:
        """What the snapshots of these ids need together."""
        kept = [at for at, one in enumerate(self._ids) if one in ids]
        if not kept:
            return 0.0
        gone = sum(self._size[a] - self._alive[a, b] for a, b in pairwise(kept))
        return float(self._size[kept[-1]] + gone)

    def future(self, kept: Sequence[int], now: int, rng: np.random.Generator) -> F64:
        """`DRAWS` draws of what snapshots of these times (ns since the epoch, ascending) need together."""
        gaps = np.diff(np.array(kept, np.float64)) / DAY
        ahead = (kept[-1] - self._times[-1]) / DAY if kept else 0.0
        slopes = self._slopes(rng)
        totals = np.empty(DRAWS)
        starts = np.unique(self._of)
        for path in range(DRAWS):
            own = rng.choice(starts, len(starts)) if len(starts) else starts
            weights = np.bincount(own, minlength=len(self._times))[self._of].astype(np.float64)
            newest = max(0.0, self._size[-1] + slopes[path] * max(0.0, ahead))
            totals[path] = newest + _at(self._gap, self._gone, weights, gaps).sum()
        return totals

    def _slopes(self, rng: np.random.Generator) -> F64:
        """`DRAWS` guesses how much the newest snapshot grows in a day: of lines through resampled sizes. Their middle
        is moved toward none as far as it could be by chance: the line is drawn far beyond what it was laid through.
        """
        days, n = (self._times - self._times[-1]) / DAY, len(self._times)
        slopes = np.array([_slope(days, self._size, rng.integers(0, n, n)) for _ in range(DRAWS)])
        middle, spread = float(slopes.mean()), float(slopes.std())
        sure = max(0.0, 1.0 - (spread / middle) ** 2) if middle else 0.0
        moved: F64 = slopes - middle * (1.0 - sure)
        return moved


def _slope(x: F64, y: F64, which: I64) -> float:
    """Of the straight line through some points, by least squares."""
    x, y = x[which], y[which]
    spread = float(((x - x.mean()) ** 2).sum())
    return float(((x - x.mean()) * (y - y.mean())).sum()) / spread if spread else 0.0


def _at(gap: F64, gone: F64, weights: F64, wanted: F64) -> F64:
    """Bytes gone after `wanted` days, from weighted pairs of days and bytes: their mean in bins whose width grows,
    straight lines between, and beyond the longest in proportion to the last slope."""
    used = weights > 0
    if not used.any() or not len(wanted):
        return np.zeros(len(wanted))
    gap, gone, weights = gap[used], gone[used], weights[used]
    edges = np.geomspace(max(gap.min(), 1e-3), gap.max() * 1.001 + 1e-3, CURVE_POINTS)
    which = np.digitize(gap, edges)
    total = np.bincount(which, weights=weights, minlength=CURVE_POINTS + 1)
    filled = total > 0
    x = np.bincount(which, weights=weights * gap, minlength=CURVE_POINTS + 1)[filled] / total[filled]
    y = np.bincount(which, weights=weights * gone, minlength=CURVE_POINTS + 1)[filled] / total[filled]
    x, y = np.concatenate([[0.0], x]), np.maximum.accumulate(np.concatenate([[0.0], y]))
    slope = (y[-1] - y[len(y) // 2]) / max(x[-1] - x[len(x) // 2], 1e-9)
    found: F64 = np.interp(wanted, x, y) + slope * np.maximum(0.0, wanted - x[-1])
    return found
