"""``lox-agent rotate-token``."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from typing import TYPE_CHECKING

import click

from agent.app import Settings
from model.errors import RunFailed, UsageError

if TYPE_CHECKING:
    from agent.config import AgentConfig
    from agent.work_dir import WorkDir

PATIENCE = 60.0  # seconds for the running agent to have it
LOOK_SECONDS = 0.2


@click.command("rotate-token")
@click.pass_obj
def command(settings: Settings) -> None:
    """Get a new credential from the server, and let the old one die.

    The old one works until the new one is in use, so a crash in between locks nobody out. The running agent fetches
    the new one, and what it does goes on; without one, this command does. Do this when somebody may have seen the
    credential. Operators do the same with 'lox agent rotate-token'.
    """
    config = settings.load()
    from agent import enrol
    from agent.work_dir import WorkDir

    work = WorkDir(config.work_dir)
    work.prepare()
    before = enrol.credential_of(work)
    if before is None:
        raise UsageError("this agent is not registered", hint="run lox-agent register")
    asyncio.run(_ask(config, work))
    if (pid := work.running_pid()) is None:
        with work.only_one():
            asyncio.run(_fetch(config))
    else:
        os.kill(pid, signal.SIGHUP)
        _wait(work, before)
    if enrol.credential_of(work) == before:
        why = "the server had none ready"
        raise RunFailed("there is no new credential yet", why=why, hint="the agent gets it with a heartbeat")
    asyncio.run(_use(config, work))
    if settings.json:
        click.echo(json.dumps({"type": "rotation", "schema": 1, "agent_uuid": str(config.agent_uuid)}))
    else:
        click.echo(f"agent {config.agent_uuid} has a new credential; the old one is good for nothing in 30 s")


async def _ask(config: AgentConfig, work: WorkDir) -> None:
    from agent import enrol
    from agent.server import Server

    async with Server(config, lambda: enrol.credential_of(work)) as server:
        await server.rotate()


async def _fetch(config: AgentConfig) -> None:
    """As the agent would, which does not run: the caller holds its lock."""
    from agent.daemon import Daemon

    await Daemon(config).beat_until_credential()


def _wait(work: WorkDir, before: str) -> None:
    from agent import enrol

    end = time.monotonic() + PATIENCE
    while enrol.credential_of(work) == before and time.monotonic() < end:
        time.sleep(LOOK_SECONDS)


async def _use(config: AgentConfig, work: WorkDir) -> None:
    """The first use of the new one makes the old one invalid."""
    from agent import enrol
    from agent.server import Server

    async with Server(config, lambda: enrol.credential_of(work)) as server:
        await server.policy(None)
