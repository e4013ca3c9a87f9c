"""``lox-agent register``."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from agent.app import Settings
from model.errors import UsageError

if TYPE_CHECKING:
    from agent.config import AgentConfig


@click.command("register")
@click.option(
    "--token-file", metavar="FILE", help="A new token: the first line of this file. [env: LOX_TOKEN holds one]"
)
@click.pass_obj
def command(settings: Settings, token_file: str | None) -> None:
    """Exchange the registration token for a credential.

    The agent does so by itself when it starts, with the token of its configuration; this tells at once whether it
    works. An agent that the server revoked is let in again by the token of a reissued install command: give that here.
    """
    config = settings.load()
    if token := _given(token_file):
        config = config.model_copy(update={"registration_token": token})
    click.echo(asyncio.run(_register(config)))


def _given(file: str | None) -> str | None:
    from agent.config import checked_token

    try:
        text = os.environ.get("LOX_TOKEN") if file is None else Path(file).read_text("ascii").partition("\n")[0].strip()
        return checked_token(text) if text else None
    except OSError as error:
        raise UsageError("cannot read the token", subject=file or "", why=(error.strerror or "").lower()) from error
    except ValueError as error:
        raise UsageError("no token", subject=file or "LOX_TOKEN", why=str(error)) from error


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
            await enrol.register(config, work, state, server, insist=True)
    finally:
        state.close()
    return f"registered agent {config.agent_uuid} with {config.api_url}"
