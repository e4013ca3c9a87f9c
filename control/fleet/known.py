"""Agents that were let in a moment ago: a run that reports every second is not looked up every second."""

from __future__ import annotations

import time
from dataclasses import dataclass
from uuid import UUID

from control.auth.secrets import Secret

FRESH_SECONDS = 5.0  # how long what another process changed (a revocation, too) may go unnoticed
KNOWN_MAX = 50_000


@dataclass(frozen=True, slots=True)
class KnownAgent:
    """The agent that a credential belongs to, and what its requests need to know of it."""

    uuid: UUID
    tenant: UUID
    policy_revision: int
    rotation: bool


class KnownAgents:
    """By agent: the hash of its credential, when it was looked up, and what was found."""

    def __init__(self) -> None:
        self._known: dict[UUID, tuple[bytes, float, KnownAgent]] = {}
        self._agents: dict[UUID, UUID] = {}

    def get(self, secret: Secret) -> KnownAgent | None:
        """What was found lately for `secret`."""
        found = self._known.get(secret.uuid)
        if found is None or time.monotonic() - found[1] > FRESH_SECONDS or not secret.matches(found[0]):
            return None
        return found[2]

    def of(self, agent: UUID) -> KnownAgent:
        """What was found when the request under way was let in. Raises KeyError if it has been forgotten since."""
        return self._known[self._agents[agent]][2]

    def put(self, secret: Secret, agent: KnownAgent) -> None:
        """Remember what was found for `secret`, and forget any other of the same agent."""
        self.forget(agent.uuid)
        if len(self._known) >= KNOWN_MAX:
            self._known.clear()
            self._agents.clear()
        self._known[secret.uuid] = (secret.hash, time.monotonic(), agent)
        self._agents[agent.uuid] = secret.uuid

    def forget(self, agent: UUID) -> None:
        """Something about `agent` changed."""
        credential = self._agents.pop(agent, None)
        if credential is not None:
            self._known.pop(credential, None)
