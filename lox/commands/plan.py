"""``lox plan``."""

from __future__ import annotations

import json

import click

from lox.engine import engine_of, engine_options
from lox.output import output_of
from lox.settings import command as command_of
from lox.settings import option


@command_of("plan")
@click.argument("what", metavar="backup|restore|copy", type=click.Choice(["backup", "restore", "copy"]))
@option("--format", "format_", type=click.Choice(["text", "mermaid", "json"]), default="text", show_default=True,
        help="How it is printed.")  # fmt: skip
@engine_options
@click.pass_context
def command(ctx: click.Context, /, what: str, format_: str, executor: str, lanes: int | None, memory: int) -> None:
    """Show the graph of stages of a backup, a restore or a copy.

    Stages of one strand run on the same lane without handing bytes over. Needs no repository.
    """
    from pipelines.plans import backup_plan, copy_plan, restore_plan

    plans = {"backup": backup_plan, "restore": restore_plan, "copy": copy_plan}
    plan = plans[what](engine_of(executor, lanes, memory))
    output = output_of(ctx)
    if output.json:
        output.event("plan", **json.loads(plan.json()))
    elif format_ == "json":
        output.line(plan.json())
    else:
        output.line(plan.mermaid() if format_ == "mermaid" else plan.text())
