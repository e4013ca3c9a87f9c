"""``lox pipeline graph``."""

from __future__ import annotations

import json

import click

from lox.engine import Asked, engine_options
from lox.output import output_of
from lox.settings import command as command_of
from lox.settings import option
from model.errors import UsageError

FORMATS = ("text", "mermaid", "dot", "svg", "json")


@command_of("graph")
@click.argument("name", metavar="[PROFILE]", required=False)
@option("--format", "form", type=click.Choice(FORMATS), default="text", show_default=True, help="How it is drawn.")
@option("--restore", is_flag=True, help="The graph of a restore.")
@option("--copy", "is_copy", is_flag=True, help="The graph of a copy to another repository.")
@engine_options
@click.pass_context
def command(
    ctx: click.Context, /, name: str | None, form: str, restore: bool, is_copy: bool, asked_engine: Asked
) -> None:
    """Draw the graph of stages of a backup, a restore or a copy.

    Stages of one strand run on the same lane without handing bytes over. PROFILE is a name or a file. Needs no
    repository.
    """
    from pipelines.plans import plan_of
    from runtime.drawing import dot, svg

    if restore and is_copy:
        raise UsageError("--restore or --copy, not both", hint="leave out one of them")
    output = output_of(ctx)
    plan = plan_of("restore" if restore else "copy" if is_copy else "backup", asked_engine.called(name).resolved())
    if output.json:
        output.event("plan", **json.loads(plan.json()))
        return
    match form:
        case "dot":
            output.line(dot(plan))
        case "svg":
            output.line(svg(plan))
        case "mermaid":
            output.line(plan.mermaid())
        case "json":
            output.line(plan.json())
        case _:
            output.line(plan.text())
