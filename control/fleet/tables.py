"""Tables of agents, their credentials and commands."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ForeignKey, Index, LargeBinary, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from control.db.base import Base, new_id, now


class AgentRow(Base):
    """An agent. What its last heartbeat said is here too; flushed in batches, so up to 5 s late."""

    __tablename__ = "agents"
    __table_args__ = (Index(None, "tenant_id", "uuid"),)

    uuid: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.uuid", ondelete="CASCADE"))
    hostname: Mapped[str] = mapped_column(String(253))
    name: Mapped[str] = mapped_column(String(200))
    os: Mapped[str] = mapped_column(String(16))
    tags: Mapped[list[str]] = mapped_column(default=list)
    paused: Mapped[bool] = mapped_column(default=False)
    bandwidth_limit_mbps: Mapped[float | None]
    revoked: Mapped[bool] = mapped_column(default=False)
    machine_id: Mapped[str | None] = mapped_column(String(128))
    version: Mapped[str | None] = mapped_column(String(64))
    policy_revision: Mapped[int] = mapped_column(default=1)
    command_sequence: Mapped[int] = mapped_column(default=0)  # of the newest command
    created_at: Mapped[datetime] = mapped_column(default=now)
    registered_at: Mapped[datetime | None]
    last_heartbeat_at: Mapped[datetime | None]
    heartbeat_sequence: Mapped[int] = mapped_column(default=0)
    heartbeat: Mapped[dict[str, Any] | None]  # the last one, as it came
    offline_since: Mapped[datetime | None]  # an alert was raised


class RegistrationRow(Base):
    """A registration token: one at a time for an agent. A new one replaces it."""

    __tablename__ = "registration_tokens"

    uuid: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.uuid", ondelete="CASCADE"))
    agent_uuid: Mapped[UUID] = mapped_column(ForeignKey("agents.uuid", ondelete="CASCADE"), index=True)
    secret_hash: Mapped[bytes] = mapped_column(LargeBinary(32))
    expires_at: Mapped[datetime]
    used_at: Mapped[datetime | None]
    used_key: Mapped[bytes | None] = mapped_column(LargeBinary(32))  # hash of the Idempotency-Key and the machine
    credential_uuid: Mapped[UUID | None]  # made for it: what a repetition replaces


class CredentialRow(Base):
    """A credential: ``pending`` until its first use, ``active``, ``retired`` by its successor, or ``revoked``."""

    __tablename__ = "agent_credentials"

    uuid: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.uuid", ondelete="CASCADE"))
    agent_uuid: Mapped[UUID] = mapped_column(ForeignKey("agents.uuid", ondelete="CASCADE"), index=True)
    secret_hash: Mapped[bytes] = mapped_column(LargeBinary(32))
    state: Mapped[str] = mapped_column(String(16))
    created_at: Mapped[datetime] = mapped_column(default=now)
    first_used_at: Mapped[datetime | None]
    retired_at: Mapped[datetime | None]


class RotationRow(Base):
    """A rotation asked for and not yet done. The new credential is made when the agent fetches it."""

    __tablename__ = "credential_rotations"

    agent_uuid: Mapped[UUID] = mapped_column(ForeignKey("agents.uuid", ondelete="CASCADE"), primary_key=True)
    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.uuid", ondelete="CASCADE"))
    asked_at: Mapped[datetime] = mapped_column(default=now)
    grace_until: Mapped[datetime]


class CommandRow(Base):
    """A command for an agent; kept until the agent asks for those after it, or it expires."""

    __tablename__ = "commands"
    __table_args__ = (UniqueConstraint("agent_uuid", "sequence"),)

    uuid: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.uuid", ondelete="CASCADE"))
    agent_uuid: Mapped[UUID] = mapped_column(ForeignKey("agents.uuid", ondelete="CASCADE"))
    sequence: Mapped[int]
    body: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(default=now, index=True)  # by which other processes see new ones
    expires_at: Mapped[datetime]
