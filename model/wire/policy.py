"""What an agent works by when nobody can be asked: its settings, its jobs, their repositories."""

from __future__ import annotations

from uuid import UUID

from model.wire.base import Answer
from model.wire.jobs import JobFields
from model.wire.repositories import Encryption


class PolicyJob(JobFields):
    """A job as its agent gets it. `repository_uuid` is always given."""

    uuid: UUID
    repository_uuid: UUID


class PolicyRepository(Answer):
    """Where data goes, without a secret."""

    uuid: UUID
    name: str
    url: str
    vault: bool
    encryption: Encryption
    maintenance: bool  # this agent forgets and prunes
    scheduled: bool = False  # the server says when it prunes; else after a backup, once a day


class Policy(Answer):
    """GET /api/v1/agent/policy. Its ETag is the revision."""

    revision: int
    agent_uuid: UUID
    name: str
    heartbeat_interval: int  # seconds
    paused: bool
    bandwidth_limit_mbps: float | None
    jobs: list[PolicyJob]
    repositories: list[PolicyRepository]
