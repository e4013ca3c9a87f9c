"""Tables of tenants, people, API tokens and sessions."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import ForeignKey, Index, LargeBinary, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from control.db.base import Base, new_id, now


class TenantRow(Base):
    """A tenant: owns everything below it; nothing of it is visible to another."""

    __tablename__ = "tenants"

    uuid: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    name: Mapped[str] = mapped_column(String(200), unique=True)
    suspended: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[datetime] = mapped_column(default=now)


class UserRow(Base):
    """A person. Without a tenant: one who makes tenants."""

    __tablename__ = "users"
    __table_args__ = (Index(None, "tenant_id", "uuid"),)

    uuid: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    tenant_id: Mapped[UUID | None] = mapped_column(ForeignKey("tenants.uuid", ondelete="CASCADE"))
    email: Mapped[str] = mapped_column(String(254), unique=True)  # in lower case
    role: Mapped[str] = mapped_column(String(16))
    password: Mapped[str] = mapped_column(Text)  # Argon2id in PHC format
    disabled: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[datetime] = mapped_column(default=now)
    last_login_at: Mapped[datetime | None]


class TokenRow(Base):
    """An API token: what a program may, until when."""

    __tablename__ = "api_tokens"
    __table_args__ = (UniqueConstraint("tenant_id", "name"), Index(None, "tenant_id", "uuid"))

    uuid: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.uuid", ondelete="CASCADE"))
    name: Mapped[str] = mapped_column(String(200))
    scopes: Mapped[list[str]]
    secret_hash: Mapped[bytes] = mapped_column(LargeBinary(32))
    made_by: Mapped[UUID]
    created_at: Mapped[datetime] = mapped_column(default=now)
    expires_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]  # up to a minute late
    revoked_at: Mapped[datetime | None]


class SessionRow(Base):
    """A person who logged in with a browser or the command line."""

    __tablename__ = "user_sessions"

    uuid: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    user_uuid: Mapped[UUID] = mapped_column(ForeignKey("users.uuid", ondelete="CASCADE"), index=True)
    secret_hash: Mapped[bytes] = mapped_column(LargeBinary(32))
    created_at: Mapped[datetime] = mapped_column(default=now)
    expires_at: Mapped[datetime]
