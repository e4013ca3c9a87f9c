"""Routes: /api/v1/repositories."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from uuid import UUID

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from control.api.call import Call
from control.api.problems import Invalid, Unknown
from control.api.routes import Routes
from control.auth.tables import TenantRow
from control.db.base import new_id
from control.fleet.agents import agent_row
from control.fleet.commands import Wakes, policy_changed
from control.jobs.tables import JobRow
from control.pages import ListQuery, page
from control.repositories.due import jobs_into, set_due
from control.repositories.places import in_use, repository_of, repository_row
from control.repositories.tables import RepositoryRow
from control.vault.part import used
from model.wire.base import Page
from model.wire.repositories import Repository, RepositoryChange, RepositoryIn

routes = Routes()
EXAMPLE = {"name": "main", "vault": True, "default": True}


class RepositoryQuery(ListQuery):
    """Which repositories: those in use, or those that were removed and can still be brought back."""

    removed: bool = False


@routes.add(
    "POST", "/api/v1/repositories", scope="repositories:write", body=RepositoryIn, returns={201: Repository},
    example=EXAMPLE, audit="repository.add",
)  # fmt: skip
async def add(call: Call) -> Repository:
    """Add a repository: a store by its URL, or one in the server's own vault. The first one is the default."""
    body = call.body(RepositoryIn)
    row = RepositoryRow(
        uuid=new_id(), tenant_id=call.tenant, name=body.name, url=body.url or "", vault=body.vault,
        encryption=body.encryption, maintenance_agent_uuid=body.maintenance_agent_uuid, quota_bytes=body.quota_bytes,
        maintenance_cron=body.maintenance_cron, maintenance_timezone=body.maintenance_timezone,
    )  # fmt: skip
    set_due(row)
    call.subject = row.uuid
    async with call.transaction() as session:
        await _settle_default(session, call.tenant)
        await _check_agent(session, call.tenant, body.maintenance_agent_uuid)
        session.add(row)
        await session.flush()
        others = (RepositoryRow.tenant_id == call.tenant) & (RepositoryRow.uuid != row.uuid) & in_use()
        first = await session.scalar(select(RepositoryRow.uuid).where(others).limit(1)) is None
        agents = await _make_default(session, row) if body.default or first else []
        agents += [body.maintenance_agent_uuid] if body.maintenance_agent_uuid else []
        for agent in sorted(set(agents)):
            await policy_changed(session, agent)
    wake(call, agents)
    return repository_of(call.services, row)


@routes.add(
    "GET", "/api/v1/repositories", scope="repositories:read", query=RepositoryQuery, returns={200: Page[Repository]}
)
async def list_repositories(call: Call) -> Page[Repository]:
    """List repositories, newest first."""
    query = call.query(RepositoryQuery)
    wanted = select(RepositoryRow).where(RepositoryRow.tenant_id == call.tenant)
    wanted = wanted.where(~in_use() if query.removed else in_use())
    order = (RepositoryRow.created_at, RepositoryRow.uuid)
    async with call.reading() as session:
        made = partial(repository_of, call.services)
        return await page(session, wanted, order, query, Page[Repository], made)


@routes.add("GET", "/api/v1/repositories/{repository_uuid}", scope="repositories:read", returns={200: Repository})
async def show(call: Call) -> Repository:
    """Show a repository."""
    async with call.reading() as session:
        row = await repository_row(session, call.tenant, call.uuid("repository_uuid"))
    return repository_of(call.services, row, await used(call.services, row) if row.vault else None)


@routes.add(
    "PATCH", "/api/v1/repositories/{repository_uuid}", scope="repositories:write", body=RepositoryChange,
    returns={200: Repository}, example={"name": "second"}, audit="repository.change",
)  # fmt: skip
async def change(call: Call) -> Repository:
    """Change the name, the quota or who maintains a repository, or make it the default."""
    body = call.body(RepositoryChange)
    given = body.model_dump(exclude_unset=True)
    for name in ("name", "default", "maintenance_timezone"):
        if name in given and given[name] is None:
            raise Invalid(name, "this cannot be null")
    call.details = {"changed": sorted(given)}
    async with call.transaction() as session:
        if body.default is not None:
            await _settle_default(session, call.tenant)
        row = await repository_row(session, call.tenant, call.uuid("repository_uuid"), "change")
        await _check_agent(session, call.tenant, body.maintenance_agent_uuid)
        if body.quota_bytes is not None and not row.vault:
            raise Invalid("quota_bytes", "only the vault keeps a quota")
        default = given.pop("default", None)
        agents = await agents_using(session, row)
        for name, value in given.items():
            setattr(row, name, value)
        if any(name.startswith("maintenance_") for name in given):
            set_due(row)
        agents += await agents_using(session, row)
        await session.flush()
        if default is True:
            agents += await _make_default(session, row)
        elif default is False and row.default:
            row.default = False
            agents += await _on_default(session, call.tenant)
        for agent in sorted(set(agents)):
            await policy_changed(session, agent)
    wake(call, agents)
    return repository_of(call.services, row)


async def _check_agent(session: AsyncSession, tenant: UUID, uuid: UUID | None) -> None:
    if uuid is None:
        return
    try:
        await agent_row(session, tenant, uuid)
    except Unknown:
        raise Invalid("maintenance_agent_uuid", "there is no such agent") from None


async def _settle_default(session: AsyncSession, tenant: UUID) -> None:
    """Which repository is the default is changed by one at a time: there is never a second one."""
    await session.execute(select(TenantRow.uuid).where(TenantRow.uuid == tenant).with_for_update(key_share=True))


async def _make_default(session: AsyncSession, row: RepositoryRow) -> list[UUID]:
    await session.execute(update(RepositoryRow).where(RepositoryRow.tenant_id == row.tenant_id).values(default=False))
    await session.execute(update(RepositoryRow).where(RepositoryRow.uuid == row.uuid).values(default=True))
    await session.refresh(row)
    return await _on_default(session, row.tenant_id)


async def _on_default(session: AsyncSession, tenant: UUID) -> list[UUID]:
    """Agents with jobs that name no repository."""
    found = select(JobRow.agent_uuid).where(JobRow.tenant_id == tenant, JobRow.repository_uuid.is_(None)).distinct()
    return list((await session.scalars(found)).all())


async def agents_using(session: AsyncSession, row: RepositoryRow) -> list[UUID]:
    """Agents whose jobs go there, and the one that maintains it."""
    found = select(JobRow.agent_uuid).where(jobs_into(row)).distinct()
    maintains = [row.maintenance_agent_uuid] if row.maintenance_agent_uuid is not None else []
    return [*(await session.scalars(found)).all(), *maintains]


def wake(call: Call, agents: Iterable[UUID]) -> None:
    """Let agents fetch their policy; after the commit."""
    for agent in agents:
        call.services.part(Wakes).wake(agent)
