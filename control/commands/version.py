"""lox-server version."""

from __future__ import annotations

import click

from control.cli import Options
from model import __version__


@click.command()
@click.pass_obj
def command(options: Options) -> None:
    """Print the version."""
    options.tell(f"lox-server {__version__}", version=__version__)
