"""The table of jobs."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from control.db.base import Base, new_id, now


class JobRow(Base):
    """A job. What only its agent looks at is in `fields`, as JSON; what the server asks for has a column."""

    __tablename__ = "jobs"
    __table_args__ = (Index(None, "tenant_id", "uuid"), Index(None, "agent_uuid"), Index(None, "due_at"))

    uuid: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.uuid", ondelete="CASCADE"))
    agent_uuid: Mapped[UUID] = mapped_column(ForeignKey("agents.uuid", ondelete="CASCADE"))
    repository_uuid: Mapped[UUID | None] = mapped_column(ForeignKey("repositories.uuid"))
    name: Mapped[str] = mapped_column(String(200))
    fields: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(default=now)
    updated_at: Mapped[datetime] = mapped_column(default=now)
    due_at: Mapped[datetime | None]  # by when a scheduled run must have begun, or the job is overdue
    overdue: Mapped[bool] = mapped_column(default=False)
    last_run_uuid: Mapped[UUID | None]
    last_run_status: Mapped[str | None] = mapped_column(String(16))
    last_run_at: Mapped[datetime | None]
