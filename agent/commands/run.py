"""``lox-agent run``."""

from __future__ import annotations

import click

from agent.app import Settings


@click.command("run")
@click.pass_obj
def command(settings: Settings) -> None:
    """Be the agent of this host until stopped; what the service runs."""
    config = settings.load()
    import asyncio

    from agent.daemon import run

    asyncio.run(run(config))
