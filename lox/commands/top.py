"""``lox top``."""

from __future__ import annotations

import sys
import time

import click

from lox.output import output_of
from lox.settings import command as command_of
from lox.settings import option, settings_of


@command_of("top")
@option("--once", is_flag=True, help="Print once and end; so it is if stdout is no terminal.")
@option("--interval", type=click.FloatRange(0.2, 3600), default=1.0, show_default=True, metavar="SECONDS",
        help="How often to look.")  # fmt: skip
@click.pass_context
def command(ctx: click.Context, /, once: bool, interval: float) -> None:
    """Show what runs now, and what limits it.

    Of every run of this user on this host: how fast each stage is and how busy. In the last second it was busy (#),
    blocked (=: what comes after it has no room, or works on the same lane) or starved (.: it had nothing to do).
    With --json a line for each run every interval. Ctrl-C ends it.
    """
    from lox.top import status_fields, top_lines, watch
    from pipelines.run_records import RunStore

    output, settings, store = output_of(ctx), settings_of(ctx), RunStore()
    live = sys.stdout.isatty() and not once and not output.json
    try:
        if live:
            watch(store.running, interval, settings.wants_color(True))
        while True:
            statuses, now = store.running(), time.time()
            output.events("running", [status_fields(status, now) for status in statuses])
            output.lines(top_lines(statuses, now))
            output.flush()
            if once or not output.json:
                return
            time.sleep(interval)
    except KeyboardInterrupt:  # that is how it is meant to end
        return
