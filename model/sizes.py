"""Sizes as people write them: ``64KiB``, ``1.5G``, ``10MB``, ``4096``."""

from __future__ import annotations

import re

_NUMBER = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?|\.[0-9]+)\s*([a-zA-Z]*)\s*\Z")
_POWER = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5, "e": 6}
SIZE_LIMIT = 1 << 63


def parse_size(text: str) -> int:
    """Bytes in ``64KiB``, ``1M`` (= MiB), ``10MB`` (= 10**7), ``1.5g`` or ``4096``.

    Raises ValueError with a sentence for the user.
    """
    match = _NUMBER.match(text)
    if match is None:
        raise ValueError(f"{text!r} is not a size; write for example 4096, 64KiB, 1.5G or 10MB")
    number, suffix = match.group(1), match.group(2).lower()
    power = _power_of(suffix)
    if power is None:
        raise ValueError(f"{match.group(2)!r} is not a unit of size; use KiB, MiB, GiB, TiB or kB, MB, GB, TB")
    # Whole numbers stay integers: 8 EiB minus one byte must not pass through a float.
    size = int(number) * power if number.isdigit() else round(float(number) * power)
    if size >= SIZE_LIMIT:
        raise ValueError(f"{text!r} is larger than any file can be")
    return size


def _power_of(suffix: str) -> int | None:
    """Bytes in one unit, or None. A bare letter means the power of two, as in dd(1) and restic."""
    letter, rest = suffix[:1], suffix[1:]
    if suffix in ("", "b"):
        return 1
    if letter not in _POWER:
        return None
    if rest in ("", "i", "ib"):
        return int(1024 ** _POWER[letter])
    return int(1000 ** _POWER[letter]) if rest == "b" else None


def write_size(size: int) -> str:
    """`size` bytes so that `parse_size` reads just them: in the largest binary unit that divides them."""
    for unit, letters in ((40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")):
        if size and size % (1 << unit) == 0:
            return f"{size >> unit}{letters}"
    return f"{size}B"
