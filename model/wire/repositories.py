"""Repositories: where the data of jobs goes. Keys are never part of it: they stay on the agents."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlsplit
from uuid import UUID

from pydantic import AfterValidator, StringConstraints, model_validator

from model.wire.base import Answer, Body, Count, Cron, Name, Utc, Zone

Encryption = Literal["required", "none"]
MAINTENANCE_CRON = "30 4 * * *"
SCHEMES = ("", "file", "s3", "gs", "az", "sftp", "lox+https")


def _store_url(value: str) -> str:
    try:
        parts = urlsplit(value)
    except ValueError as error:
        raise ValueError(f"this is not a URL: {error}") from error
    if parts.scheme not in SCHEMES:
        raise ValueError(f"no store is called {parts.scheme}://; there are paths, s3, gs, az, sftp and lox+https")
    if parts.scheme in ("", "file") and not parts.path.startswith("/"):
        raise ValueError("a path must be absolute")
    if parts.password is not None or parts.query or parts.fragment:
        raise ValueError("credentials and options do not belong into a URL: keep them on the agent")
    if parts.username is not None and parts.scheme != "sftp":
        raise ValueError("credentials do not belong into a URL: keep them on the agent")
    return value


StoreUrl = Annotated[
    str, StringConstraints(min_length=1, max_length=1024, pattern=r"^[!-~]+$"), AfterValidator(_store_url)
]


class RepositoryIn(Body):
    """POST /api/v1/repositories. Either `url`, or `vault` for one in the server's own vault."""

    name: Name
    url: StoreUrl | None = None
    vault: bool = False
    encryption: Encryption = "required"
    maintenance_agent_uuid: UUID | None = None  # who forgets and prunes
    maintenance_cron: Cron | None = MAINTENANCE_CRON  # when, by the server's clock; null: after backups of that agent
    maintenance_timezone: Zone = "UTC"
    quota_bytes: Count | None = None  # of the vault
    default: bool = False  # of the tenant's jobs that name none

    @model_validator(mode="after")
    def _one_place(self) -> RepositoryIn:
        if self.vault == (self.url is not None):
            raise ValueError("give either url, or vault: true")
        if self.quota_bytes is not None and not self.vault:
            raise ValueError("only the vault keeps a quota: quota_bytes needs vault: true")
        return self


class RepositoryChange(Body):
    """PATCH: fields that are given are changed. Where a repository lies and how it is sealed never changes."""

    name: Name | None = None
    maintenance_agent_uuid: UUID | None = None
    maintenance_cron: Cron | None = None
    maintenance_timezone: Zone | None = None
    quota_bytes: Count | None = None
    default: bool | None = None


class Repository(Answer):
    """GET /api/v1/repositories/{uuid}."""

    uuid: UUID
    name: str
    url: str
    vault: bool
    encryption: Encryption
    maintenance_agent_uuid: UUID | None = None
    maintenance_cron: str | None = None
    maintenance_timezone: str = "UTC"
    next_maintenance_at: Utc | None = None
    quota_bytes: int | None = None
    used_bytes: int | None = None  # in the vault
    default: bool = False
    created_at: Utc
    removed_at: Utc | None = None
    purged_after: Utc | None = None  # until then a removed one can be brought back
