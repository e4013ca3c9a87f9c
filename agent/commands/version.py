"""``lox-agent version``."""

from __future__ import annotations

import json
import platform

import click

from agent.app import Settings
from model import __version__


@click.command("version")
@click.pass_obj
def command(settings: Settings) -> None:
    """Print the version."""
    if settings.json:
        click.echo(json.dumps({"version": __version__, "python": platform.python_version()}))
    else:
        click.echo(f"lox-agent {__version__}, Python {platform.python_version()}")
