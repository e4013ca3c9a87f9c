"""The command ``lox-agent``: its list of commands, each imported when it is used."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from model import __version__
from model.command_line import LazyGroup

if TYPE_CHECKING:
    from agent.config import AgentConfig

# Name → what the help says. Each is `command` in agent/commands/<name>.py, with _ for -.
COMMANDS = {
    "run": "Be the agent of this host until stopped; what the service runs.",
    "register": "Exchange the registration token for a credential.",
    "status": "Show what the agent does and when jobs run next.",
    "backup": "Run a job now.",
    "restore": "Restore from a backup of a job of this host.",
    "browse": "List the backups of a job, or what is in one.",
    "config": "Show and check the configuration.",
    "service": "Install, remove, start and stop the service.",
    "doctor": "Find out what keeps the agent from working.",
    "rotate-token": "Get a new credential from the server, and let the old one die.",
    "metrics": "Print the metrics of this host.",
    "version": "Print the version.",
}


CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


@dataclass(slots=True)
class Settings:
    """What the options before the command say."""

    config: Path | None = None
    json: bool = False
    debug: bool = False

    def load(self) -> AgentConfig:
        """The configuration. Raises ConfigError."""
        from agent.config import load

        return load(self.config)


@click.group(cls=LazyGroup, known=COMMANDS, prefix="agent.commands.", context_settings=CONTEXT)
@click.option("--config", type=click.Path(path_type=Path), help="The configuration. [env: LOX_AGENT_CONFIG]")
@click.option("--json", is_flag=True, help="Print JSON instead of text.")
@click.option("--debug", is_flag=True, help="Show tracebacks of errors.")
@click.version_option(__version__, prog_name="lox-agent", message="%(prog)s %(version)s")
@click.pass_context
def root(ctx: click.Context, config: Path | None, json: bool, debug: bool) -> None:
    """The agent of LOX Backup: backs up this host as its server says and its own configuration allows."""
    settings = ctx.ensure_object(Settings)
    settings.config, settings.json, settings.debug = config, json, debug or bool(os.environ.get("LOX_AGENT_DEBUG"))
