"""``lox-agent config``."""

from __future__ import annotations

import json

import click

from agent.app import Settings
from model.exits import ExitCode


@click.group("config", subcommand_metavar="COMMAND [ARGS]...")
def command() -> None:
    """Show and check the configuration."""


@command.command("path")
@click.pass_obj
def path(settings: Settings) -> None:
    """Print where the configuration is."""
    from agent.config import default_path

    click.echo(settings.config or default_path())


@command.command("show")
@click.pass_obj
def show(settings: Settings) -> None:
    """Show the configuration with all defaults filled in, without secrets."""
    from agent.redact import redacted

    config = settings.load()
    fields = redacted(config.model_dump(mode="json"))
    if config.registration_token is None:
        del fields["registration_token"]
    if settings.json:
        click.echo(json.dumps(fields))
        return
    import yaml

    click.echo(yaml.safe_dump(fields, sort_keys=False), nl=False)


@command.command("validate")
@click.pass_obj
def validate(settings: Settings) -> int:
    """Check the configuration; all faults are listed with their line and column."""
    from agent.config import AgentConfig, default_path
    from pipelines.settings_file import read_file, read_settings

    where = settings.config or default_path()
    found, faults = read_settings(AgentConfig, read_file(where), str(where))
    for fault in faults:
        if settings.json:
            click.echo(json.dumps({"type": "fault", "schema": 1, **fault.fields()}))
        else:
            click.echo(f"{fault.place}: {fault.reason}" + (f" ({fault.hint})" if fault.hint else ""))
    if found is not None and not settings.json:
        click.echo(f"{where} is valid")
    return ExitCode.OK if found is not None else ExitCode.INVALID_CONFIGURATION
