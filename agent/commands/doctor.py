"""``lox-agent doctor``."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from agent.app import Settings
from model.exits import ExitCode


@click.command("doctor")
@click.pass_obj
def command(settings: Settings) -> int:
    """Find out what keeps the agent from working.

    Checks the configuration, the server's certificate and clock, the registration, scripts, ports, and whether what
    jobs back up can be read. Exit code 1 if something is wrong.
    """
    config = settings.load()
    from agent.doctor import BAD, examine
    from agent.redact import redact

    bad = False
    for check in examine(config):
        bad = bad or check.state == BAD
        if settings.json:
            click.echo(json.dumps({"type": "check", "schema": 1, **asdict(check)}))
        else:
            click.echo(
                redact(f"{check.state:<8} {check.name}: {check.text}" + (f" ({check.hint})" if check.hint else ""))
            )
    return ExitCode.FAILURE if bad else ExitCode.OK
