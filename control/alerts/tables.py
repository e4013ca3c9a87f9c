"""Tables of alerts, of those who are told of them, and of what is on its way there."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, ForeignKey, Index, Integer, LargeBinary, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from control.db.base import Base, new_id, now


class AlertRow(Base):
    """An alert. While it is open, the same trouble again only raises `count`; `subject` is what it is about."""

    __tablename__ = "alerts"
    __table_args__ = (Index(None, "tenant_id", "raised_at", "uuid"), Index(None, "subject", "kind"))

    uuid: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.uuid", ondelete="CASCADE"))
    kind: Mapped[str] = mapped_column(String(32))
    subject: Mapped[UUID]
    severity: Mapped[str] = mapped_column(String(16))
    text: Mapped[str] = mapped_column(Text)
    agent_uuid: Mapped[UUID | None] = mapped_column(ForeignKey("agents.uuid", ondelete="CASCADE"))
    job_uuid: Mapped[UUID | None] = mapped_column(ForeignKey("jobs.uuid", ondelete="CASCADE"))
    run_uuid: Mapped[UUID | None]
    count: Mapped[int] = mapped_column(default=1)
    raised_at: Mapped[datetime] = mapped_column(default=now)
    last_at: Mapped[datetime] = mapped_column(default=now)
    acknowledged_at: Mapped[datetime | None]
    resolved_at: Mapped[datetime | None]


class AlertEventRow(Base):
    """An alert opened or was resolved: written with it, taken away when each target has a notice of it."""

    __tablename__ = "alert_events"
    __table_args__ = ({"sqlite_autoincrement": True},)  # a number is not used again when its row is gone

    sequence: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True)
    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.uuid", ondelete="CASCADE"))
    event: Mapped[str] = mapped_column(String(16))
    subject: Mapped[UUID]
    said: Mapped[dict[str, Any]]  # the alert; its row may go with a job or an agent


class AlertTargetRow(Base):
    """Whom to tell, and how. `fields` is the choice and what may be shown; secrets are in `sealed`."""

    __tablename__ = "alert_targets"
    __table_args__ = (Index(None, "tenant_id", "uuid"), Index(None, "remind_at"))

    uuid: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.uuid", ondelete="CASCADE"))
    name: Mapped[str] = mapped_column(String(200))
    kind: Mapped[str] = mapped_column(String(16))
    enabled: Mapped[bool] = mapped_column(default=True)
    fields: Mapped[dict[str, Any]]
    sealed: Mapped[bytes] = mapped_column(LargeBinary)
    created_at: Mapped[datetime] = mapped_column(default=now)
    updated_at: Mapped[datetime] = mapped_column(default=now)
    message_at: Mapped[datetime | None]  # the newest message, from which the quiet time counts
    remind_at: Mapped[datetime | None]
    sent: Mapped[int] = mapped_column(default=0)
    failed: Mapped[int] = mapped_column(default=0)
    last_sent_at: Mapped[datetime | None]
    failing_since: Mapped[datetime | None]
    error: Mapped[str | None] = mapped_column(Text)


class AlertNoticeRow(Base):
    """What a target is to hear of an alert with its next message: the newest that happened."""

    __tablename__ = "alert_notices"

    target_uuid: Mapped[UUID] = mapped_column(ForeignKey("alert_targets.uuid", ondelete="CASCADE"), primary_key=True)
    alert_uuid: Mapped[UUID] = mapped_column(primary_key=True)
    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.uuid", ondelete="CASCADE"))
    sequence: Mapped[int] = mapped_column(BigInteger)
    event: Mapped[str] = mapped_column(String(16))
    said: Mapped[dict[str, Any]]
    at: Mapped[datetime] = mapped_column(default=now)


class AlertDeliveryRow(Base):
    """A message on its way. `claimed_until`: a process is at it; one that died lets go by then."""

    __tablename__ = "alert_deliveries"
    __table_args__ = (Index(None, "state", "due_at"), Index(None, "target_uuid", "created_at", "uuid"))

    uuid: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.uuid", ondelete="CASCADE"))
    target_uuid: Mapped[UUID] = mapped_column(ForeignKey("alert_targets.uuid", ondelete="CASCADE"))
    kind: Mapped[str] = mapped_column(String(16))
    content: Mapped[dict[str, Any]]
    state: Mapped[str] = mapped_column(String(16), default="waiting")
    attempts: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[datetime] = mapped_column(default=now)
    due_at: Mapped[datetime] = mapped_column(default=now)
    claimed_until: Mapped[datetime | None]
    done_at: Mapped[datetime | None]
    detail: Mapped[str | None] = mapped_column(Text)  # what came of the last attempt
