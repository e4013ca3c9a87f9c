"""When a job is due: cron expressions in a time zone, as Debian's cron understands them.

The agent decides when a run begins; the server computes the same times to show them and to notice that a run is
overdue. Times in an hour that summer time skips run right after it; times in the hour it repeats run once.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from functools import lru_cache
from itertools import islice
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

FIELDS = "minute hour day-of-month month day-of-week, as in 0 2 * * *"


class InvalidSchedule(ValueError):
    """An expression or a time zone that nothing can be made of; says why and, where it can, how it is meant."""


@lru_cache(maxsize=256)
def zone_of(name: str) -> ZoneInfo:
    """The time zone called `name`. Raises InvalidSchedule."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise InvalidSchedule(f"there is no time zone {name!r}; one is called Europe/Berlin, for instance") from error


def check_schedule(expression: str, zone: str) -> None:
    """Raise InvalidSchedule unless `expression` has a time to run in `zone`."""
    next(_times(expression, zone, datetime.now(UTC)))


def explain(expression: str, zone: str) -> str:
    """The schedule in words: ``At 02:00 every day``."""
    return CronSim(expression, datetime.now(zone_of(zone))).explain()


def next_times(expression: str, zone: str, after: datetime, count: int) -> list[datetime]:
    """The next `count` times after `after`, in UTC; fewer if there are no more within 50 years."""
    return list(islice(_all_times(expression, zone, after), count))


def next_time(expression: str, zone: str, after: datetime) -> datetime | None:
    """The next time after `after`, in UTC; None if there is none within 50 years."""
    return next(_all_times(expression, zone, after), None)


def _all_times(expression: str, zone: str, after: datetime) -> Iterator[datetime]:
    try:
        yield from _times(expression, zone, after)
    except InvalidSchedule:
        return


def _times(expression: str, zone: str, after: datetime) -> Iterator[datetime]:
    where = zone_of(zone)
    if len(expression.split()) == 6:
        raise InvalidSchedule(f"{expression!r} has six: there are five fields, {FIELDS}")  # CronSim takes seconds
    try:
        times = CronSim(expression, after.astimezone(where))
    except CronSimError as error:
        raise InvalidSchedule(f"{_in_words(str(error), expression)}: there are five fields, {FIELDS}") from error
    found = False
    for time in times:
        found = True
        yield time.astimezone(UTC)
    if not found:
        raise InvalidSchedule(f"{expression!r} never comes within the next 50 years")


def _in_words(trouble: str, expression: str) -> str:
    if expression.startswith("@"):
        return f"{expression!r} is no nickname that is understood, as @daily is"
    return trouble[:1].lower() + trouble[1:]
