"""``lox-agent rotate-token``."""

from __future__ import annotations

import os
import signal

import click

from agent.app import Settings
from model.errors import UsageError


@click.command("rotate-token")
@click.pass_obj
def command(settings: Settings) -> None:
    """Fetch the new credential that the server has ready.

    A rotation begins at the server, in the dashboard or with 'lox agent rotate-token'; the agent gets the new
    credential with its next heartbeat. This makes the running agent send one now.
    """
    config = settings.load()
    from agent.work_dir import WorkDir

    pid = WorkDir(config.work_dir).running_pid()
    if pid is None:
        raise UsageError("the agent does not run", hint="start it; it fetches the credential then")
    os.kill(pid, signal.SIGHUP)
    click.echo("asked the agent to fetch its credential now")
