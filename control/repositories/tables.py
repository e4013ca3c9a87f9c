"""The table of repositories."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from control.db.base import Base, new_id, now


class RepositoryRow(Base):
    """Where the data of jobs goes. `url` is empty for the vault: it is made of the server's address."""

    __tablename__ = "repositories"
    __table_args__ = (Index(None, "tenant_id", "uuid"),)

    uuid: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.uuid", ondelete="CASCADE"))
    name: Mapped[str] = mapped_column(String(200))
    url: Mapped[str] = mapped_column(String(1024))
    vault: Mapped[bool] = mapped_column(default=False)
    encryption: Mapped[str] = mapped_column(String(16))
    maintenance_agent_uuid: Mapped[UUID | None] = mapped_column(ForeignKey("agents.uuid", ondelete="SET NULL"))
    maintenance_cron: Mapped[str | None] = mapped_column(String(200))
    maintenance_timezone: Mapped[str] = mapped_column(String(64), default="UTC")
    maintenance_due_at: Mapped[datetime | None] = mapped_column(index=True)
    quota_bytes: Mapped[int | None] = mapped_column(BigInteger)
    default: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[datetime] = mapped_column(default=now)
    removed_at: Mapped[datetime | None]  # nobody uses it any more; it can still be brought back
    purging: Mapped[bool] = mapped_column(default=False)  # too late for that: its objects go
