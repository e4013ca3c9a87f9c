"""Routes: restores, and looking into machine backups through an agent that has the key."""

from __future__ import annotations

from uuid import UUID

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from control.api.call import Call
from control.api.problems import Conflict, Invalid, Unknown
from control.api.routes import Routes
from control.db.base import new_id, now
from control.fleet.agents import agent_row
from control.fleet.asking import answer_of, relay
from control.fleet.commands import RUN, Wakes, enqueue
from control.pages import ListQuery, page
from control.repositories.places import policy_repository, repository_row
from control.runs.keeping import backup_row, restore_of, run_row
from control.runs.tables import MachineBackupRow, RunRow
from model.wire.base import Page, Path
from model.wire.commands import BrowseCommand, DownloadCommand, RestoreCommand
from model.wire.policy import PolicyRepository
from model.wire.restores import Entry, Format, Restore, RestoreFields, RestoreIn
from model.wire.runs import RunStatus

routes = Routes()
LATER = {
    "volume": "volumes need block-level backups, which this version does not have",
    "instant": "mounting a backup as a live volume is not part of this version",
}
NAMES = {"tar": "backup.tar", "zip": "backup.zip"}


class RestoreQuery(ListQuery):
    """Which restores."""

    agent: UUID | None = None
    status: RunStatus | None = None


class FilesQuery(BaseModel):
    """The entries of one folder; with `pattern` all below it that match."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: Path = "/"
    pattern: str | None = Field(None, min_length=1, max_length=1_024)
    limit: int = Field(1_000, ge=1, le=100_000)
    agent_uuid: UUID | None = None


class DownloadQuery(BaseModel):
    """Which files and folders, and as what."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: list[Path] | Path = Field(max_length=1_000)
    format: Format = "tar"
    agent_uuid: UUID | None = None


@routes.add(
    "POST", "/api/v1/machine-backups/{backup_uuid}/restore", scope="restores:write", body=RestoreIn,
    returns={202: Restore}, audit="restore.start",
    example={
        "restore_type": "file", "target_path": "/srv/restore",
        "selected_files": ["/etc/nginx/nginx.conf", "/var/www/html/index.php"],
    },
)  # fmt: skip
async def restore(call: Call) -> Restore:
    """Restore a machine backup, or files of it, to where they were or to another place."""
    body = call.body(RestoreIn)
    if body.restore_type in LATER:
        raise Invalid("restore_type", LATER[body.restore_type], "use full or file")
    async with call.transaction() as session:
        backup = await backup_row(session, call.tenant, call.uuid("backup_uuid"))
        agent = await _agent(session, call, backup, body.agent_uuid)
        fields = RestoreFields.model_validate(body.model_dump(exclude={"agent_uuid"}))
        row = _row(call, backup, agent, fields)
        call.details = {"restore": str(row.uuid), "agent": str(agent), "target_path": body.target_path}
        session.add(row)
        await session.flush()
        place = await _place(session, call, backup, agent)
        asked = RestoreCommand(**fields.model_dump(), restore_uuid=row.uuid, repository=place, snapshot=backup.snapshot)
        await enqueue(session, agent, asked, RUN)
    call.services.part(Wakes).wake(agent)
    return restore_of(row)


def _row(call: Call, backup: MachineBackupRow, agent: UUID, fields: RestoreFields) -> RunRow:
    return RunRow(
        uuid=new_id(), tenant_id=call.tenant, agent_uuid=agent, job_uuid=backup.job_uuid, kind="restore",
        repository_uuid=backup.repository_uuid, status="queued", trigger="api", attempt=1, created_at=now(),
        cancel_requested=False, problems=0, log_lines=0, sequence=0,
        request=fields.model_dump(mode="json")
        | {"machine_backup_uuid": str(backup.uuid), "snapshot": backup.snapshot},
    )  # fmt: skip


async def _agent(session: AsyncSession, call: Call, backup: MachineBackupRow, wanted: UUID | None) -> UUID:
    """Who is to do it: the agent that is named, or the one that made the backup."""
    try:
        row = await agent_row(session, call.tenant, wanted or backup.agent_uuid)
    except Unknown:
        raise Invalid("agent_uuid", "there is no such agent") from None
    if row.registered_at is None or row.revoked:
        raise Conflict("this agent is not registered, or was revoked: name another in agent_uuid")
    return row.uuid


async def _place(session: AsyncSession, call: Call, backup: MachineBackupRow, agent: UUID) -> PolicyRepository:
    row = await repository_row(session, call.tenant, backup.repository_uuid)
    return policy_repository(call.services, row, agent)


@routes.add("GET", "/api/v1/restores", scope="runs:read", query=RestoreQuery, returns={200: Page[Restore]})
async def list_restores(call: Call) -> Page[Restore]:
    """List restores, newest first."""
    query = call.query(RestoreQuery)
    wanted = select(RunRow).where(RunRow.tenant_id == call.tenant, RunRow.kind == "restore")
    wanted = wanted.where(RunRow.request.is_not(None))
    if query.agent is not None:
        wanted = wanted.where(RunRow.agent_uuid == query.agent)
    if query.status is not None:
        wanted = wanted.where(RunRow.status == query.status)
    async with call.reading() as session:
        return await page(session, wanted, (RunRow.created_at, RunRow.uuid), query, Page[Restore], restore_of)


@routes.add("GET", "/api/v1/restores/{restore_uuid}", scope="runs:read", returns={200: Restore})
async def show(call: Call) -> Restore:
    """Show a restore."""
    async with call.reading() as session:
        row = await run_row(session, call.tenant, call.uuid("restore_uuid"), "restore")
    if row.request is None:
        raise Unknown("restore")
    return restore_of(row)


@routes.add(
    "GET", "/api/v1/machine-backups/{backup_uuid}/files", scope="restores:write", query=FilesQuery,
    returns={200: Entry},
)  # fmt: skip
async def files(call: Call) -> web.StreamResponse:
    """Look into a machine backup, through an agent: entries, one JSON object a line."""
    query = call.query(FilesQuery)
    async with call.reading() as session:
        backup = await backup_row(session, call.tenant, call.uuid("backup_uuid"))
        agent = await _agent(session, call, backup, query.agent_uuid)
        place = await _place(session, call, backup, agent)

    def question(exchange: UUID) -> BrowseCommand:
        return BrowseCommand(
            exchange_uuid=exchange, repository=place, snapshot=backup.snapshot, path=query.path, pattern=query.pattern,
            limit=query.limit,
        )  # fmt: skip

    async with answer_of(call, agent, question) as reply:
        return await relay(call, reply, {})


@routes.add(
    "GET", "/api/v1/machine-backups/{backup_uuid}/download", scope="restores:write", query=DownloadQuery,
    returns={200: None}, audit="backup.download",
)  # fmt: skip
async def download(call: Call) -> web.StreamResponse:
    """Download files and folders of a machine backup, through an agent, as an archive or as they are."""
    query = call.query(DownloadQuery)
    paths = query.path if isinstance(query.path, list) else [query.path]
    if query.format == "raw" and len(paths) != 1:
        raise Invalid("format", "raw is the content of one file", "use tar or zip")
    call.details = {"paths": paths[:20], "format": query.format}
    async with call.transaction() as session:
        backup = await backup_row(session, call.tenant, call.uuid("backup_uuid"))
        agent = await _agent(session, call, backup, query.agent_uuid)
        place = await _place(session, call, backup, agent)

    def question(exchange: UUID) -> DownloadCommand:
        return DownloadCommand(
            exchange_uuid=exchange, repository=place, snapshot=backup.snapshot, paths=paths, format=query.format
        )

    name = NAMES.get(query.format, "file")
    async with answer_of(call, agent, question) as reply:
        return await relay(call, reply, {"Content-Disposition": f'attachment; filename="{name}"'})
