"""What the commands that measure this host have in common: samples, kept rates, and how they are shown."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lox.escape import safe
from lox.output import Output, table
from lox.units import format_rate, format_size, plural

if TYPE_CHECKING:
    from pipelines.draw import Sample
    from pipelines.predict import Forecast
    from pipelines.rates import Rates

MADE_UP = "made-up files"


def place_of(source: bytes) -> bytes:
    """Where a source really lies. UsageError if there is nothing."""
    from model.errors import UsageError

    place = os.path.realpath(source)
    if not os.path.lexists(place):
        raise UsageError("no such file or folder", subject=os.fsdecode(source))
    return place


@contextmanager
def sample_for(source: bytes | None, most: int | None = None) -> Iterator[Sample]:
    """Files drawn from `source`, or made-up ones that are gone afterwards. Raises UsageError."""
    from pipelines.draw import SAMPLE_BYTES, draw, make_up

    if source is not None:
        yield draw(place_of(source), most or SAMPLE_BYTES)
        return
    with tempfile.TemporaryDirectory(prefix="lox-files-") as folder:
        yield make_up(folder)


def name_of(source: bytes | None) -> str:
    """Under which the rates of a source are kept."""
    return MADE_UP if source is None else os.fsdecode(os.path.realpath(source))


def rates_for(
    output: Output, source: bytes | None, packings: Sequence[tuple[str, int]], *, place: str | None, again: bool
) -> Rates:
    """The rates of a source with these codecs and levels: those kept, or measured now if there are none, if they are
    stale, or if they are wanted `again`."""
    from pipelines.bench import Bench
    from pipelines.environment import environment
    from pipelines.rates import RateBook, host_facts
    from pipelines.trials import trial_ground
    from repository.cache_dir import default_state_dir

    book = RateBook(default_state_dir())
    kept = book.find(name_of(source))
    why = "" if kept is None else kept.stale(host_facts(), time.time())
    if kept is not None and why:
        output.note(f"the kept rates are stale, {safe(why)}: measuring again")
    if kept is not None and not why and not again and all(kept.packing(*one) for one in packings):
        return kept
    # What the store can do is measured, not what it is allowed to do now.
    with environment({"LOX_LIMIT_UPLOAD": ""}), sample_for(source) as sample, trial_ground(place) as ground:
        output.note(
            f"measuring with {plural(sample.files, 'file')}, {format_size(sample.size)} of {safe(sample.origin)}"
        )
        known = [] if kept is None or why or again else [(one.codec, one.level) for one in kept.packings]
        rates = Bench(ground, sample).run(list(dict.fromkeys([*packings, *known])), name_of(source))
    book.keep(rates)
    return rates


def kept_rates(output: Output, source: bytes | None) -> Rates | None:
    """The rates that are kept of a source; if they are stale, that is told."""
    from pipelines.rates import RateBook, host_facts
    from repository.cache_dir import default_state_dir

    kept = RateBook(default_state_dir()).find(name_of(source))
    why = "" if kept is None else kept.stale(host_facts(), time.time())
    if why:
        output.note(f"the kept rates are stale: {safe(why)}")
    return kept


def busy_text(cores: int) -> str:
    """That other work keeps the machine busy, if it does: a forecast is for one that has nothing else to do."""
    load = os.getloadavg()[0]
    if load <= cores + 1:
        return ""
    return f"other work keeps this machine busy (load {load:.1f} on {plural(cores, 'core')}): backups are slower now"


def forecast_fields(forecast: Forecast) -> dict[str, object]:
    """A prediction for JSON."""
    return {
        "bytes_per_second": round(forecast.rate),
        "limit": forecast.limit,
        "stage": forecast.stage,
        "gain": round(forecast.gain, 3),
        "then": forecast.then,
        "idle_cores": round(forecast.idle, 2),
        "cores": forecast.cores,
        "sentence": forecast.text,
        "stages": [
            {"stage": one.name, "strand": one.strand, "lanes": one.lanes, "one_lane": _whole(one.alone),
             "all_lanes": _whole(one.rate)}
            for one in forecast.stages
        ],
    }  # fmt: skip


def _whole(rate: float | None) -> int | None:
    return None if rate is None else round(rate)


def forecast_lines(forecast: Forecast) -> list[str]:
    """The same as a table and a sentence; rates are in bytes that are read."""
    rows = [(one.name, one.strand, str(one.lanes), _rate(one.alone), _rate(one.rate)) for one in forecast.stages]
    lines = table(("STAGE", "STRAND", "LANES", "ONE LANE", "ALL LANES"), rows, right=(2, 3, 4))
    return [*lines, "", f"predicted: {format_rate(forecast.rate)}; {safe(forecast.text)}"]


def _rate(rate: float | None) -> str:
    return "-" if rate is None else format_rate(rate)
