"""Commands for agents: a durable queue each, numbered from 1, and what wakes those who wait for the next one.

A command stays until its agent asks for those after it, or until it expires. Waiting requests of this process are woken
by an event; those of other processes on the same database see it by looking every `LOOK_SECONDS`.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import delete, func, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from control.db.base import new_id, now
from control.db.engine import Sessions
from control.fleet.known import KnownAgents
from control.fleet.tables import AgentRow, CommandRow
from model.wire.commands import Command, CommandBody, Commands, RefreshPolicy

LOOK_SECONDS = 0.2
BATCH = 100  # commands of one answer
SOON = timedelta(minutes=2)  # for answers that somebody waits for
REFRESH = timedelta(hours=1)  # the revision in the answers to heartbeats tells it too
RUN = timedelta(hours=24)


class Wakes:
    """Who waits for commands in this process."""

    def __init__(self, known: KnownAgents) -> None:
        self._known = known
        self._waiting: dict[UUID, set[asyncio.Event]] = {}
        self._taken: dict[UUID, int] = {}

    def wake(self, agent: UUID) -> None:
        """Something about `agent` changed, or there is a command for it. To be called after the commit."""
        self._known.forget(agent)
        for event in self._waiting.get(agent, ()):
            event.set()

    def wake_all(self) -> None:
        """Let all go: the server ends."""
        for agent in list(self._waiting):
            self.wake(agent)

    async def wait(self, agent: UUID, event: asyncio.Event, seconds: float) -> bool:
        """Wait for `event`, which `watch` gave. Returns whether it came within `seconds`."""
        with suppress(TimeoutError):
            await asyncio.wait_for(event.wait(), seconds)
        return event.is_set()

    def watch(self, agent: UUID) -> asyncio.Event:
        """An event that is set from now on by `wake`; give it back by `leave`."""
        event = asyncio.Event()
        self._waiting.setdefault(agent, set()).add(event)
        return event

    def has_taken(self, agent: UUID) -> int:
        """The last command that the database knows the agent to have; 0 if this process did not write that yet."""
        return self._taken.get(agent, 0)

    def note_taken(self, agent: UUID, after: int) -> None:
        """The database knows it now."""
        self._taken[agent] = after

    def leave(self, agent: UUID, event: asyncio.Event) -> None:
        """Nobody waits for `event` any more."""
        waiting = self._waiting.get(agent, set())
        waiting.discard(event)
        if not waiting:
            self._waiting.pop(agent, None)

    async def look(self, sessions: Sessions, log: Any) -> None:
        """For ever: wake those for whom another process left a command. One small query for all agents."""
        seen = now()
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if not self._waiting:
                continue
            begun = now()
            try:
                async with sessions() as session:
                    fresh = select(CommandRow.agent_uuid).where(CommandRow.created_at > seen - timedelta(seconds=5))
                    for agent in (await session.scalars(fresh.distinct())).all():
                        self.wake(agent)
            except (
                SQLAlchemyError,
                OSError,
            ) as error:  # the database may be away: what was left meanwhile is seen then
                log.warning("looking for commands failed", error=str(error).splitlines()[0])
                continue
            seen = begun


async def enqueue(session: AsyncSession, agent: UUID, body: CommandBody, lifetime: timedelta) -> UUID:
    """Put a command into the queue of `agent`; wake it after the commit. Returns the command's id."""
    tenant, sequence = (
        await session.execute(
            update(AgentRow)
            .where(AgentRow.uuid == agent)
            .values(command_sequence=AgentRow.command_sequence + 1)
            .returning(AgentRow.tenant_id, AgentRow.command_sequence)
        )
    ).one()
    row = CommandRow(
        uuid=new_id(),
        tenant_id=tenant,
        agent_uuid=agent,
        sequence=sequence,
        body=body.model_dump(mode="json"),
        created_at=now(),
        expires_at=now() + lifetime,
    )
    session.add(row)
    await session.flush()
    return row.uuid


async def policy_changed(session: AsyncSession, agent: UUID) -> None:
    """The policy of `agent` is another now: it is to fetch it. Wake it after the commit."""
    await session.execute(
        update(AgentRow).where(AgentRow.uuid == agent).values(policy_revision=AgentRow.policy_revision + 1)
    )
    await enqueue(session, agent, RefreshPolicy(), REFRESH)


async def taken(session: AsyncSession, agent: UUID, after: int) -> None:
    """The agent has all up to `after`. If there never were as many, the database is an old one."""
    await session.execute(delete(CommandRow).where(CommandRow.agent_uuid == agent, CommandRow.sequence <= after))
    await session.execute(
        update(AgentRow).where(AgentRow.uuid == agent, AgentRow.command_sequence < after).values(command_sequence=after)
    )


async def commands_after(session: AsyncSession, agent: UUID, after: int) -> Commands:
    """What waits for `agent`, oldest first."""
    rows = await session.scalars(
        select(CommandRow)
        .where(CommandRow.agent_uuid == agent, CommandRow.sequence > after, CommandRow.expires_at > now())
        .order_by(CommandRow.sequence)
        .limit(BATCH)
    )
    return Commands(commands=[_command(row) for row in rows])


async def expire(session: AsyncSession, at: datetime) -> int:
    """Remove what nobody came for in time. Returns how many."""
    count = await session.scalar(select(func.count()).where(CommandRow.expires_at < at))
    if count:
        await session.execute(delete(CommandRow).where(CommandRow.expires_at < at))
    return count or 0


def _command(row: CommandRow) -> Command:
    return Command.model_validate(
        {"sequence": row.sequence, "id": row.uuid, "created_at": row.created_at, "expires_at": row.expires_at,
         "body": row.body}
    )  # fmt: skip
