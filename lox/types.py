"""Kinds of command-line values: byte paths, sizes, compression, percentages."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Any

import click

from model.sizes import parse_size

_SPAN = re.compile(r"(?:(\d{1,6})w)?(?:(\d{1,6})d)?(?:(\d{1,6})h)?(?:(\d{1,6})m)?|0", re.ASCII)
_SECONDS = re.compile(r"(\d{1,6})([smh])", re.ASCII)

CODEC_LEVELS = {"zstd": (-7, 19), "lz4": (0, 12), "gzip": (1, 9), "none": None}


class BytesType(click.ParamType[Any]):
    """Text from the command line as the bytes the user gave, whatever the locale."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> bytes:
        raw = value if isinstance(value, bytes) else os.fsencode(value)
        if b"\0" in raw:
            self.fail("holds a NUL byte", param, ctx)
        return raw


class SizeType(click.ParamType[Any]):
    """``64KiB``, ``1.5G``, ``10MB``, ``4096`` → bytes; at least `least`."""

    name = "size"

    def __init__(self, least: int = 0) -> None:
        self.least = least

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            size = parse_size(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if size < self.least:
            self.fail(f"{value!r} is too small; at least {self.least >> 20} MiB are needed", param, ctx)
        return size


class RateType(click.ParamType[Any]):
    """``50Mbit``, ``08:00-18:00 50Mbit, 200Mbit`` or ``@FILE``; stays text, it is only checked here."""

    name = "rate"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from model.errors import UsageError
        from repository.store.throttled import Bucket

        try:
            Bucket(value)
        except UsageError as error:
            self.fail(f"{error}; {error.hint}", param, ctx)
        return str(value)


class PercentType(click.ParamType[Any]):
    """``5%`` or ``2.5`` → a fraction in (0, 1]."""

    name = "percent"
    least = 0.0  # percent; more than this

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        try:
            percent = float(value.strip().removesuffix("%"))
        except ValueError:
            percent = -1.0  # told below
        if not self.least < percent <= 100.0:
            bounds = "above 0 and up to 100" if self.least == 0.0 else "from 0 to 100"
            self.fail(f"{value!r} is not a percentage {bounds}; write for example 5%", param, ctx)
        return percent / 100.0


class UpToType(PercentType):
    """As `PercentType`, and nothing at all is fine as well: ``0%``."""

    least = -1e-9


class SpanType(click.ParamType[Any]):
    """``2w``, ``7d``, ``1d12h``, ``0`` → ns."""

    name = "span"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        match = _SPAN.fullmatch(value.strip())
        if match is None or not value.strip():
            self.fail(f"{value!r} is not a span of time; write for example 7d, 12h, 2w or 0", param, ctx)
        weeks, days, hours, minutes = (int(number or 0) for number in match.groups())
        return (((weeks * 7 + days) * 24 + hours) * 60 + minutes) * 60 * 10**9


class SecondsType(click.ParamType[Any]):
    """``90s``, ``2m``, ``1h`` → seconds; at least `least`."""

    name = "seconds"

    def __init__(self, least: float = 0.0) -> None:
        self.least = least

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        match = _SECONDS.fullmatch(str(value).strip())
        if match is None:
            self.fail(f"{value!r} is not a time; write for example 90s, 2m or 1h", param, ctx)
        seconds = int(match[1]) * {"s": 1.0, "m": 60.0, "h": 3600.0}[match[2]]
        if seconds < self.least:
            self.fail(f"{value!r} is too short; at least {self.least:.0f}s are needed", param, ctx)
        return seconds


class ShareType(PercentType):
    """``5%``, or ``1/30`` → a fraction in (0, 1]."""

    name = "share"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        parts = value.split("/") if isinstance(value, str) else []
        if len(parts) != 2:
            return super().convert(value, param, ctx)
        if not all(part.isascii() and part.isdigit() and len(part) < 10 for part in parts):
            self.fail(f"{value!r} is no share; write for example 5% or 1/30", param, ctx)
        above, below = map(int, parts)
        if not 0 < above <= below:
            self.fail(f"{value!r} is not above 0 and up to 1", param, ctx)
        return above / below


@dataclass(frozen=True, slots=True)
class Compression:
    """A codec and its level; None leaves the level to the codec."""

    codec: str
    level: int | None = None


class CompressionType(click.ParamType[Any]):
    """``zstd``, ``zstd:9``, ``lz4``, ``gzip:6``, ``none``."""

    name = "codec[:level]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Compression:
        if isinstance(value, Compression):
            return value
        codec, colon, level = value.partition(":")
        if codec not in CODEC_LEVELS:
            self.fail(f"{codec!r} is not a codec; use {', '.join(CODEC_LEVELS)}", param, ctx)
        if not colon:
            return Compression(codec)
        bounds = CODEC_LEVELS[codec]
        if bounds is None:
            self.fail(f"{codec} has no level", param, ctx)
        try:
            number = int(level)
        except ValueError:
            self.fail(f"{level!r} is not a level; {codec} has {bounds[0]} to {bounds[1]}", param, ctx)
        if not bounds[0] <= number <= bounds[1]:
            self.fail(f"{codec} has no level {number}; use {bounds[0]} to {bounds[1]}", param, ctx)
        return Compression(codec, number)
