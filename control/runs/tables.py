"""Tables of runs, what they said, and the backups that came of them."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, ForeignKey, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from control.db.base import Base, new_id, now


class RunRow(Base):
    """A run. `state` holds the parts that are only shown: progress, summary, error."""

    __tablename__ = "runs"
    __table_args__ = (
        Index(None, "tenant_id", "created_at", "uuid"),
        Index(None, "job_uuid", "created_at"),
        Index(None, "agent_uuid", "status"),
        Index(None, "status"),
        Index(None, "created_at"),
    )

    uuid: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.uuid", ondelete="CASCADE"))
    agent_uuid: Mapped[UUID] = mapped_column(ForeignKey("agents.uuid", ondelete="CASCADE"))
    job_uuid: Mapped[UUID | None] = mapped_column(ForeignKey("jobs.uuid", ondelete="SET NULL"))
    job_name: Mapped[str | None] = mapped_column(String(200))
    repository_uuid: Mapped[UUID | None] = mapped_column(ForeignKey("repositories.uuid", ondelete="SET NULL"))
    kind: Mapped[str] = mapped_column(String(16))
    status: Mapped[str] = mapped_column(String(16))
    trigger: Mapped[str] = mapped_column(String(16))
    mode: Mapped[str | None] = mapped_column(String(16))
    attempt: Mapped[int] = mapped_column(default=1)
    scheduled_for: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(default=now)
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    heard_at: Mapped[datetime] = mapped_column(default=now)  # the last event, by the server's clock
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    exit_code: Mapped[int | None]
    sequence: Mapped[int] = mapped_column(BigInteger, default=0)  # of the last event taken
    progress: Mapped[dict[str, Any] | None]
    summary: Mapped[dict[str, Any] | None]
    error: Mapped[dict[str, Any] | None]
    request: Mapped[dict[str, Any] | None]  # what was asked of a restore
    problems: Mapped[int] = mapped_column(default=0)  # all of them; only the first are kept
    log_lines: Mapped[int] = mapped_column(default=0)


class RunLineRow(Base):
    """A line of the log of a run, or a problem with an entry."""

    __tablename__ = "run_lines"
    __table_args__ = (Index(None, "run_uuid", "kind", "sequence"),)

    run_uuid: Mapped[UUID] = mapped_column(ForeignKey("runs.uuid", ondelete="CASCADE"), primary_key=True)
    sequence: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.uuid", ondelete="CASCADE"))
    kind: Mapped[str] = mapped_column(String(8))  # log or problem
    time: Mapped[datetime]
    level: Mapped[str] = mapped_column(String(8), default="info")
    path: Mapped[str | None] = mapped_column(Text)
    path_b64: Mapped[str | None] = mapped_column(Text)
    text: Mapped[str] = mapped_column(Text)


class MachineBackupRow(Base):
    """A snapshot that a run made."""

    __tablename__ = "machine_backups"
    __table_args__ = (Index(None, "tenant_id", "time", "uuid"), Index(None, "job_uuid", "time"))

    uuid: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.uuid", ondelete="CASCADE"))
    agent_uuid: Mapped[UUID] = mapped_column(ForeignKey("agents.uuid", ondelete="CASCADE"))
    job_uuid: Mapped[UUID | None] = mapped_column(ForeignKey("jobs.uuid", ondelete="SET NULL"))
    run_uuid: Mapped[UUID] = mapped_column(ForeignKey("runs.uuid", ondelete="CASCADE"), unique=True)
    repository_uuid: Mapped[UUID] = mapped_column(ForeignKey("repositories.uuid"))
    snapshot: Mapped[str] = mapped_column(String(128))
    time: Mapped[datetime]
    complete: Mapped[bool]
    files: Mapped[int] = mapped_column(BigInteger)
    bytes: Mapped[int] = mapped_column(BigInteger)
    bytes_stored: Mapped[int] = mapped_column(BigInteger)
