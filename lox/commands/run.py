"""``lox run``: one run in detail, or two compared."""

from __future__ import annotations

import click

from lox.escape import safe
from lox.output import output_of
from lox.settings import Group


@click.group("run", cls=Group, subcommand_metavar="COMMAND [ARGS]...")
def command() -> None:
    """Show what one run did, or how two differ.

    'lox runs' lists them. A run is named by its id, the beginning of one, or 'last'.
    """


@command.command("show")
@click.argument("run", default="last")
@click.pass_context
def show(ctx: click.Context, /, run: str) -> None:
    """Show one run: what was asked, what each stage did when, what limited it.

    SPEED is of one lane while it is busy. A stage is starved while it has nothing to do, and blocked while it may not
    go on; in a strand it is so while the other stages work.
    """
    from lox.run_rows import Stages, busy_lines, facts, run_fields, stage_fields, stage_table
    from lox.units import format_seconds
    from pipelines.run_records import RunStore

    output = output_of(ctx)
    record = RunStore().open(run)
    stages = Stages.of(record.timeline)
    output.event("run", **run_fields(record.summary))
    output.events("stage", [stage_fields(line) for line in stages.lines])
    if output.json:
        output.events("interval", record.timeline.to_pylist())
        return
    output.lines([f"{name:<11}{text}" for name, text in facts(record.summary)])
    if stages.lines:
        output.lines(["", *stage_table(stages), "", f"busy, over {format_seconds(record.summary.wall)}:"])
        output.lines([*busy_lines(stages), ""])
    output.line(safe(record.summary.bottleneck) or "it ended before the engine began")


@command.command("compare")
@click.argument("a", metavar="A")
@click.argument("b", metavar="B", default="last")
@click.pass_context
def compare_runs(ctx: click.Context, /, a: str, b: str) -> None:
    """Compare two runs: settings, the speed of each stage, how long they took and why.

    B is the last run unless another is named.
    """
    from lox.run_compare import compare, compare_lines
    from lox.run_rows import Stages, run_fields, stage_fields
    from pipelines.run_records import RunStore

    output, store = output_of(ctx), RunStore()
    first, second = store.open(a), store.open(b)
    found = compare(first.summary, second.summary, Stages.of(first.timeline), Stages.of(second.timeline))
    output.event(
        "comparison",
        runs=[run_fields(first.summary), run_fields(second.summary)],
        stages=[[stage_fields(line) for line in stages.lines] for stages in found.stages],
        settings={name: [left, right] for name, left, right in found.settings},
        blames=[
            {"stage": blame.stage, "wall_without": round(blame.wall, 3),
             "data": round(blame.data, 4) if blame.data < float("inf") else None,  # None: all of it
             "speed": round(blame.speed, 4), "lanes": round(blame.lanes, 4)}
            for blame in found.blames
        ],
        cause=found.cause,
    )  # fmt: skip
    output.lines(compare_lines(found))
