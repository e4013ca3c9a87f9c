"""Agents: registration by an operator, enrolment by the host, heartbeats, health."""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field, StringConstraints

from model.wire.base import Answer, Body, Count, Hostname, Mbps, Name, Path, Tags, Tally, Utc

Os = Literal["linux", "windows", "macos"]
AgentStatus = Literal["registered", "online", "offline", "revoked"]
Version = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"^[0-9A-Za-z.+_-]+$")]
Secret = Annotated[str, StringConstraints(min_length=16, max_length=200, pattern=r"^[A-Za-z0-9_-]+$")]
HEARTBEAT_SECONDS = 60
OFFLINE_SECONDS = 300  # without a heartbeat


class AgentIn(Body):
    """POST /api/v1/agents."""

    hostname: Hostname
    os: Os
    name: Name | None = None  # the hostname, if there is none
    tags: Tags = []


class AgentChange(Body):
    """PATCH /api/v1/agents/{uuid}: fields that are given are changed."""

    name: Name | None = None
    tags: Tags | None = None
    paused: bool | None = None  # a paused agent starts no scheduled run
    bandwidth_limit_mbps: Mbps | None = None  # null: what the host's own file says


class Disk(Answer):
    """Room on one file system, in bytes."""

    path: Path
    free: Count
    total: Count


class Health(Answer):
    """What an agent says about itself with each heartbeat."""

    version: Version
    python: Annotated[str, StringConstraints(max_length=64)] = ""
    system: Annotated[str, StringConstraints(max_length=200)] = ""  # kernel and distribution
    uptime_seconds: Annotated[float, Field(ge=0)] = 0
    memory_bytes: Count = 0  # resident, of the agent itself
    clock_skew_seconds: float | None = None  # of the host against the server, as the agent sees it
    disks: Annotated[list[Disk], Field(max_length=64)] = []
    spooled_events: Count = 0  # waiting to be sent
    policy_revision: Count = 0  # the policy by which the agent works
    hooks: Annotated[list[Annotated[str, StringConstraints(max_length=100)]], Field(max_length=256)] = []
    warnings: Annotated[list[Annotated[str, StringConstraints(max_length=500)]], Field(max_length=32)] = []


class Agent(Answer):
    """GET /api/v1/agents/{uuid}."""

    uuid: UUID
    hostname: str
    name: str
    os: Os
    status: AgentStatus
    tags: list[str] = []
    paused: bool = False
    bandwidth_limit_mbps: float | None = None
    version: str | None = None
    created_at: Utc
    registered_at: Utc | None = None
    last_heartbeat_at: Utc | None = None
    metrics_port: int | None = None
    running: list[UUID] = []
    rotation_pending: bool = False
    policy_revision: int


class AgentHealth(Answer):
    """GET /api/v1/agents/{uuid}/health."""

    uuid: UUID
    status: AgentStatus
    last_heartbeat_at: Utc | None = None
    health: Health | None = None
    next_runs: dict[UUID, Utc] = {}
    problems: list[str] = []  # what an operator should look at, in words


class InstallCommand(Answer):
    """How to install the agent; the token in it is shown only here."""

    registration_token: str
    expires_at: Utc
    install_command: str


class NewAgent(Agent, InstallCommand):
    """201 of POST /api/v1/agents."""


class RegisterIn(Body):
    """POST /api/v1/agent/register. The same machine may repeat it with the same Idempotency-Key for ten minutes."""

    agent_uuid: UUID
    registration_token: Secret
    hostname: Hostname
    os: Os
    version: Version
    machine_id: Annotated[str, StringConstraints(min_length=8, max_length=128, pattern=r"^[A-Za-z0-9._:-]+$")]


class Registered(Answer):
    """What an agent gets for its token: its own credential."""

    credential: str
    heartbeat_interval: int  # seconds
    server_time: Utc
    tenant: str


class HeartbeatIn(Body):
    """POST /api/v1/agent/heartbeat."""

    time: Utc  # by the host's clock
    sequence: Tally  # grows with each heartbeat of this agent, also over restarts
    health: Health
    running: Annotated[list[UUID], Field(max_length=256)] = []
    metrics_port: Annotated[int, Field(ge=1, le=65_535)] | None = None
    next_runs: Annotated[dict[UUID, Utc], Field(max_length=2_000)] = {}


class HeartbeatOut(Answer):
    """`credential` is a new one, to be stored and used from now on: the old one dies when the new one is first used."""

    server_time: Utc
    policy_revision: int
    heartbeat_interval: int  # seconds
    credential: str | None = None


class Rotation(Answer):
    """POST /api/v1/agents/{uuid}/rotate-token: the agent gets its new credential with its next heartbeat."""

    uuid: UUID
    rotation_pending: bool
    grace_until: Utc
