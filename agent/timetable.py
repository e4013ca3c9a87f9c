"""When a job is due: a cron expression in a time zone, and a delay of its own for each time, so that hosts spread."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice, pairwise, takewhile
from uuid import UUID
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from model.errors import UsageError

JITTER_MAX = 24 * 3600  # seconds
LOOK_BACK = 3000  # times of one job that are looked at, at most: a day of every minute, twice


@dataclass(frozen=True, slots=True)
class Timetable:
    """When one job is due. Times are seconds since 1970. Raises UsageError for what cannot be read.

    `missed`: "run_once" makes up for what was missed by one run, "skip" does not. `overlap`: what is to become of a
    time at which the job still runs: "skip", or "queue" for right after.
    """

    job: UUID
    cron: str
    zone: str = "UTC"
    jitter: int = 0
    missed: str = "run_once"
    overlap: str = "skip"

    def __post_init__(self) -> None:
        try:
            ZoneInfo(self.zone)
            CronSim(self.cron, datetime.now(UTC))
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise UsageError(
                "there is no such time zone", subject=self.zone, hint="write Europe/Berlin, UTC"
            ) from error
        except CronSimError as error:
            raise UsageError("not a cron expression", subject=self.cron, why=str(error).lower()) from error

    @property
    def fingerprint(self) -> str:
        """What says when: if it changed, nothing was missed under the new one yet."""
        return f"{self.cron} {self.zone}"

    def delay(self, due: float) -> float:
        """Seconds after `due` at which to begin: the same each time it is asked, another for each job and time."""
        if not self.jitter:
            return 0.0
        digest = hashlib.sha256(self.job.bytes + str(int(due)).encode()).digest()
        return int.from_bytes(digest[:6]) / 2**48 * min(self.jitter, JITTER_MAX)

    def newest(self, after: float, now: float) -> float | None:
        """The newest time after `after` whose moment has come by `now`."""
        times = takewhile(lambda due: due > after, self._times(now, reverse=True))
        return next((due for due in islice(times, LOOK_BACK) if due + self.delay(due) <= now), None)

    def next(self, after: float, now: float) -> float | None:
        """When the next moment comes, delay included; None if there is none. Looks at times after `after`."""
        begin = max(after, now - self.jitter)
        moments = (due + self.delay(due) for due in islice(self._times(begin), LOOK_BACK))
        return next((moment for moment in moments if moment > now), None)

    def interval(self, now: float) -> float | None:
        """The longest time between two of the next moments, in seconds: how often the job is to succeed."""
        times = list(islice(self._times(now), 10))
        return max((after - before for before, after in pairwise(times)), default=None)

    def _times(self, begin: float, reverse: bool = False) -> Iterator[float]:
        # One second on: going back, the simulation leaves out the moment at which it begins.
        start = datetime.fromtimestamp(begin + (1 if reverse else 0), ZoneInfo(self.zone))
        try:
            for moment in CronSim(self.cron, start, reverse=reverse):
                seconds = moment.timestamp()
                if not reverse or seconds <= begin:
                    yield seconds
        except (CronSimError, OverflowError, OSError):
            return
