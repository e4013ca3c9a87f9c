"""``lox pipeline explain``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from lox.engine import Asked, engine_options, limit_options
from lox.escape import safe
from lox.output import Output, output_of, table
from lox.settings import command as command_of
from lox.settings import option
from lox.types import BytesType
from lox.units import format_size

if TYPE_CHECKING:
    from pipelines.explain import Explained
    from pipelines.predict import Forecast
    from pipelines.profile import Profile


@command_of("explain")
@click.argument("name", metavar="[PROFILE]", required=False)
@option("--source", metavar="PATH", type=BytesType(),
        help="Predict for files like these. [default: for made-up ones]")  # fmt: skip
@option(
    "--work",
    metavar="DIR|URL",
    help="Where to store packs if something is to be measured. [default: a temporary folder]",
)
@option("--measure/--no-measure", default=None,
        help="Measure stages again, or not at all. [default: if no rates are kept that still hold]")  # fmt: skip
@engine_options
@limit_options
@click.pass_context
def command(
    ctx: click.Context, /, asked_engine: Asked, name: str | None, source: bytes | None, work: str | None,
    measure: bool | None,
) -> None:  # fmt: skip
    """Explain what a profile comes to on this host.

    PROFILE is a name or a file; without it, --profile, LOX_PROFILE or nothing but defaults count.

    Every value and where it comes from, the stages with their strands and lanes, the memory they may take, how fast
    a backup of new files will be, which stage will limit it, and what to look out for. The rates of stages are those
    that 'lox pipeline bench' has measured; if there are none, they are measured now, which takes some seconds.
    """
    from lox.measuring import busy_text
    from pipelines.explain import explain, warnings_of
    from pipelines.rates import usable_cores

    output, loaded, cores = output_of(ctx), asked_engine.called(name).resolved(), usable_cores()
    explained = explain(loaded, cores)
    forecast = _forecast(output, loaded, explained, source, work, measure)
    warnings = warnings_of(explained, forecast, cores)
    if forecast is not None and (busy := busy_text(cores)):
        warnings.append(busy)
    _show_json(output, explained, forecast, warnings)
    _show_values(output, explained)
    _show_memory(output, explained)
    _show_forecast(output, explained, forecast)
    if warnings:
        output.line()
        output.lines(f"warning: {safe(text)}" for text in warnings)


def _forecast(
    output: Output, profile: Profile, explained: Explained, source: bytes | None, work: str | None, measure: bool | None
) -> Forecast | None:
    """The prediction with rates that are kept or measured now; None if there are none and nothing is to be measured."""
    from lox.measuring import kept_rates, rates_for
    from pipelines.predict import Conditions, predict
    from pipelines.profile_keys import CODEC, LEVEL, UPLOAD_LIMIT
    from repository.codecs import by_name
    from runtime.plan import fuse

    codec = profile.required(CODEC)
    level = by_name(codec, profile[LEVEL])[1]
    if measure is False:
        rates = kept_rates(output, source)
    else:
        rates = rates_for(output, source, [(codec, level)], place=work, again=measure is True)
    packing = rates.packing(codec, level) if rates is not None else None
    if rates is None or packing is None:
        return None
    conditions = Conditions(rates.host.cores, rates.new, _bytes_a_second(profile[UPLOAD_LIMIT]))
    return predict(fuse(explained.plan), rates, packing, conditions)


def _bytes_a_second(limit: str | None) -> float | None:
    """What an upload limit allows just now; None: everything."""
    if limit is None:
        return None
    from repository.store.throttled import Bucket

    return Bucket(limit).rate


def _show_json(output: Output, explained: Explained, forecast: Forecast | None, warnings: list[str]) -> None:
    from lox.measuring import forecast_fields

    if not output.json:
        return
    output.event(
        "explain",
        profile=explained.profile.name,
        description=explained.profile.description,
        files=[file.path for file in explained.profile.files],
        executor=explained.executor,
        values=[{"key": one.key, "value": one.value, "origin": one.origin, "why": one.why} for one in explained.values],
        memory={
            "budget": explained.memory,
            "together": explained.together,
            "parts": [{"name": part.name, "bytes": part.nbytes} for part in explained.parts],
        },
        forecast=forecast_fields(forecast) if forecast is not None else None,
        warnings=warnings,
    )


def _show_values(output: Output, explained: Explained) -> None:
    profile = explained.profile
    output.line(f"profile {safe(profile.name)}{': ' if profile.description else ''}{safe(profile.description)}")
    extends = [safe(file.path) for file in profile.files]
    if extends:
        output.line(f"from {', which extends '.join(extends)}")
    output.line()
    rows = []
    for one in explained.values:
        origin = one.origin
        for file in profile.files:
            if file.place != "file" and origin.startswith(f"{file.path}:"):
                origin = f"{file.name}{origin.removeprefix(file.path)}"  # the path was told above
        rows.append((one.key, safe(one.value), safe(f"{origin}, {one.why}" if one.why else origin)))
    output.lines(table(("KEY", "VALUE", "FROM"), rows))


def _show_memory(output: Output, explained: Explained) -> None:
    output.line()
    rows = [(part.name, format_size(part.nbytes)) for part in explained.parts]
    spare = explained.memory - explained.together
    rest = f"{format_size(abs(spare))} {'to spare' if spare >= 0 else 'too much'}"
    rows.append(("together", format_size(explained.together)))
    output.lines(table(("MEMORY FOR", "AT MOST"), rows, right=(1,)))
    output.line(f"of a budget of {format_size(explained.memory)}: {rest}")


def _show_forecast(output: Output, explained: Explained, forecast: Forecast | None) -> None:
    from lox.measuring import forecast_lines

    output.line()
    if forecast is not None:
        output.lines(forecast_lines(forecast))
        return
    output.line(explained.plan.text())
    output.line()
    output.line("no prediction: no rates are kept for this codec, level and source; 'lox pipeline bench' measures them")
