"""``lox pipeline bench``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from lox.escape import safe
from lox.output import Output, output_of, table
from lox.settings import command as command_of
from lox.settings import option
from lox.types import BytesType, Compression, CompressionType
from lox.units import format_rate, format_share

if TYPE_CHECKING:
    from pipelines.rates import Cost, Rates

GIGABYTE = 10**9
CHECKS = 3


@command_of("bench")
@option("--source", metavar="PATH", type=BytesType(),
        help="Measure with a sample of these files. [default: made-up ones]")  # fmt: skip
@option("--work", metavar="DIR|URL", help="Where packs are stored while measuring. [default: a temporary folder]")
@option("--compression", "compressions", type=CompressionType(), metavar="CODEC[:LEVEL]", multiple=True,
        help="What to compress with; may be repeated. [default: zstd]")  # fmt: skip
@click.pass_context
def command(
    ctx: click.Context, /, source: bytes | None, work: str | None, compressions: tuple[Compression, ...]
) -> None:
    """Measure what each stage costs on this host, and keep it for explain.

    Each stage is measured alone, in one thread, then all of them on several lanes, in real backups of a sample; they
    are deleted afterwards. Files are read from where they lie, and from memory. Then it is predicted how fast a backup
    with the default profile is, and one is made to see how true that is.
    """
    from lox.measuring import rates_for
    from repository.codecs import by_name

    output = output_of(ctx)
    asked = compressions or (Compression("zstd"),)
    packings = [(one.codec, by_name(one.codec, one.level)[1]) for one in asked]
    rates = rates_for(output, source, packings, place=work, again=True)
    _show(output, rates)
    _check(output, rates, source, work)


def _show(output: Output, rates: Rates) -> None:
    """The costs of all stages: seconds of a processor for a GB that is read, new or stored."""
    rows: list[tuple[str, Cost, str]] = [(name, cost, "") for name, cost in rates.stages.items() if name != "upload"]
    for packing in rates.packings:
        what = f"{packing.codec}:{packing.level}"
        rows.append((f"compress {what}", packing.compress, f"leaves {format_share(packing.stored, 1.0)}"))
        rows.append((f"encrypt {what}", packing.encrypt, "reads back"))
    rows.append(("upload", rates.stages["upload"], "of stored bytes"))
    output.events(
        "rate",
        (
            {"stage": name, "bytes_per_second": round(cost.rate), "cpu_seconds_per_gb": cost.cpu * GIGABYTE}
            for name, cost, _ in rows
        ),
    )
    output.lines(
        table(
            ("STAGE", "ALONE", "CPU S/GB", ""),
            [(name, format_rate(cost.rate), f"{cost.cpu * GIGABYTE:.2f}", note) for name, cost, note in rows],
            right=(1, 2),
        )
    )


def _check(output: Output, rates: Rates, source: bytes | None, work: str | None) -> None:
    """Predicts a backup with the default engine, and makes some."""
    from lox.measuring import busy_text, forecast_fields, sample_for
    from pipelines.backup import BackupRequest, backup_plan
    from pipelines.options import EngineOptions
    from pipelines.predict import Conditions, predict
    from pipelines.trials import trial_ground
    from runtime.plan import fuse
    from stages.access import RepositoryAccess

    engine, packing = EngineOptions(), rates.packings[0]
    with sample_for(source) as sample, trial_ground(work) as ground:
        request = BackupRequest(sample.paths, codec=packing.codec, level=packing.level)
        strands = fuse(backup_plan(RepositoryAccess(None), request, engine))
        forecast = predict(strands, rates, packing, Conditions(rates.host.cores, rates.new))
        trials = [ground.run(sample, request, engine) for _ in range(CHECKS)]
    real = max(trial.read / max(trial.trace.wall, 1e-9) for trial in trials)
    output.event(
        "check", **forecast_fields(forecast), measured_bytes_per_second=round(real), ratio=real / forecast.rate
    )
    output.line()
    output.line(f"predicted: {format_rate(forecast.rate)}; {safe(forecast.text)}")
    output.line(f"a real backup of the sample: {format_rate(real)}, {format_share(real, forecast.rate)} of that")
    if busy := busy_text(rates.host.cores):
        output.line(f"warning: {busy}")
