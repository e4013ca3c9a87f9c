"""``lox run``: one run in detail, or two compared; and runs that a server knows."""

from __future__ import annotations

import click

from lox.escape import safe
from lox.output import output_of
from lox.remote.asking import UUID, client_of, event_fields, found, local_time, server_option, show_list, show_one
from lox.settings import Group, option

COLUMNS = (
    ("UUID", "uuid"), ("KIND", "kind"), ("JOB", "job_name"), ("STATUS", "status"), ("STARTED", "started_at"),
    ("FINISHED", "finished_at"), ("PROBLEMS", "problems"),
)  # fmt: skip


@click.group("run", cls=Group, subcommand_metavar="COMMAND [ARGS]...")
def command() -> None:
    """Show what one run did, or how two differ.

    'lox runs' lists those of this host: they are named by their id, the beginning of one, or 'last'. 'lox run list'
    lists those that a server knows of: they are named by their UUID, and a UUID is always asked of the server.
    """


@command.command("show")
@click.argument("run", default="last")
@server_option
@click.pass_context
def show(ctx: click.Context, /, run: str, server: str | None) -> None:
    """Show one run: what was asked, what each stage did when, what limited it.

    SPEED is of one lane while it is busy. A stage is starved while it has nothing to do, and blocked while it may not
    go on; in a strand it is so while the other stages work.
    """
    if UUID.fullmatch(run):
        show_one(ctx, "run", client_of(server).get("runs", run))
        return
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


@command.command("list")
@option("--job", metavar="JOB", help="Only those of this job.")
@option("--agent", metavar="AGENT", help="Only those of this agent.")
@option("--status", metavar="TEXT", help="Only these: running, success, partial, failed, ...")
@option("--last", type=click.IntRange(1), default=20, show_default=True, metavar="N", help="How many.")
@server_option
@click.pass_context
def list_runs(
    ctx: click.Context, /, job: str | None, agent: str | None, status: str | None, last: int, server: str | None
) -> None:
    """List what ran on the agents of a server, the newest first."""
    client = client_of(server)
    of_job = found(client, "backup-jobs", job)["uuid"] if job else None
    of_agent = found(client, "agents", agent, ("name", "hostname"))["uuid"] if agent else None
    runs = client.pages("runs", most=last, job=of_job, agent=of_agent, status=status)
    show_list(ctx, "run", runs, COLUMNS, "No runs.")


@command.command("watch")
@click.argument("run", metavar="UUID")
@server_option
@click.pass_context
def watch(ctx: click.Context, /, run: str, server: str | None) -> int:
    """Follow a run at a server to its end, and exit as it did."""
    from lox.remote import waiting

    return waiting.watch(client_of(server), output_of(ctx), run)


@command.command("cancel")
@click.argument("run", metavar="UUID")
@server_option
@click.pass_context
def cancel(ctx: click.Context, /, run: str, server: str | None) -> None:
    """Ask the agent to end a run."""
    output = output_of(ctx)
    output.event("run", **event_fields(client_of(server).post("runs", run, "cancel")))
    output.line(f"asked to cancel run {safe(run)}")


@command.command("log")
@click.argument("run", metavar="UUID")
@option("--problems", is_flag=True, help="The files that could not be read or written, instead.")
@server_option
@click.pass_context
def log(ctx: click.Context, /, run: str, problems: bool, server: str | None) -> None:
    """Show the log of a run at a server."""
    output, kind = output_of(ctx), "problems" if problems else "log"
    for line in client_of(server).pages("runs", run, kind):
        output.event("problem" if problems else "log", **event_fields(line))
        told = f"{line['path']}: {line['text']}" if problems else f"{local_time(line['time'])}  {line['text']}"
        output.line(safe(told))
