"""``lox runs``."""

from __future__ import annotations

import click

from lox.opening import store_of
from lox.output import output_of, table
from lox.settings import command as command_of
from lox.settings import option, settings_of
from lox.units import plural

LAST = 20
KINDS = ["backup", "restore", "copy", "check", "prune", "forget", "repair", "sync"]


@command_of("runs")
@option("--last", type=click.IntRange(1), default=LAST, show_default=True, metavar="N", help="How many.")
@option("--kind", type=click.Choice(KINDS), help="Only these.")
@click.pass_context
def command(ctx: click.Context, /, last: int, kind: str | None) -> None:
    """List what ran on this host, the newest last.

    With --repo or LOX_REPOSITORY only on that repository; needs no password. 'lox run show' tells more of one. Records
    lie in LOX_STATE_DIR, else ~/.local/state/lox: of each repository the last 1,000, none older than 400 days, 64 MiB.
    """
    from lox.run_rows import RUN_HEADINGS, run_fields, run_row
    from pipelines.run_records import RunStore

    output, settings = output_of(ctx), settings_of(ctx)
    url = store_of(settings).url if settings.repo else ""
    runs = RunStore().summaries(last, kind, url)
    output.events("run", (run_fields(summary) for summary in runs))
    if runs:
        output.lines(table(RUN_HEADINGS, [run_row(summary) for summary in runs], right=range(4, 8)))
    output.note(plural(len(runs), "run"))
