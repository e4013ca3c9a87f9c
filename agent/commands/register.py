"""``lox-agent register``."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from agent.app import Settings

if TYPE_CHECKING:
    from agent.config import AgentConfig


@click.command("register")
@click.pass_obj
def command(settings: Settings) -> None:
    """Exchange the registration token for a credential.

    The agent does so by itself when it starts; this tells at once whether it works.
    """
    config = settings.load()
    click.echo(asyncio.run(_register(config)))


async def _register(config: AgentConfig) -> str:
    from agent import enrol
    from agent.server import Server
    from agent.state import State
    from agent.work_dir import WorkDir

    work = WorkDir(config.work_dir)
    work.prepare()
    state = State(work.state)
    try:
        if not enrol.wants_registration(config, work, state):
            return f"agent {config.agent_uuid} is registered with {config.api_url} already"
        async with Server(config, lambda: enrol.credential_of(work)) as server:
            await enrol.register(config, work, state, server)
    finally:
        state.close()
    return f"registered agent {config.agent_uuid} with {config.api_url}"
