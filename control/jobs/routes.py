"""Routes: /api/v1/backup-jobs."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from control.alerts.raising import resolve_alerts, resolve_all
from control.api.call import Call
from control.api.problems import Conflict, Invalid, Problem, Unknown, invalid
from control.api.routes import Routes
from control.db.base import new_id, now
from control.fleet.agents import agent_row
from control.fleet.asking import answer_of
from control.fleet.commands import RUN, Wakes, enqueue, policy_changed
from control.fleet.exchanges import ExchangeFailed
from control.jobs.checks import check_job
from control.jobs.keeping import fields_of, job_fields, job_of, job_row, policy_job, put_fields
from control.jobs.schedule import explain, next_times
from control.jobs.tables import JobRow
from control.pages import ListQuery, page
from control.repositories.places import chosen_repository, policy_repository
from control.runs.keeping import run_of
from control.runs.tables import RunRow
from model.wire.base import Page
from model.wire.commands import EstimateCommand, RunJob, SetLimits
from model.wire.jobs import Estimate, Job, JobChange, JobFields, JobIn, NextRuns, RunIn
from model.wire.runs import Run

routes = Routes()
ESTIMATE_MAX = 1 << 20  # bytes of an agent's answer
EXAMPLE = {
    "agent_uuid": "550e8400-e29b-41d4-a716-446655440000",
    "name": "Daily Web Files",
    "job_type": "file",
    "backup_mode": "incremental",
    "source_paths": ["/var/www", "/etc/nginx", "/etc/letsencrypt"],
    "exclude_patterns": ["*.log", "*.tmp", "node_modules/", ".git/"],
    "schedule_cron": "0 2 * * *",
    "retention_count": 30,
    "compression_enabled": True,
    "encryption_enabled": True,
}


class JobQuery(ListQuery):
    """Which jobs."""

    agent: UUID | None = None


class NextQuery(BaseModel):
    """How many times."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    count: int = Field(5, ge=1, le=100)


@routes.add(
    "POST", "/api/v1/backup-jobs", scope="jobs:write", body=JobIn, returns={201: Job}, example=EXAMPLE,
    audit="job.create",
)  # fmt: skip
async def create(call: Call) -> Job:
    """Make a job."""
    body = call.body(JobIn)
    row = JobRow(uuid=new_id(), tenant_id=call.tenant, agent_uuid=body.agent_uuid, created_at=now())
    call.subject = row.uuid
    async with call.transaction() as session:
        try:
            await agent_row(session, call.tenant, body.agent_uuid)
        except Unknown:
            raise Invalid("agent_uuid", "there is no such agent") from None
        check_job(body, await chosen_repository(session, call.tenant, body.repository_uuid, "use"))
        put_fields(row, JobFields.model_validate(body.model_dump(include=set(JobFields.model_fields))))
        session.add(row)
        await session.flush()
        await policy_changed(session, row.agent_uuid)
    call.services.part(Wakes).wake(row.agent_uuid)
    return job_of(row)


@routes.add("GET", "/api/v1/backup-jobs", scope="jobs:read", query=JobQuery, returns={200: Page[Job]})
async def list_jobs(call: Call) -> Page[Job]:
    """List jobs, newest first."""
    query = call.query(JobQuery)
    wanted = select(JobRow).where(JobRow.tenant_id == call.tenant)
    if query.agent is not None:
        wanted = wanted.where(JobRow.agent_uuid == query.agent)
    async with call.reading() as session:
        return await page(session, wanted, (JobRow.created_at, JobRow.uuid), query, Page[Job], job_of)


@routes.add("GET", "/api/v1/backup-jobs/{job_uuid}", scope="jobs:read", returns={200: Job})
async def show(call: Call) -> Job:
    """Show a job."""
    async with call.reading() as session:
        return job_of(await job_row(session, call.tenant, call.uuid("job_uuid")))


@routes.add(
    "PATCH", "/api/v1/backup-jobs/{job_uuid}", scope="jobs:write", body=JobChange, returns={200: Job},
    example={"retention_count": 14}, audit="job.change",
)  # fmt: skip
async def change(call: Call) -> Job:
    """Change the fields of a job that are given."""
    given = call.body(JobChange).model_dump(exclude_unset=True, mode="json")
    call.details = {"changed": sorted(given)}
    async with call.transaction() as session:
        row, fields = await _changed(session, call.tenant, call.uuid("job_uuid"), given)
        if put_fields(row, fields):
            await resolve_alerts(session, "overdue", row.uuid)
        await session.flush()
        await policy_changed(session, row.agent_uuid)
        if "bandwidth_limit_mbps" in given:
            limit = SetLimits(bandwidth_limit_mbps=fields.bandwidth_limit_mbps, job_uuid=row.uuid)
            await enqueue(session, row.agent_uuid, limit, RUN)
    call.services.part(Wakes).wake(row.agent_uuid)
    return job_of(row)


async def _changed(session: AsyncSession, tenant: UUID, uuid: UUID, given: dict[str, Any]) -> tuple[JobRow, JobFields]:
    """The job, and what it is to be. Its repository is held first, then the job: as who removes the repository does."""
    named = {**fields_of(await job_row(session, tenant, uuid)), **given}["repository_uuid"]
    place = await chosen_repository(session, tenant, None if named is None else UUID(str(named)), "use")
    row = await job_row(session, tenant, uuid, lock=True)
    try:
        fields = JobFields.model_validate({**fields_of(row), **given})
    except ValidationError as error:
        raise invalid(JobFields, error) from None
    if str(fields.repository_uuid) != str(named):
        raise Conflict("the job was given another repository just now", headers={"Retry-After": "1"})
    check_job(fields, place)
    return row, fields


@routes.add("DELETE", "/api/v1/backup-jobs/{job_uuid}", scope="jobs:write", audit="job.delete")
async def remove(call: Call) -> None:
    """Remove a job. Its backups stay."""
    async with call.transaction() as session:
        row = await job_row(session, call.tenant, call.uuid("job_uuid"), lock=True)
        await resolve_all(session, row.uuid)
        await session.delete(row)
        await session.flush()
        await policy_changed(session, row.agent_uuid)
    call.services.part(Wakes).wake(row.agent_uuid)


@routes.add(
    "POST", "/api/v1/backup-jobs/{job_uuid}/run", scope="jobs:run", body=RunIn, returns={202: Run}, example={},
    audit="job.run",
)  # fmt: skip
async def run(call: Call) -> Run:
    """Run a job now. An agent that is offline begins when it is back, within a day."""
    mode = call.body(RunIn).mode
    async with call.transaction() as session:
        job = await job_row(session, call.tenant, call.uuid("job_uuid"))
        agent = await agent_row(session, call.tenant, job.agent_uuid)
        if agent.registered_at is None or agent.revoked:
            raise Conflict("the agent of this job is not registered, or was revoked")
        place = await chosen_repository(session, call.tenant, job.repository_uuid)
        row = RunRow(
            uuid=new_id(), tenant_id=call.tenant, agent_uuid=job.agent_uuid, job_uuid=job.uuid, job_name=job.name,
            repository_uuid=place.uuid if place else None, kind="backup", status="queued", trigger="api", mode=mode,
            attempt=1, created_at=now(), cancel_requested=False, problems=0, log_lines=0, sequence=0,
        )  # fmt: skip
        session.add(row)
        await session.flush()
        await enqueue(session, job.agent_uuid, RunJob(job_uuid=job.uuid, run_uuid=row.uuid, mode=mode), RUN)
    call.services.part(Wakes).wake(row.agent_uuid)
    return run_of(row)


@routes.add(
    "POST", "/api/v1/backup-jobs/{job_uuid}/estimate", scope="jobs:run", returns={200: Estimate}, audit="job.estimate"
)
async def estimate(call: Call) -> web.StreamResponse:
    """What a backup would read now, as the agent finds out. That may take a minute."""
    async with call.transaction() as session:
        row = await job_row(session, call.tenant, call.uuid("job_uuid"))
        place = await chosen_repository(session, call.tenant, row.repository_uuid)
        if place is None:
            raise Conflict("the job names no repository, and there is no default one")
        job, repository = policy_job(row, place.uuid), policy_repository(call.services, place, row.agent_uuid)

    def question(exchange: UUID) -> EstimateCommand:
        return EstimateCommand(exchange_uuid=exchange, job=job, repository=repository)

    async with answer_of(call, row.agent_uuid, question) as reply:
        try:
            found = Estimate.model_validate_json(await reply.everything(ESTIMATE_MAX))
        except (ExchangeFailed, ValidationError):
            raise Problem("the agent's answer cannot be read", status=502, kind="agent-failed") from None
    return web.Response(text=found.model_dump_json(), content_type="application/json")


@routes.add(
    "GET", "/api/v1/backup-jobs/{job_uuid}/next-runs", scope="jobs:read", query=NextQuery, returns={200: NextRuns}
)
async def next_runs(call: Call) -> NextRuns:
    """When a job is due next, and its schedule in words."""
    async with call.reading() as session:
        fields = job_fields(await job_row(session, call.tenant, call.uuid("job_uuid")))
    cron = fields.schedule_cron
    times = next_times(cron, fields.timezone, now(), call.query(NextQuery).count) if cron and fields.enabled else []
    words = explain(cron, fields.timezone) if cron else None
    return NextRuns(schedule_cron=cron, timezone=fields.timezone, explained=words, times=times)
