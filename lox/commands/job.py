"""``lox job``: what agents of a server back up, and when."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from lox.escape import safe
from lox.output import output_of
from lox.remote.asking import client_of, event_fields, found, local_time, server_option, show_list, show_one
from lox.remote.job_options import MODES, document, fields_of, job_options
from lox.settings import Group, option
from model.errors import UsageError

KIND, LABEL = "backup-jobs", "job"
COLUMNS = (
    ("UUID", "uuid"), ("NAME", "name"), ("TYPE", "job_type"), ("SCHEDULE", "schedule_cron"), ("NEXT", "next_run_at"),
    ("LAST", "last_run_at"), ("STATUS", "last_run_status"),
)  # fmt: skip


@click.group("job", cls=Group, subcommand_metavar="COMMAND [ARGS]...")
def command() -> None:
    """List, make, change, delete and run jobs of a server.

    JOB is a UUID, the beginning of one, or a name.
    """


@command.command("list")
@option("--agent", metavar="AGENT", help="Only those of this agent.")
@server_option
@click.pass_context
def list_jobs(ctx: click.Context, /, agent: str | None, server: str | None) -> None:
    """List the jobs, when they run next, and how they ended last."""
    client = client_of(server)
    jobs = client.pages(KIND, agent=_agent(client, agent) if agent else None)
    show_list(ctx, LABEL, jobs, COLUMNS, "No jobs. 'lox job create' makes one.")


@command.command("show")
@click.argument("job", metavar="JOB")
@server_option
@click.pass_context
def show(ctx: click.Context, /, job: str, server: str | None) -> None:
    """Show one job."""
    show_one(ctx, LABEL, found(client_of(server), KIND, job))


@command.command("create")
@click.argument("name", metavar="NAME")
@option("--agent", metavar="AGENT", required=True, help="The host: a UUID, the beginning of one, a name, a hostname.")
@option("--type", "job_type", type=click.Choice(["file", "block", "image", "database"]), default="file",
        show_default=True, help="What kind of backup.")  # fmt: skip
@job_options
@server_option
@click.pass_context
def create(ctx: click.Context, /, name: str, agent: str, server: str | None, **asked: Any) -> None:
    """Make a job. What is not given is as the server has it."""
    client = client_of(server)
    body = {"name": name, "agent_uuid": _agent(client, agent), **_placed(client, fields_of(asked))}
    show_one(ctx, LABEL, client.post(KIND, body=body))


@command.command("edit")
@click.argument("job", metavar="JOB")
@option("--name", metavar="TEXT", help="Another name.")
@job_options
@server_option
@click.pass_context
def edit(ctx: click.Context, /, job: str, server: str | None, **asked: Any) -> None:
    """Change a job: what is given, and nothing else. Lists are replaced."""
    fields = fields_of(asked)
    if not fields:
        raise UsageError("nothing to change", hint="give an option, as --schedule '0 3 * * *'")
    client = client_of(server)
    show_one(ctx, LABEL, client.patch(KIND, found(client, KIND, job)["uuid"], body=_placed(client, fields)))


@command.command("apply")
@option("-f", "--file", metavar="FILE", required=True, help="A job in YAML or JSON; '-' reads it from stdin.")
@server_option
@click.pass_context
def apply(ctx: click.Context, /, file: str, server: str | None) -> None:
    """Make a job as a file says, or change the one of that name and agent to be so.

    The file holds the fields of POST /api/v1/backup-jobs. What it leaves out is not changed.
    """
    fields = document(file, sys.stdin.buffer.read() if file == "-" else _read(file))
    client = client_of(server)
    same = [
        job for job in client.pages(KIND, agent=fields["agent_uuid"])
        if job["name"] == fields["name"] and job["agent_uuid"] == fields["agent_uuid"]
    ]  # fmt: skip
    if not same:
        show_one(ctx, LABEL, client.post(KIND, body=fields))
        return
    change = {name: value for name, value in fields.items() if name != "agent_uuid"}
    show_one(ctx, LABEL, client.patch(KIND, same[0]["uuid"], body=change))


@command.command("delete")
@click.argument("job", metavar="JOB")
@server_option
@click.pass_context
def delete(ctx: click.Context, /, job: str, server: str | None) -> None:
    """Delete a job. What it backed up stays."""
    client = client_of(server)
    one = found(client, KIND, job)
    client.delete(KIND, one["uuid"])
    output = output_of(ctx)
    output.event("deleted", uuid=one["uuid"], name=one["name"])
    output.line(f"deleted job {safe(one['name'])}")


@command.command("run")
@click.argument("job", metavar="JOB")
@option("--mode", type=MODES, help="Instead of the job's own.")
@option("--wait", is_flag=True, help="Wait for its end, and exit as 'lox backup' would.")
@server_option
@click.pass_context
def run(ctx: click.Context, /, job: str, mode: str | None, wait: bool, server: str | None) -> int:
    """Run a job now."""
    from lox.remote import waiting

    client, output = client_of(server), output_of(ctx)
    begun = client.post(KIND, found(client, KIND, job)["uuid"], "run", body={"mode": mode} if mode else {})
    output.event("run", **event_fields(begun))
    output.line(f"run {begun['uuid']} is {begun['status']}")
    output.flush()
    return waiting.wait(client, output, "runs", begun["uuid"]) if wait else 0


@command.command("next")
@click.argument("job", metavar="JOB")
@option("--count", type=click.IntRange(1, 100), default=5, show_default=True, metavar="N", help="How many times.")
@server_option
@click.pass_context
def next_runs(ctx: click.Context, /, job: str, count: int, server: str | None) -> None:
    """Show when a job will run."""
    client, output = client_of(server), output_of(ctx)
    found_times = client.get(KIND, found(client, KIND, job)["uuid"], "next-runs", count=count)
    output.event("next_runs", **found_times)
    if found_times["explained"]:
        output.note(safe(f"{found_times['explained']}, {found_times['timezone']}; shown in local time"))
    output.lines(map(local_time, found_times["times"]))
    if not found_times["times"]:
        output.note("It runs only by hand.")


@command.command("estimate")
@click.argument("job", metavar="JOB")
@server_option
@click.pass_context
def estimate(ctx: click.Context, /, job: str, server: str | None) -> None:
    """Let the agent look at what a job would read, now."""
    client = client_of(server)
    show_one(ctx, "estimate", client.post(KIND, found(client, KIND, job)["uuid"], "estimate"))


def _agent(client: Any, name: str) -> str:
    return str(found(client, "agents", name, ("name", "hostname"))["uuid"])


def _placed(client: Any, fields: dict[str, Any]) -> dict[str, Any]:
    """The same with the UUID of the repository that is named, if one is."""
    named = fields.get("repository_uuid")
    return fields if named is None else fields | {"repository_uuid": found(client, "repositories", named)["uuid"]}


def _read(file: str) -> bytes:
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise UsageError("cannot read the job", subject=file, why=(error.strerror or "").lower()) from error
