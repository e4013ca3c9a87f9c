"""``lox-agent status``."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from agent.app import Settings
from model import __version__
from model.exits import ExitCode

if TYPE_CHECKING:
    from agent.config import AgentConfig

RUNS_SHOWN = 10


@click.command("status")
@click.pass_obj
def command(settings: Settings) -> int:
    """Show what the agent does and when jobs run next.

    Exit code 1 if it does not run or is not registered.
    """
    found = gather(settings.load())
    if settings.json:
        click.echo(json.dumps(found))
    else:
        click.echo("\n".join(_lines(found)))
    return ExitCode.OK if found["running"] and found["registered"] else ExitCode.FAILURE


def gather(config: AgentConfig) -> dict[str, Any]:
    """What the files of the agent tell, whether it runs or not."""
    from agent import enrol, lines
    from agent.state import State
    from agent.work_dir import WorkDir
    from model.errors import LoxError
    from model.wire.policy import Policy

    work = WorkDir(config.work_dir)
    work.prepare()
    state = State(work.state)
    policy = Policy.model_validate(noted) if (noted := state.note("policy")) is not None else None
    names = {} if policy is None else {job.uuid: job.name for job in policy.jobs}
    marks, jobs = state.marks(), []
    for job in () if policy is None else policy.jobs:
        try:
            table = lines.timetable(job)
            until = marks[job.uuid].until if job.uuid in marks else time.time()
            due = None if table is None else table.next(until, time.time())
        except LoxError:
            due = None
        jobs.append({"uuid": str(job.uuid), "name": job.name, "enabled": job.enabled, "next_run": _time(due)})
    runs = state.runs("waiting", "running", "ended")[-RUNS_SHOWN:]
    pid = work.running_pid()
    found = {
        "agent_uuid": str(config.agent_uuid),
        "server": config.api_url,
        "version": __version__,
        "running": pid is not None,
        "pid": pid,
        "registered": enrol.credential_of(work) is not None,
        "last_heartbeat": _time(state.note("heard")),
        "policy_revision": None if policy is None else policy.revision,
        "untold_events": state.spooled(),
        "jobs": jobs,
        "runs": [
            {"uuid": str(row.run), "kind": row.kind, "job": names.get(row.job) if row.job else None,
             "status": row.status or row.state, "begun": _time(row.begun), "ended": _time(row.ended)}
            for row in runs
        ],
    }  # fmt: skip
    state.close()
    return found


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _lines(found: dict[str, Any]) -> list[str]:
    how = f"running (process {found['pid']})" if found["running"] else "not running"
    registered = "registered" if found["registered"] else "not registered"
    told = [
        f"agent {found['agent_uuid']}, version {found['version']}: {how}, {registered} with {found['server']}",
        f"last heartbeat {found['last_heartbeat'] or 'never'}, {found['untold_events']} events to be sent",
    ]
    told += [f"job {job['name']}: next {job['next_run'] or 'when asked for'}" for job in found["jobs"]]
    for run in found["runs"]:
        told.append(f"{run['kind']} {run['job'] or run['uuid']}: {run['status']}, began {run['begun'] or '-'}, "
                    f"ended {run['ended'] or '-'}")  # fmt: skip
    return told
