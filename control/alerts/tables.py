"""The table of alerts."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import ForeignKey, Index, String, Text
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
