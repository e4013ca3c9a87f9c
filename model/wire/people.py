"""Tenants, people, API tokens, sessions, the audit log."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AfterValidator, Field, SecretStr, StringConstraints

from model.wire.base import Answer, Body, Name, Utc

Email = Annotated[
    str,
    StringConstraints(max_length=254, pattern=r"^[^@\s\x00-\x1f]+@[^@\s\x00-\x1f]+$", strip_whitespace=True),
    AfterValidator(str.lower),
]
Password = Annotated[SecretStr, Field(min_length=10, max_length=1024)]
Role = Literal["viewer", "operator", "admin"]
Scopes = Annotated[list[str], Field(min_length=1, max_length=32)]


class LoginIn(Body):
    """A person logs in."""

    email: Email
    password: Annotated[SecretStr, Field(max_length=1024)]


class Me(Answer):
    """Who asks: the answer to a login too."""

    kind: str
    uuid: UUID
    name: str
    tenant_uuid: UUID | None
    scopes: list[str]
    session_expires_at: Utc | None = None


class PasswordIn(Body):
    """One's own new password."""

    old: Annotated[SecretStr, Field(max_length=1024)]
    new: Password


class TenantIn(Body):
    """A new tenant."""

    name: Name


class TenantPatch(Body):
    """What may change of a tenant."""

    name: Name | None = None
    suspended: bool | None = None


class Tenant(Answer):
    """A tenant."""

    uuid: UUID
    name: str
    suspended: bool
    created_at: Utc


class UserIn(Body):
    """A new person of a tenant."""

    email: Email
    role: Role
    password: Password


class UserPatch(Body):
    """What may change of a person."""

    role: Role | None = None
    disabled: bool | None = None
    password: Password | None = None


class User(Answer):
    """A person."""

    uuid: UUID
    email: str
    role: str
    disabled: bool
    created_at: Utc
    last_login_at: Utc | None


class TokenIn(Body):
    """A new API token. It can hold no scope that its maker lacks."""

    name: Name
    scopes: Scopes
    expires_at: Utc | None = None


class Token(Answer):
    """An API token, without its secret."""

    uuid: UUID
    name: str
    scopes: list[str]
    created_at: Utc
    expires_at: Utc | None
    last_used_at: Utc | None
    revoked_at: Utc | None


class NewToken(Token):
    """And with it: shown once."""

    token: str


class AuditEntry(Answer):
    """One act. `sequence` counts within the tenant, `hash` is the SHA-256 that holds the chain together."""

    sequence: int
    at: Utc
    actor_kind: str
    actor: UUID | None
    actor_name: str
    action: str
    subject: UUID | None
    remote: str
    details: dict[str, Any]
    hash: str


class AuditVerdict(Answer):
    """Whether the chain holds: `broken_at` is the sequence of the first row that is wrong."""

    rows: int
    intact: bool
    broken_at: int | None
    why: str
    head: str
