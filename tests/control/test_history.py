"""What is kept of runs, and for how long."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import update

from control.app import make_services
from control.runs.history import trim
from control.runs.tables import RunRow
from control.settings import ServerSettings
from tests.control.hosts import add_job, add_repository, back_up, enrolled
from tests.control.servers import RunningServer, make_tenant, running
from tests.control.test_runs import FINISHED, STARTED


async def _trimmed(server: RunningServer, moment: datetime) -> tuple[int, int]:
    """Let old history go, where all runs began at `moment`."""
    services = make_services(ServerSettings(data_dir=server.data_dir, public_url=server.url))
    async with services.sessions.begin() as session:
        await session.execute(update(RunRow).values(created_at=moment))
    found = await trim(services)
    await services.engine.dispose()
    return found


@pytest.mark.slow
def test_old_logs_go_and_runs_stay_as_long_as_their_backup(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        tenant = make_tenant(server, "Alpha")
        host = enrolled(tenant)
        add_repository(tenant)
        job = add_job(tenant, host)
        kept, gone, on = back_up(host, job, "snapshot1"), str(uuid4()), str(uuid4())
        log = {"event": "log", "text": "a line"}
        host.tell(kept, log)
        host.tell(gone, {**STARTED, "job_uuid": job["uuid"]}, log, {**FINISHED, "status": "failed", "summary": {}})
        host.tell(on, {**STARTED, "job_uuid": job["uuid"]}, log)

        def lines(run: str) -> int:
            return len(tenant.api.ok("GET", f"/api/v1/runs/{run}/log")["items"])

        today = datetime.now(UTC)
        assert asyncio.run(_trimmed(server, today - timedelta(days=80))) == (0, 0)
        assert asyncio.run(_trimmed(server, today - timedelta(days=100))) == (2, 0)
        assert [lines(run) for run in (kept, gone, on)] == [0, 0, 1], "the log of what is on stays"
        assert asyncio.run(_trimmed(server, today - timedelta(days=500))) == (0, 1)
        assert [tenant.api("GET", f"/api/v1/runs/{run}").status for run in (kept, gone, on)] == [200, 404, 200]
        assert len(tenant.api.ok("GET", "/api/v1/machine-backups")["items"]) == 1
