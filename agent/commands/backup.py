"""``lox-agent backup``."""

from __future__ import annotations

import json
import os
import signal
import time
from typing import TYPE_CHECKING
from uuid import uuid4

import click

from agent.app import Settings
from model.errors import RunFailed, UsageError
from model.exits import ExitCode

if TYPE_CHECKING:
    from agent.state import RunRow, State
    from agent.work_dir import WorkDir

LOOK_SECONDS = 0.2


@click.command("backup")
@click.argument("job")
@click.option("--mode", type=click.Choice(["incremental", "full", "differential"]), help="Instead of the job's own.")
@click.option("--no-wait", is_flag=True, help="Return at once; 'lox-agent status' shows what became of it.")
@click.pass_obj
def command(settings: Settings, job: str, mode: str | None, no_wait: bool) -> int:
    """Run a job now.

    JOB is the name or the id of a job of this agent. The running agent does it, as if the server had asked, and tells
    the server. The exit code is that of 'lox backup': 3 means that some items could not be read.
    """
    config = settings.load()
    from agent.jobs_here import find_job
    from agent.state import RunRow, State
    from agent.work_dir import WorkDir

    work = WorkDir(config.work_dir)
    work.prepare()
    if (pid := work.running_pid()) is None:
        raise UsageError("the agent does not run", hint="start it: lox-agent service start")
    state = State(work.state)
    found, _ = find_job(state, job)
    row = RunRow(uuid4(), found.uuid, "backup", "waiting", {"trigger": "agent", "mode": mode, "attempt": 1})
    state.put_run(row)
    os.kill(pid, signal.SIGUSR1)
    if no_wait:
        _say(settings, row)
        return ExitCode.OK
    row = _wait(work, state, row)
    _say(settings, row)
    if row.status == "success":
        return ExitCode.OK
    return int(row.body.get("exit_code") or ExitCode.FAILURE)


def _wait(work: WorkDir, state: State, row: RunRow) -> RunRow:
    """The run once it has ended. Raises RunFailed if nobody is there any more to do it."""
    while True:
        time.sleep(LOOK_SECONDS)
        alone = work.running_pid() is None  # before looking: it may end after the last word of the run
        found = next((one for one in state.runs("ended") if one.run == row.run), None)
        if found is not None:
            return found
        if alone:
            hint = "start it: the run begins then, or is reported as failed and begins again"
            raise RunFailed("the agent ended before the run did", subject=str(row.run), hint=hint)


def _say(settings: Settings, row: RunRow) -> None:
    fields = {"type": "run", "schema": 1, "run": str(row.run), "status": row.status or row.state}
    why = row.body.get("why")
    if settings.json:
        click.echo(json.dumps(fields | ({"why": why} if why else {})))
    else:
        click.echo(f"run {row.run}: {row.status or row.state}" + (f": {why}" if why else ""))
