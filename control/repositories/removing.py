"""Removing repositories: at once for whoever uses them, for good only after some days.

A removed repository is found by nobody, and its objects stay until `removed_days` are over: what was removed by
mistake, or by somebody with a stolen token, can be brought back. Then its objects in the vault are deleted, a thousand
at a time, and last its row, so that a server that is killed goes on where it was.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from uuid import UUID

from pydantic import BaseModel, ConfigDict
from sqlalchemy import delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from control.alerts.raising import resolve_alerts, resolve_all
from control.api.call import Call
from control.api.problems import Conflict, Unknown
from control.api.routes import Routes
from control.audit import record
from control.db.base import now
from control.fleet.commands import policy_changed
from control.jobs.keeping import job_fields, put_fields
from control.jobs.tables import JobRow
from control.repositories.due import jobs_into, set_due
from control.repositories.places import repository_of, repository_row
from control.repositories.routes import agents_using, wake
from control.repositories.tables import RepositoryRow
from control.runs.tables import MachineBackupRow, RunRow
from control.services import Services
from control.vault.streams import threaded
from control.vault.vault import Vault
from model.errors import StoreError
from model.wire.repositories import Repository

routes = Routes()
LOOK_SECONDS = 60.0


class RemoveQuery(BaseModel):
    """`force`: although jobs go there, which are turned off, or backups lie in it, which cannot be restored then."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    force: bool = False


@routes.add(
    "DELETE", "/api/v1/repositories/{repository_uuid}", scope="repositories:write", query=RemoveQuery,
    audit="repository.delete",
)  # fmt: skip
async def remove(call: Call) -> None:
    """Remove a repository; some days later its objects in the vault are deleted. Elsewhere what is stored stays."""
    force = call.query(RemoveQuery).force
    async with call.transaction() as session:
        row = await repository_row(session, call.tenant, call.uuid("repository_uuid"), "change")  # no job comes now
        found = select(JobRow).where(jobs_into(row)).order_by(JobRow.uuid).with_for_update()
        jobs = list((await session.scalars(found)).all())
        backups = await _count_backups(session, row.uuid)
        if not force:
            _refuse_if_used(jobs, backups)
        call.details = {"name": row.name, "backups": backups, "jobs": [str(job.uuid) for job in jobs]}
        agents = sorted(set(await agents_using(session, row)))
        for job in jobs:
            put_fields(job, job_fields(job).model_copy(update={"enabled": False}))
        row.removed_at, row.default, row.maintenance_due_at = now(), False, None
        await resolve_alerts(session, "overdue", *(job.uuid for job in jobs))
        await resolve_all(session, row.uuid)
        await session.flush()
        for agent in agents:
            await policy_changed(session, agent)
    wake(call, agents)


def _refuse_if_used(jobs: list[JobRow], backups: int) -> None:
    hint = "remove them, or say force=true, which turns these jobs off"
    if jobs:
        raise Conflict("jobs use it: " + ", ".join(job.name for job in jobs[:5]), hint=hint)
    if backups:
        raise Conflict(f"{backups} backups lie in it", hint="say force=true if none of them is needed any more")


async def _count_backups(session: AsyncSession, repository: UUID) -> int:
    wanted = select(func.count()).select_from(MachineBackupRow).where(MachineBackupRow.repository_uuid == repository)
    return await session.scalar(wanted) or 0


@routes.add(
    "POST", "/api/v1/repositories/{repository_uuid}/recover", scope="repositories:write", returns={200: Repository},
    audit="repository.recover",
)  # fmt: skip
async def recover(call: Call) -> Repository:
    """Bring a removed repository back with its backups. Jobs that were turned off stay so."""
    async with call.transaction() as session:
        wanted = select(RepositoryRow).where(
            RepositoryRow.tenant_id == call.tenant, RepositoryRow.uuid == call.uuid("repository_uuid")
        )
        row = await session.scalar(wanted.with_for_update())
        if row is None:
            raise Unknown("repository")
        if row.removed_at is None:
            raise Conflict("it was not removed")
        if row.purging:
            raise Conflict("it is too late: its objects are being deleted")
        row.removed_at = None
        set_due(row)
        await session.flush()
    return repository_of(call.services, row)


@asynccontextmanager
async def lead(services: Services) -> AsyncIterator[None]:
    """In one process: delete for good what was removed long enough ago."""
    task = asyncio.create_task(_purging(services))
    try:
        yield
    finally:  # it ends by itself, not in the middle of a query
        services.stopping.set()
        await task


async def _purging(services: Services) -> None:
    while not services.stopping.is_set():
        try:
            await purge(services)
        except Exception:  # nothing that people wait for depends on it; the next look goes on
            services.log.exception("removed repositories could not be deleted")
        with suppress(TimeoutError):
            await asyncio.wait_for(services.stopping.wait(), LOOK_SECONDS)


async def purge(services: Services) -> None:
    """Delete what was removed long enough ago."""
    before = now() - timedelta(days=services.settings.removed_days)
    over = (RepositoryRow.removed_at <= before) | RepositoryRow.purging.is_(True)
    async with services.sessions() as session:
        found = list((await session.scalars(select(RepositoryRow.uuid).where(over))).all())
    for uuid in found:
        async with services.sessions.begin() as session:
            row = await session.scalar(select(RepositoryRow).where(RepositoryRow.uuid == uuid, over).with_for_update())
            if row is None:
                continue  # it was brought back just now
            row.purging = True
        try:
            freed = await _objects_gone(services, row) if row.vault else 0
        except StoreError as error:
            services.log.warning("a removed repository cannot be deleted", repository=str(uuid), error=str(error))
            continue
        if services.stopping.is_set():
            return
        async with services.sessions.begin() as session:
            await _rows_gone(session, row, freed)
        services.log.info("removed repository deleted", repository=str(uuid), bytes=freed)


async def _objects_gone(services: Services, row: RepositoryRow) -> int:
    """Bytes that are free again; not all of them if the server is about to stop."""
    vault, freed, more = services.part(Vault), 0, True
    while more and not services.stopping.is_set():
        size, more = await threaded(vault.give_up, row.tenant_id, row.uuid)
        freed += size
    return freed


async def _rows_gone(session: AsyncSession, row: RepositoryRow, freed: int) -> None:
    backups = await _count_backups(session, row.uuid)
    await session.execute(delete(MachineBackupRow).where(MachineBackupRow.repository_uuid == row.uuid))
    await session.execute(update(JobRow).where(JobRow.repository_uuid == row.uuid).values(repository_uuid=None))
    await session.execute(update(RunRow).where(RunRow.repository_uuid == row.uuid).values(repository_uuid=None))
    await session.execute(delete(RepositoryRow).where(RepositoryRow.uuid == row.uuid))
    details = {"name": row.name, "backups": backups, "bytes": freed}
    await record(session, row.tenant_id, None, "repository.purge", row.uuid, details=details)
