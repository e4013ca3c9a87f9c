"""A run over time: what its trace gained second by second, within bounded memory however long it takes.

For each interval and stage ``busy + starved + blocked == seconds * lanes``, and all intervals together hold every item
and byte and ``wall * lanes`` seconds: nothing is sampled, everything is a difference. A call that is under way in
another process is not known of until it is over; then it counts in the interval in which it ended, as far as that has
room.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from runtime.trace import StageTrace, Trace

F64 = npt.NDArray[np.float64]

SECONDS = 1.0
INTERVALS = 4096  # at most; when there are as many, neighbours are joined, and intervals are twice as long from then on
COUNTS = ("items_in", "items_out", "bytes_in", "bytes_out")
TIMES = ("busy", "starved", "blocked")


@dataclass(frozen=True, slots=True)
class Interval:
    """What happened from `begin` on, seconds after the run began, for so many `seconds`; a row of `values` a stage.

    Columns: `COUNTS` (items and bytes), then `TIMES` (seconds).
    """

    begin: float
    seconds: float
    values: F64


class Timeline:
    """The intervals of one run; feed it with `tick`. Stages may be added behind those that are known."""

    def __init__(self, seconds: float = SECONDS, intervals: int = INTERVALS) -> None:
        assert intervals >= 2 and intervals % 2 == 0
        self.stages: tuple[StageTrace, ...] = ()  # names, strands and lanes; the numbers are the newest totals
        self._step = seconds
        self._most = intervals
        self._wall = 0.0
        self._known = np.zeros((0, len(COUNTS) + len(TIMES)))  # what the intervals so far add up to
        self._ends: list[float] = []
        self._values = np.zeros((0, 0, 0))

    def __len__(self) -> int:
        return len(self._ends)

    def tick(self, trace: Trace, last: bool = False) -> bool:
        """Take in the state of the run; True if that made a new interval. `last` makes one of whatever there is."""
        passed = trace.wall - self._wall
        if passed < self._step and not (last and passed > 0):
            return False
        self._begin(trace)
        self._append(_gained(trace, self._known, passed))
        self._wall = trace.wall
        self._ends.append(trace.wall)
        if len(self._ends) == self._most:
            self._join()
        return True

    def intervals(self) -> Iterator[Interval]:
        """All intervals, oldest first."""
        begin = 0.0
        for number, end in enumerate(self._ends):
            yield Interval(begin, end - begin, self._values[number])
            begin = end

    def latest(self) -> Interval | None:
        """The newest interval."""
        if not self._ends:
            return None
        begin = self._ends[-2] if len(self._ends) > 1 else 0.0
        return Interval(begin, self._ends[-1] - begin, self._values[len(self._ends) - 1])

    def _begin(self, trace: Trace) -> None:
        if not self.stages:
            self._values = np.zeros((16, *self._known.shape))
        if (new := len(trace.stages) - len(self._known)) > 0:
            self._grow(new, [float(line.lanes) for line in trace.stages[-new:]])
        self.stages = trace.stages

    def _grow(self, new: int, lanes: list[float]) -> None:
        """Stages are known from now on that were not before: until now they were starved."""
        self._known = np.pad(self._known, ((0, new), (0, 0)))
        self._values = np.pad(self._values, ((0, 0), (0, new), (0, 0)))
        count, starved = len(self._ends), len(COUNTS) + TIMES.index("starved")
        self._values[:count, -new:, starved] = np.outer(np.diff(self._ends, prepend=0.0), lanes)
        self._known[-new:, starved] = self._wall * np.array(lanes)

    def _append(self, gained: F64) -> None:
        count = len(self._ends)
        if count == len(self._values):
            self._values = np.concatenate([self._values, np.zeros_like(self._values)])
        self._values[count] = gained
        self._known += gained

    def _join(self) -> None:
        count = len(self._ends)
        self._values = self._values[:count].reshape(count // 2, 2, *self._known.shape).sum(axis=1)
        self._ends = self._ends[1::2]
        self._step *= 2


def _gained(trace: Trace, known: F64, passed: float) -> F64:
    """What was gained since `known`, nothing of it negative, and the times of each stage adding up to all there was.

    What turns out to have been something else (a call that was under way unseen was taken for waiting) is made good
    in this interval, and what it cannot hold of that in the next ones: work first, then blocked.
    """
    rows = [[getattr(line, name) for name in (*COUNTS, *TIMES)] for line in trace.stages]
    gained = np.maximum(np.array(rows, dtype=np.float64) - known, 0.0)
    whole = np.array([passed * line.lanes for line in trace.stages])
    busy, starved, blocked = (gained[:, len(COUNTS) + place] for place in range(len(TIMES)))
    np.minimum(busy, whole, out=busy)
    np.minimum(blocked, whole - busy, out=blocked)
    starved[:] = whole - busy - blocked
    np.maximum(starved, 0.0, out=starved)  # a rounding below nothing
    return gained
