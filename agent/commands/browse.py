"""``lox-agent browse``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import click

from agent.app import Settings
from agent.lines import job_tag
from model.errors import NotFound


@click.command("browse")
@click.argument("job")
@click.argument("snapshot", metavar="[SNAP]", required=False)
@click.argument("path", metavar="[PATH]", default="/")
@click.option("--long", "-l", "long_", is_flag=True, help="Show mode, owner, size and time as well.")
@click.pass_obj
def command(settings: Settings, job: str, snapshot: str | None, path: str, long_: bool) -> None:
    """List the backups of a job, or what is in one.

    JOB is the name or the id of a job of this host; SNAP an id as the list shows it, or 'latest'.
    """
    if snapshot is not None:
        shown = ["--long"] if long_ else []
        hand_over(settings, job, lambda chosen: ["ls", *shown, "--", chosen, path], snapshot)
        return
    _, tag, environment = _opened(settings, job)
    for found in _snapshots(environment, tag):
        if settings.json:
            click.echo(json.dumps(found))
        else:
            stats = found["stats"]
            click.echo(f"{found['id'][:8]}  {found['time'][:19]}Z  {stats.get('files', 0):,} files, "
                       f"{stats.get('bytes_total', 0):,} bytes")  # fmt: skip


def hand_over(settings: Settings, job: str, line: Callable[[str], list[str]], snapshot: str) -> None:
    """Become `lox`, with the repository of the job and its key; 'latest' is the latest of the job."""
    lox, tag, environment = _opened(settings, job)
    if snapshot == "latest":
        found = _snapshots(environment, tag)
        if not found:
            raise NotFound("there is no backup of this job yet", subject=job)
        snapshot = found[-1]["id"]
    os.execve(sys.executable, [*lox, *line(snapshot)], environment)


def _opened(settings: Settings, job: str) -> tuple[list[str], str, dict[str, str]]:
    """How `lox` is run for a job, the tag of the job's snapshots, and the environment of `lox`."""
    config = settings.load()
    from agent.host import Host
    from agent.jobs_here import find_job

    host = Host.of(config)
    found, place = find_job(host.state, job)
    host.state.close()
    host.repositories.require(place)
    lox = [sys.executable, "-P", "-m", "lox", *(["--json"] if settings.json else [])]
    return lox, job_tag(found.uuid), os.environ | host.repositories.environment(place)


def _snapshots(environment: dict[str, str], tag: str) -> list[dict[str, Any]]:
    """Snapshots with the tag, the newest last."""
    command = [sys.executable, "-P", "-m", "lox", "--json", "snapshots"]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=False)
    if done.returncode:
        raise SystemExit(done.returncode)  # it has said why
    events = [json.loads(text) for text in done.stdout.splitlines() if text.startswith(b"{")]
    return [event for event in events if event.get("type") == "snapshot" and tag in event.get("tags", ())]
