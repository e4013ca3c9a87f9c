"""``lox bench``."""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING, Any

import click

from lox.engine import Asked, engine_options
from lox.escape import safe
from lox.output import Output, output_of
from lox.settings import command as command_of
from lox.settings import option
from lox.types import BytesType, Compression, CompressionType
from lox.units import format_count, format_rate, format_seconds, format_share, format_size, plural
from model.errors import UsageError

if TYPE_CHECKING:
    from lox.bench import Kernel, Roofline
    from pipelines.backup import BackupReport
    from pipelines.options import EngineOptions

GIGABYTE = 10**9
RUNS = 2
NOTABLE = 1.2  # times slower than the best run, so that a first run is worth telling
PATIENCE = 60.0  # seconds after which no further run is begun


@command_of("bench")
@option("--source", metavar="PATH", type=BytesType(),
        help="Measure with a sample of these files, then back all of them up for comparison.")  # fmt: skip
@option("--work", metavar="DIR", type=BytesType(),
        help="Where test packs and the repository are written. [default: a temporary folder]")  # fmt: skip
@option("--compression", type=CompressionType(), metavar="CODEC[:LEVEL]",
        help="zstd, lz4, gzip or none. [default: zstd, or as the profile says]")  # fmt: skip
@engine_options
@click.pass_context
def command(
    ctx: click.Context, /, asked_engine: Asked, source: bytes | None, work: bytes | None,
    compression: Compression | None,
) -> None:  # fmt: skip
    """Measure what this host can do at best, stage by stage.

    Runs each kernel alone in one thread on the same data, adds up what they cost, and tells how fast a backup can be
    with all cores. With --source it also makes a real backup, to a repository that is deleted afterwards, and tells
    how close that came. Files are read from the page cache where they are in it.
    """
    from lox.bench import Bench
    from lox.sample import make_up, sample_of
    from pipelines.profile import engine_of, request_fields

    output = output_of(ctx)
    profile = asked_engine.with_compression(compression).resolved()
    engine, fields = engine_of(profile), request_fields(profile)
    place = os.fsdecode(work) if work is not None else None
    if place is not None and not os.path.isdir(place):
        raise UsageError("no such folder", subject=place)
    with tempfile.TemporaryDirectory(prefix="lox-bench-", dir=place) as folder:
        sample = make_up(folder) if source is None else sample_of(os.path.realpath(source))
        if not sample.total:
            raise UsageError("nothing to read", subject=os.fsdecode(source or b""), why="no readable file with content")
        output.note(f"{plural(len(sample.sizes), 'file')}, {format_size(sample.total)} of {safe(sample.origin)}")
        roofline = Bench(sample, os.path.join(folder, "store"), fields["codec"], fields["level"]).run()
        _show_roofline(output, roofline)
        if source is not None:
            reports = _runs(os.path.realpath(source), folder, fields, engine)
            _show_runs(output, roofline, reports, engine.lanes)


def _show_roofline(output: Output, roofline: Roofline) -> None:
    for kernel in roofline.kernels:
        output.event("kernel", **_kernel_fields(kernel))
    output.event(
        "roofline",
        cores=roofline.cores,
        codec=roofline.codec,
        level=roofline.level,
        sample_bytes=roofline.sample.total,
        stored_bytes=roofline.stored,
        cpu_seconds_per_gb=roofline.cpu_per_byte * GIGABYTE,
        bytes_per_second=round(roofline.best_rate),
        limit=roofline.limit,
    )
    output.line(f"{'KERNEL':<10}{'ALONE':>14}{'CPU S/GB':>10}{'SHARE':>8}")
    for kernel in roofline.kernels:
        share = format_share(kernel.cpu_per_byte, roofline.cpu_per_byte)
        output.line(f"{kernel.name:<10}{format_rate(kernel.rate):>14}{kernel.cpu_per_byte * GIGABYTE:>10.2f}{share:>8}")
    total = roofline.cpu_per_byte
    output.line(f"{'together':<10}{format_rate(1 / total):>14}{total * GIGABYTE:>10.2f}{'100 %':>8}")
    output.line()
    output.line(
        f"{roofline.codec}:{roofline.level} leaves {format_share(roofline.stored, roofline.sample.total)} to store"
    )
    cores = plural(roofline.cores, "core")
    output.line(
        f"{cores} can back up {format_rate(roofline.best_rate)} of new data at best, limited by the {roofline.limit}"
    )


def _kernel_fields(kernel: Kernel) -> dict[str, object]:
    return {
        "name": kernel.name,
        "bytes": kernel.plain,
        "seconds": kernel.wall,
        "cpu_seconds": kernel.cpu,
        "bytes_per_second": round(kernel.rate),
    }


def _runs(source: bytes, folder: str, fields: dict[str, Any], engine: EngineOptions) -> list[BackupReport]:
    """First backups, each into a repository of its own: the first finds the files on disk, the second in memory."""
    reports: list[BackupReport] = []
    while len(reports) < RUNS and sum(report.seconds for report in reports) < PATIENCE:
        with tempfile.TemporaryDirectory(prefix="run-", dir=folder) as place:
            reports.append(_back_up(source, place, fields, engine))
    return reports


def _back_up(source: bytes, folder: str, fields: dict[str, Any], engine: EngineOptions) -> BackupReport:
    """A real first backup into a new encrypted repository in `folder`, with an index cache of its own."""
    from pipelines.backup import BackupRequest, backup
    from pipelines.options import Watch
    from repository.keys import KdfParams
    from repository.repository import Repository
    from repository.store import LocalStore

    store = LocalStore(os.path.join(folder, "repository"))
    repository, _ = Repository.init(store, os.urandom(16).hex(), kdf=KdfParams(memory_kib=64, iterations=1, lanes=1))
    request = BackupRequest((source,), **fields)
    before = os.environ.get("LOX_CACHE_DIR")
    os.environ["LOX_CACHE_DIR"] = os.path.join(folder, "cache")
    try:
        return backup(repository, request, engine, Watch())
    finally:
        if before is None:
            del os.environ["LOX_CACHE_DIR"]
        else:
            os.environ["LOX_CACHE_DIR"] = before


def _show_runs(output: Output, roofline: Roofline, reports: list[BackupReport], lanes: int | None) -> None:
    report = min(reports, key=lambda report: report.seconds)
    best = roofline.best_seconds(report.bytes_read, report.bytes_new, lanes)
    reached = best / report.seconds if report.seconds else 0.0
    output.event(
        "run",
        files=report.files,
        bytes_read=report.bytes_read,
        bytes_new=report.bytes_new,
        bytes_stored=report.bytes_stored,
        seconds=report.seconds,
        seconds_first=reports[0].seconds,
        best_seconds=best,
        reached=reached,
        bottleneck=report.bottleneck,
    )
    output.line()
    rate = format_rate(report.bytes_read / report.seconds)
    output.line(
        f"a real backup: {format_count(report.files)} files, {format_size(report.bytes_read)}, of it "
        f"{format_size(report.bytes_new)} new, in {format_seconds(report.seconds)}, {rate}"
    )
    output.line(
        f"at best it would take {format_seconds(best)}: it reached {format_share(best, report.seconds)} of the roofline"
    )
    output.line(safe(report.bottleneck))
    if reports[0].seconds > NOTABLE * report.seconds:
        output.line(f"(the first time, with the files not all in memory, it took {format_seconds(reports[0].seconds)})")
