"""What the commands that look at a sample have in common: where it is drawn from, and how much of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import click

from lox.settings import option, stacked
from lox.types import BytesType, SecondsType, SizeType

if TYPE_CHECKING:
    from sources.files.scan import ScanOptions

MIB = 1 << 20
SAMPLE_SECTION = "The sample"


def sample_options(size: str, seconds: float) -> Callable[[Callable[..., Any]], Any]:
    """Adds --sample-bytes, --time, --seed and --exclude, with these defaults."""
    return stacked(
        option("--sample-bytes", type=SizeType(MIB), metavar="SIZE", default=size, show_default=True,
               section=SAMPLE_SECTION, help="How much content is drawn at most."),
        option("--time", "seconds", type=SecondsType(), metavar="TIME", default=f"{seconds:.0f}s", show_default=True,
               section=SAMPLE_SECTION, help="After how long no more of it is read; 0s: all of it is."),
        option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True,
               section=SAMPLE_SECTION, help="Draw another sample."),
        option("--exclude", "excludes", multiple=True, metavar="PATTERN", type=BytesType(), section=SAMPLE_SECTION,
               help="Of files on disk: leave out what matches, as 'lox backup' does."),
    )  # fmt: skip


def scan_options(excludes: Iterable[bytes]) -> ScanOptions:
    """What a scan for a sample leaves out."""
    from sources.files.scan import ScanOptions

    return ScanOptions(excludes=tuple(excludes))
