"""Heartbeats: kept in memory, and written to the database together every few seconds.

Two thousand agents would be thirty transactions a second that each say nothing new. What a crash of the server can lose
is who was there in the last seconds; every agent says it again within a minute.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import bindparam, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from control.alerts.raising import raise_alert, raise_of_agents, resolve_alerts, unresolved
from control.db.base import now
from control.db.engine import Sessions
from control.fleet.tables import AgentRow
from model.wire.agents import OFFLINE_SECONDS, AgentStatus, HeartbeatIn

FLUSH_SECONDS = 5.0
SKEW_SECONDS = 60.0  # between the clocks of a host and of the server, before an operator is told
OFFLINE = timedelta(seconds=OFFLINE_SECONDS)


@dataclass(frozen=True, slots=True)
class Beat:
    """A heartbeat, and when it came by the server's clock."""

    tenant: UUID
    received: datetime
    said: HeartbeatIn

    @property
    def skew(self) -> float:
        """Seconds that the host's clock is ahead."""
        return (self.said.time - self.received).total_seconds()


class Heartbeats:
    """The newest heartbeat of each agent that this process has not written yet."""

    def __init__(self, sessions: Sessions, log: Any) -> None:
        self._sessions = sessions
        self._log = log
        self._beats: dict[UUID, Beat] = {}
        self._present: set[UUID] = set()
        self.count = 0  # since the process began

    def beat(self, agent: UUID, tenant: UUID, said: HeartbeatIn) -> bool:
        """Note a heartbeat. Returns whether it is the first that this process had of the agent."""
        self._beats[agent] = Beat(tenant, now(), said)
        self.count += 1
        first = agent not in self._present
        self._present.add(agent)
        return first

    def newest(self, agent: UUID) -> Beat | None:
        """What is not in the database yet."""
        return self._beats.get(agent)

    async def run(self) -> None:
        """For ever: write every few seconds."""
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            try:
                await self.flush()
            except Exception:  # a database that cannot be written to now: they are kept, and come with the next
                self._log.exception("heartbeats could not be written")

    async def flush(self) -> None:
        """Write all. If that fails they are kept for the next time."""
        beats, self._beats = self._beats, {}
        if not beats:
            return
        try:
            async with self._sessions.begin() as session:
                await self._write(session, beats)
        except BaseException:
            self._beats = beats | self._beats
            raise

    async def _write(self, session: AsyncSession, beats: dict[UUID, Beat]) -> None:
        known = {
            row.uuid: (row.heartbeat_sequence, row.offline_since)
            for row in await session.execute(
                select(AgentRow.uuid, AgentRow.heartbeat_sequence, AgentRow.offline_since).where(
                    AgentRow.uuid.in_(list(beats))
                )
            )
        }
        written = [_values(agent, beats[agent]) for agent in sorted(known)]  # in the order in which others lock them
        if written:
            connection = await session.connection()
            await connection.execute(_UPDATE, written)
        await resolve_alerts(session, "offline", *(agent for agent, (_, since) in known.items() if since is not None))
        skewed = await unresolved(session, "clock_skew", list(known))
        for agent, (sequence, _) in known.items():
            await self._look(session, agent, beats[agent], sequence, agent in skewed)

    async def _look(self, session: AsyncSession, agent: UUID, beat: Beat, sequence: int, skewed: bool) -> None:
        if beat.said.sequence < sequence:
            text = "two hosts seem to work with the same credential: heartbeats went back in their count"
            await raise_alert(session, beat.tenant, "token_reuse", agent, text, agent=agent)
        if abs(beat.skew) > SKEW_SECONDS:
            ahead = "ahead of" if beat.skew > 0 else "behind"
            text = f"the host's clock is {abs(beat.skew):.0f} s {ahead} the server's: schedules run at the wrong time"
            await raise_alert(session, beat.tenant, "clock_skew", agent, text, agent=agent, lasting=True)
        elif skewed:
            await resolve_alerts(session, "clock_skew", agent)


_UPDATE = (
    update(AgentRow.__table__)  # type: ignore[arg-type]
    .where(AgentRow.__table__.c.uuid == bindparam("agent"))
    .values(
        last_heartbeat_at=bindparam("received"),
        heartbeat_sequence=bindparam("count"),
        heartbeat=bindparam("said"),
        version=bindparam("release"),
        offline_since=None,
    )
)


def _values(agent: UUID, beat: Beat) -> dict[str, Any]:
    return {
        "agent": agent,
        "received": beat.received,
        "count": beat.said.sequence,
        "said": beat.said.model_dump(mode="json"),
        "release": beat.said.health.version,
    }


def status_of(row: AgentRow, beat: Beat | None = None) -> AgentStatus:
    """Whether an agent is there, by the newest heartbeat that is known."""
    if row.revoked:
        return "revoked"
    last = beat.received if beat is not None else row.last_heartbeat_at
    if row.registered_at is None or last is None:
        return "registered"
    return "online" if now() - last < OFFLINE else "offline"


async def note_offline(session: AsyncSession) -> list[UUID]:
    """Raise an alert for each agent that has been silent for too long since it was last there. Returns them."""
    before = now() - OFFLINE
    gone = (
        await session.execute(
            update(AgentRow)
            .where(AgentRow.last_heartbeat_at < before, AgentRow.offline_since.is_(None), AgentRow.revoked.is_(False))
            .values(offline_since=now())
            .returning(AgentRow.uuid, AgentRow.tenant_id, AgentRow.name, AgentRow.last_heartbeat_at)
        )
    ).all()
    texts = {
        (tenant, uuid): f"{name} has sent no heartbeat since {last:%Y-%m-%d %H:%M:%S} UTC"
        for uuid, tenant, name, last in gone
    }
    await raise_of_agents(session, "offline", "critical", texts)
    return [row.uuid for row in gone]
