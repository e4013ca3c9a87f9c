"""Rates and when they hold: ``50Mbit``, ``10MiB``, ``08:00-18:00 50Mbit, 20:00-06:00 unlimited, 200Mbit``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from model.errors import UsageError

_BYTES = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}  # of a bare letter and of KiB, MiB, GiB
_THOUSANDS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}
_RATE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmg]?)(bit|bps|ib|b|)(?:/s)?")
_WINDOW = re.compile(r"(\d\d?):(\d\d)\s*-\s*(\d\d?):(\d\d)\s+(\S.*)")
_DAY = 24 * 60
_LEAST = 1024.0  # bytes a second; slower than this no backup ends
_HINT = "write for example 50Mbit, 10MiB, or '08:00-18:00 50Mbit, 200Mbit'"


@dataclass(frozen=True, slots=True)
class Window:
    """From `start` to before `end`, in minutes since midnight; over midnight if `end` is not after `start`."""

    start: int
    end: int
    rate: float | None  # bytes a second; None: unlimited

    def holds(self, minute: int) -> bool:
        """Whether it is open at this minute of the day."""
        if self.start < self.end:
            return self.start <= minute < self.end
        return minute >= self.start or minute < self.end


@dataclass(frozen=True, slots=True)
class Limit:
    """The first window that is open decides, else `base`."""

    windows: tuple[Window, ...] = ()
    base: float | None = None

    def rate_at(self, minute: int) -> float | None:
        """Bytes a second at this minute of the day; None: unlimited."""
        for window in self.windows:
            if window.holds(minute):
                return window.rate
        return self.base


def parse_limit(text: str) -> Limit:
    """Raises UsageError for what makes no sense, zero included: whoever wants no limit writes ``unlimited``."""
    windows, bases = list[Window](), list[float | None]()
    for item in text.split(","):
        found = _WINDOW.fullmatch(item.strip())
        if found is None:
            bases.append(_rate(item, text))
            continue
        hours = [int(number) for number in found.groups()[:4]]
        start, end = hours[0] * 60 + hours[1], hours[2] * 60 + hours[3]
        if hours[1] > 59 or hours[3] > 59 or start >= _DAY or end > _DAY:
            raise UsageError("not a time of day", subject=item.strip(), hint=_HINT)
        windows.append(Window(start, end, _rate(found[5], text)))
    if len(bases) > 1:
        raise UsageError("more than one rate without a time", subject=text, hint=_HINT)
    return Limit(tuple(windows), bases[0] if bases else None)


def _rate(item: str, text: str) -> float | None:
    word = item.strip().lower()
    if word == "unlimited":
        return None
    found = _RATE.fullmatch(word)
    if found is None:
        raise UsageError("not a rate", subject=text, hint=_HINT)
    number, letter, unit = float(found[1]), found[2], found[3]
    if unit in ("bit", "bps"):
        rate = number * _THOUSANDS[letter] / 8
    else:
        rate = number * (_THOUSANDS if letter and unit == "b" else _BYTES)[letter]
    if rate < _LEAST:
        raise UsageError("the limit is too low", subject=text, hint="at least 1KiB; for none write unlimited")
    return rate
