"""The command ``lox-server``: its list of commands, each imported when it is used."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from model import __version__
from model.command_line import LazyGroup

if TYPE_CHECKING:
    from control.settings import ServerSettings

# Name → what the help says. Each is `command` in control/commands/<name>.py, with _ for -.
COMMANDS = {
    "run": "Be the server until stopped; what the service runs.",
    "check": "Check settings, database, certificate, audit log and secrets.",
    "migrate": "Bring the database to the form that this version needs.",
    "create-admin": "Make an administrator, and a tenant for them.",
    "reset-password": "Give a person a new password.",
    "backup-db": "Write a consistent copy of the database to a file.",
    "restore-db": "Put such a copy in the place of the database.",
    "wheels": "Collect the packages that the installer of agents hands out.",
    "openapi": "Print the OpenAPI document of the API.",
    "version": "Print the version.",
}


CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


@dataclass(slots=True)
class Options:
    """What was given before the command."""

    config: Path | None = None
    json: bool = False
    debug: bool = False
    given: dict[str, Any] = field(default_factory=dict)

    def settings(self) -> ServerSettings:
        """The settings. Raises ConfigError."""
        from control.settings import load

        return load(self.config, self.given)

    def tell(self, text: str, **fields: object) -> None:
        """One result: text for people, or the fields as a line of JSON."""
        click.echo(json.dumps({"type": "result", "schema": 1, **fields}, default=str) if self.json else text)


@click.group(cls=LazyGroup, known=COMMANDS, prefix="control.commands.", context_settings=CONTEXT)
@click.option("--config", type=click.Path(path_type=Path), help="Settings. [default: /etc/lox-server/config.yaml]")
@click.option("--data-dir", type=click.Path(path_type=Path), help="Where the server keeps what it has.")
@click.option("--database-url", help="sqlite:///FILE or postgresql://... [default: SQLite in the data folder]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines instead of text.")
@click.option("--debug", is_flag=True, help="Show tracebacks of errors.")
@click.version_option(__version__, prog_name="lox-server", message="%(prog)s %(version)s")
@click.pass_obj
def root(
    options: Options, config: Path | None, data_dir: Path | None, database_url: str | None, as_json: bool, debug: bool
) -> None:
    """The control plane of LOX Backup: agents, jobs, runs and restores over one API."""
    options.config, options.json, options.debug = config, as_json, debug
    options.given = {"data_dir": data_dir, "database_url": database_url}
