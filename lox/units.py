"""Sizes, rates, durations and times as people write and read them.

Text output counts in powers of two (``1.5 MiB``). ``LOX_UNITS`` changes that: ``iec`` (default), ``si`` (``1.6 MB``)
or ``raw`` (bytes, for scripts that refuse JSON). `model.sizes` reads all of them, whatever ``LOX_UNITS`` says.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from datetime import UTC, datetime

_IEC = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_SI = ("B", "kB", "MB", "GB", "TB", "PB", "EB")
# Size and name of each unit, and from which number of bytes on the next one is used: 999.5 would have four digits.
_SCALES = {
    system: ([float(base**step) for step in range(7)], names, [999.5 * base**step for step in range(6)])
    for system, base, names in (("iec", 1024, _IEC), ("si", 1000, _SI))
}


def units() -> str:
    """The unit system of text output: ``iec``, ``si`` or ``raw``; anything else in ``LOX_UNITS`` counts as ``iec``."""
    wanted = os.environ.get("LOX_UNITS", "iec").strip().lower()
    return wanted if wanted in ("iec", "si", "raw") else "iec"


def format_size(size: float, system: str | None = None) -> str:
    """``1.50 MiB``: three digits that count, and never a digit more than is known of whole bytes.

    `system` is what `units` gave, for those who write thousands.
    """
    system = system or units()
    if system == "raw":
        return str(round(size))
    bases, names, ends = _SCALES["si" if system == "si" else "iec"]
    step = bisect_right(ends, abs(size))
    if step == 0:
        return f"{round(size)} B"
    value = size / bases[step]
    if (much := abs(value)) < 9.995:
        return f"{value:.2f} {names[step]}"
    return f"{value:.1f} {names[step]}" if much < 99.95 else f"{value:.0f} {names[step]}"


def format_rate(bytes_per_second: float) -> str:
    """``512 MiB/s``."""
    return f"{format_size(bytes_per_second)}/s"


def format_count(number: int) -> str:
    """``118,000``."""
    return f"{number:,}"


def plural(number: int, noun: str, many: str = "") -> str:
    """``1 file``, ``2,000 files``."""
    return f"{number:,} {noun if number == 1 else many or noun + 's'}"


def format_share(part: float, whole: float) -> str:
    """Part of whole in percent: ``4.2 %``, never ``100 %`` or ``0 %`` unless it is exactly that."""
    if whole <= 0:
        return "100 %" if part > 0 else "0 %"
    share = 100.0 * part / whole
    if share in (0.0, 100.0):
        return f"{share:.0f} %"
    if 0.0 < share < 10.0:
        return f"{max(share, 0.1):.1f} %"
    return f"{min(share, 99.0) if share < 100.0 else share:.0f} %"


def format_seconds(seconds: float) -> str:
    """A duration: ``0.42 s``, ``12.3 s``, ``3:05 min``, ``2:03:09 h``, ``3 d 04 h``."""
    if seconds < 10:
        return f"{max(seconds, 0.0):.2f} s"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d} min"
    if whole < 86400:
        return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d} h"
    return f"{whole // 86400} d {whole // 3600 % 24:02d} h"


def format_clock(seconds: float) -> str:
    """A countdown: ``0:42``, ``3:05``, ``2:03:09``, ``3 d 04 h``."""
    whole = max(0, round(seconds))
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d}"
    if whole < 86400:
        return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
    return f"{whole // 86400} d {whole // 3600 % 24:02d} h"


def format_time(time_ns: int) -> str:
    """Local time to the second: ``2026-11-23 04:11:36``; times no calendar holds are shown as seconds since 1970."""
    try:
        return datetime.fromtimestamp(time_ns // 1_000_000_000).isoformat(" ")
    except (ValueError, OverflowError, OSError):
        return f"@{time_ns // 1_000_000_000}"


def rfc3339(time_ns: int) -> str | None:
    """UTC time for JSON with its nanoseconds, ``2026-11-23T04:11:36.123456789Z``; None for times no calendar holds."""
    seconds, nanoseconds = divmod(time_ns, 1_000_000_000)
    try:
        stamp = datetime.fromtimestamp(seconds, UTC).isoformat()[
            :19
        ]  # without the offset; many times as fast as strftime
    except (ValueError, OverflowError, OSError):
        return None
    return f"{stamp}.{nanoseconds:09d}Z" if nanoseconds else f"{stamp}Z"
