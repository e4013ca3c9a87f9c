"""``lox copy``."""

from __future__ import annotations

import os
from typing import Any

import click

from lox.engine import Asked, announce, applied, engine_options, limit_options
from lox.escape import safe
from lox.metrics import Metering, metered
from lox.opening import FROM_SECTION, open_other, open_repository, other_options, tell_rereads_of
from lox.output import output_of
from lox.settings import command as command_of
from lox.settings import option
from lox.signals import stopping
from lox.types import BytesType, Compression, CompressionType
from model.errors import UsageError

_CHOICE = "Which snapshots"


@command_of("copy")
@click.argument("snapshots", metavar="[SNAP]...", nargs=-1)
@option("--from-repo", metavar="URL", section=FROM_SECTION,
        help="Where the snapshots are. [env: LOX_FROM_REPOSITORY]")  # fmt: skip
@other_options
@option("--host", "hosts", multiple=True, metavar="HOST", section=_CHOICE,
        help="Those of this host; may be repeated.")  # fmt: skip
@option("--path", "paths", multiple=True, type=BytesType(), metavar="PATH", section=_CHOICE,
        help="Those that were asked to back up this path; may be repeated.")  # fmt: skip
@option("--tag", "tags", multiple=True, metavar="TAG[,TAG]", section=_CHOICE,
        help="Those with all these tags; may be repeated.")  # fmt: skip
@option("--latest", type=click.IntRange(1), metavar="N", section=_CHOICE,
        help="The newest N of each host and paths.")  # fmt: skip
@option("--verify", is_flag=True, help="Decompress everything and compare each chunk with its id.")
@option("--compression", type=CompressionType(), metavar="CODEC[:LEVEL]",
        help="Compress everything anew. [default: what is copied whole stays as it is]")  # fmt: skip
@option("--dry-run", "-n", is_flag=True, help="Show what would be copied.")
@engine_options
@limit_options
@click.pass_context
@metered("copy")
def command(
    ctx: click.Context, /, snapshots: tuple[str, ...], asked_engine: Asked, meter: Metering, **asked: Any
) -> int:  # fmt: skip
    """Copy snapshots into another repository.

    From --from-repo to --repo. Without SNAP all are copied that the options choose and that are not there yet. What
    is copied is decrypted and sealed anew; it is decompressed only where the target names chunks in another way, or
    only part of a segment is wanted. 'lox init --copy-chunker-from' makes a target that names them alike. Tags, pins
    and comments go along. An interrupted copy is taken up where it stopped by the same command. Use --verify if
    somebody you do not trust with the target could write to the source.
    """
    output = output_of(ctx, needed=False)
    url = asked["from_repo"] or os.environ.get("LOX_FROM_REPOSITORY")
    if not url:
        raise UsageError("no repository to copy from", hint="use --from-repo URL or set LOX_FROM_REPOSITORY")
    filters = {name: asked[name] for name in ("hosts", "paths", "tags", "latest")}
    if snapshots and any(filters.values()):
        raise UsageError("name snapshots or choose them by options, not both", hint="leave out one of the two")
    profile = asked_engine.resolved()
    ctx.with_resource(applied(profile))
    source = open_other(url, asked["from_password_file"], asked["from_password_command"])
    tell_rereads_of(ctx, source)
    target = open_repository(ctx, ["pipelines.copy"])
    from lox.copying import choose_snapshots, finish_copy
    from lox.progress import Reporter
    from lox.recording import recorded
    from pipelines.copy import CopyRequest, copy
    from pipelines.profile import engine_of

    chosen, unreadable = choose_snapshots(source, snapshots, **filters)
    compression: Compression | None = asked["compression"]
    codec, level = (compression.codec, compression.level) if compression else (None, None)
    request = CopyRequest(chosen, asked["verify"], asked["dry_run"], codec, level)
    engine = engine_of(profile)
    reporter = Reporter(output)
    announce(output, engine.executor)
    settings = {"from": safe(source.store.url), "verify": asked["verify"], "dry_run": asked["dry_run"]}
    with recorded(output, "copy", target, engine, reporter, (), profile.name, **settings, compression=codec) as record:
        with reporter, stopping(reporter.stop, quiet=output.json):
            report = copy(source, target, request, engine, meter.watching(reporter))
        record.of_copy(report)
        return record.ended(finish_copy(output, request, report, unreadable))
