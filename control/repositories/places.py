"""Repositories: which a job uses, and how agents are told where it lies."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal
from urllib.parse import urlsplit
from uuid import UUID

from sqlalchemy import ColumnElement, Select, select
from sqlalchemy.ext.asyncio import AsyncSession

from control.api.problems import Invalid, Unknown
from control.repositories.tables import RepositoryRow
from control.services import Services
from model.wire.policy import PolicyRepository
from model.wire.repositories import Repository

Hold = Literal["use", "change"]
"""To keep a repository as it is to the end of the transaction, because something goes there, or to change it."""


def vault_url(services: Services, uuid: UUID) -> str:
    """Where agents find a repository of the server's own vault."""
    return f"lox+https://{urlsplit(services.settings.url).netloc}/{uuid}"


def in_use() -> ColumnElement[bool]:
    """The condition that a repository was not removed."""
    return RepositoryRow.removed_at.is_(None)


async def repository_row(session: AsyncSession, tenant: UUID, uuid: UUID, hold: Hold | None = None) -> RepositoryRow:
    """The repository. Raises Unknown, also for one of another tenant."""
    wanted = select(RepositoryRow).where(RepositoryRow.tenant_id == tenant, RepositoryRow.uuid == uuid, in_use())
    row = await session.scalar(_held(wanted, hold))
    if row is None:
        raise Unknown("repository")
    return row


def _held(wanted: Select[RepositoryRow], hold: Hold | None) -> Select[RepositoryRow]:
    return wanted if hold is None else wanted.with_for_update(read=hold == "use")


async def chosen_repository(
    session: AsyncSession, tenant: UUID, uuid: UUID | None, hold: Hold | None = None
) -> RepositoryRow | None:
    """That of a job: the one it names, or the tenant's default, None if there is none. Raises Invalid."""
    if uuid is None:
        return await default_repository(session, tenant, hold)
    try:
        return await repository_row(session, tenant, uuid, hold)
    except Unknown:
        raise Invalid("repository_uuid", "there is no such repository") from None


async def default_repository(session: AsyncSession, tenant: UUID, hold: Hold | None = None) -> RepositoryRow | None:
    """The tenant's default."""
    mine = (RepositoryRow.tenant_id == tenant) & RepositoryRow.default.is_(True) & in_use()
    wanted = _held(select(RepositoryRow).where(mine), hold)
    found = await session.scalar(wanted)
    if found is None and hold is not None:  # another may have become it while this waited for the one before
        found = await session.scalar(wanted)
    return found


def url_of(services: Services, row: RepositoryRow) -> str:
    """Where it lies."""
    return vault_url(services, row.uuid) if row.vault else row.url


def repository_of(services: Services, row: RepositoryRow, used: int | None = None) -> Repository:
    """The repository as the API shows it."""
    return Repository.model_validate(
        {
            "uuid": row.uuid,
            "name": row.name,
            "url": url_of(services, row),
            "vault": row.vault,
            "encryption": row.encryption,
            "maintenance_agent_uuid": row.maintenance_agent_uuid,
            "maintenance_cron": row.maintenance_cron,
            "maintenance_timezone": row.maintenance_timezone,
            "next_maintenance_at": row.maintenance_due_at,
            "quota_bytes": row.quota_bytes,
            "used_bytes": used,
            "default": row.default,
            "created_at": row.created_at,
            "removed_at": row.removed_at,
            "purged_after": purged_after(services, row),
        }
    )


def purged_after(services: Services, row: RepositoryRow) -> datetime | None:
    """Until when a removed repository can be brought back."""
    return None if row.removed_at is None else row.removed_at + timedelta(days=services.settings.removed_days)


def policy_repository(services: Services, row: RepositoryRow, agent: UUID) -> PolicyRepository:
    """The repository as `agent` is told of it."""
    return PolicyRepository.model_validate(
        {
            "uuid": row.uuid,
            "name": row.name,
            "url": url_of(services, row),
            "vault": row.vault,
            "encryption": row.encryption,
            "maintenance": row.maintenance_agent_uuid == agent,
            "scheduled": row.maintenance_cron is not None,
        }
    )
