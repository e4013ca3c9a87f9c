"""Runs: reported once, shown live, given up when lost."""

from __future__ import annotations

import asyncio
import sqlite3
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import aiohttp
import pytest
from sqlalchemy import update

from control.db import everything
from control.db.engine import make_engine, make_sessions
from control.fleet.watching import look
from control.jobs.tables import JobRow
from control.runs.tables import RunRow
from tests.control.hosts import Host, add_job, add_repository, back_up, beside, enrolled, stamp
from tests.control.servers import Client, RunningServer, Tenant

STARTED = {"event": "started", "kind": "backup"}
FINISHED = {"event": "finished", "status": "success", "exit_code": 0}


@pytest.fixture(scope="module")
def host(tenant: Tenant) -> Host:
    add_repository(tenant)
    return enrolled(tenant)


@pytest.fixture(scope="module")
def job(tenant: Tenant, host: Host) -> dict[str, Any]:
    return add_job(tenant, host)


def progress(done: int) -> dict[str, Any]:
    stage = {"name": "read", "items": done, "bytes": done, "busy": 1.5, "starved": 0.5, "blocked": 0.0}
    return {"event": "progress", "phase": "backup", "files_done": done, "bytes_done": 10 * done, "stages": [stage]}


def test_a_run_from_start_to_backup(tenant: Tenant, host: Host, job: dict[str, Any]) -> None:
    run = tenant.api.ok("POST", f"/api/v1/backup-jobs/{job['uuid']}/run", {})["uuid"]
    path = f"/api/v1/runs/{run}"
    host.tell(run, {**STARTED, "job_uuid": job["uuid"], "trigger": "api"}, progress(5))
    shown = tenant.api.ok("GET", path)
    assert shown["status"] == "running" and shown["progress"]["stages"][0]["busy"] == 1.5
    problem = {
        "event": "problem",
        "path": "/var/www/\\xff",
        "path_b64": "L3Zhci93d3cv/w==",
        "text": "permission denied",
    }
    host.tell(run, {"event": "log", "text": "hello"}, problem)
    summary = {"snapshot": "abc123", "files": 9, "bytes": 90, "bytes_new": 30, "bytes_stored": 10, "problems": 1}
    host.tell(run, {**FINISHED, "status": "partial", "exit_code": 3, "summary": summary})
    shown = tenant.api.ok("GET", path)
    assert (shown["status"], shown["exit_code"], shown["problems"]) == ("partial", 3, 1)
    assert shown["summary"]["snapshot"] == "abc123"
    assert [line["text"] for line in tenant.api.ok("GET", f"{path}/log")["items"]] == ["hello"]
    (found,) = tenant.api.ok("GET", f"{path}/problems")["items"]
    assert (found["path"], found["path_b64"]) == ("/var/www/\\xff", "L3Zhci93d3cv/w==")
    (backup,) = [one for one in tenant.api.ok("GET", "/api/v1/machine-backups")["items"] if one["run_uuid"] == run]
    assert backup["snapshot"] == "abc123" and backup["complete"] is False and backup["agent_uuid"] == host.uuid
    assert tenant.api.ok("GET", f"/api/v1/machine-backups/{backup['uuid']}") == backup
    assert tenant.api.ok("GET", f"/api/v1/backup-jobs/{job['uuid']}")["last_run_status"] == "partial"


def test_events_that_are_sent_again_change_nothing(tenant: Tenant, host: Host, job: dict[str, Any]) -> None:
    run = str(uuid4())
    events = [
        {"event": "started", "sequence": 1, "time": stamp(), "kind": "backup", "job_uuid": job["uuid"]},
        {"event": "log", "sequence": 2, "time": stamp(), "text": "once"},
        {
            "event": "finished",
            "sequence": 7,
            "time": stamp(),
            "status": "success",
            "summary": {"snapshot": f"s{run[:8]}"},
        },
    ]
    for _ in range(3):
        answer = host.client("POST", f"/api/v1/agent/runs/{run}/events", {"events": events})
        assert answer.status == 200 and answer.body["taken"] == 7
    assert len(tenant.api.ok("GET", f"/api/v1/runs/{run}/log")["items"]) == 1
    backups = tenant.api.ok("GET", f"/api/v1/machine-backups?job={job['uuid']}&limit=500")["items"]
    assert [one["run_uuid"] for one in backups].count(run) == 1


def test_a_run_of_another_agent_is_not_there(tenant: Tenant, host: Host, job: dict[str, Any]) -> None:
    run = back_up(host, job, "mine")
    other = enrolled(tenant, "web-2")
    assert other.tell(run, {"event": "log", "text": "forged"}).status == 404
    stolen = other.tell(str(uuid4()), {**STARTED, "job_uuid": job["uuid"]}, {**FINISHED, "summary": {"snapshot": "x"}})
    assert stolen.status == 200, "a run of its own, but not of a job of another's"
    assert tenant.api.ok("GET", f"/api/v1/machine-backups?agent={other.uuid}")["items"] == []
    assert other.tell(str(uuid4()), {"event": "log", "text": "never began"}).status == 404


def test_what_retention_let_go_is_no_longer_listed(tenant: Tenant, host: Host, job: dict[str, Any]) -> None:
    old = back_up(host, job, "old1")
    new = back_up(host, job, "new1", forgotten=["old1"])
    listed = {one["run_uuid"] for one in tenant.api.ok("GET", "/api/v1/machine-backups?limit=500")["items"]}
    assert new in listed and old not in listed


def test_cancel_reaches_the_agent_and_a_finished_run_cannot_be(tenant: Tenant, host: Host, job: dict[str, Any]) -> None:
    run = tenant.api.ok("POST", f"/api/v1/backup-jobs/{job['uuid']}/run", {})["uuid"]
    host.tell(run, {**STARTED, "job_uuid": job["uuid"]})
    assert tenant.api("POST", f"/api/v1/runs/{run}/cancel").status == 202
    assert host.command("cancel_run")["run_uuid"] == run
    assert host.tell(run, progress(1)).body["cancel"] is True
    host.tell(run, {**FINISHED, "status": "cancelled", "exit_code": 130})
    assert tenant.api.ok("GET", f"/api/v1/runs/{run}")["status"] == "cancelled"
    assert tenant.api("POST", f"/api/v1/runs/{run}/cancel").status == 409


async def _watch(client: Client, run: str, last: str | None = None) -> tuple[int, list[dict[str, str]]]:
    """The events of a stream until it ends."""
    headers = {"Authorization": f"Bearer {client.token}"} | ({"Last-Event-ID": last} if last is not None else {})
    connector = aiohttp.TCPConnector(ssl=client.server.context())
    async with (
        aiohttp.ClientSession(client.server.url, connector=connector) as session,
        session.get(f"/api/v1/runs/{run}/events", headers=headers) as answer,
    ):
        blocks = (await answer.text()).split("\n\n")
        parsed = [dict(line.split(": ", 1) for line in block.splitlines()) for block in blocks if block[:1] == "i"]
        return answer.status, parsed


def test_a_run_can_be_watched_and_the_watch_resumed(tenant: Tenant, host: Host, job: dict[str, Any]) -> None:
    run = str(uuid4())
    host.tell(run, {**STARTED, "job_uuid": job["uuid"]}, {"event": "log", "text": "one"})
    with beside() as submit:
        watch = submit(lambda: asyncio.run(_watch(tenant.api, run)))
        for number in range(3):
            host.tell(run, progress(number), {"event": "log", "text": f"line {number}"})
        host.tell(run, FINISHED)
        status, events = watch.result(30)
    assert status == 200
    logs = [event["data"] for event in events if event["event"] == "log"]
    assert len(logs) == 4 and '"line 2"' in logs[3]
    assert '"status":"success"' in events[-1]["data"] and events[-1]["event"] == "run"
    middle = [event for event in events if event["event"] == "log"][1]["id"]
    _, rest = asyncio.run(_watch(tenant.api, run, middle))
    assert [event["data"] for event in rest if event["event"] == "log"] == logs[2:]
    assert asyncio.run(_watch(tenant.api, run, events[-1]["id"]))[0] == 204, "nothing more comes"


def test_a_failure_is_an_alert_until_the_job_succeeds(tenant: Tenant, host: Host) -> None:
    job = add_job(tenant, host, name="fails")
    error = {"what": "the store has no room left", "why": "quota"}
    for _ in range(2):
        host.tell(str(uuid4()), {**STARTED, "job_uuid": job["uuid"]}, {**FINISHED, "status": "failed", "error": error})
    path = f"/api/v1/alerts?job={job['uuid']}&kind=failed"
    (alert,) = tenant.api.ok("GET", path)["items"]
    assert alert["count"] == 2 and "no room left" in alert["text"] and alert["severity"] == "critical"
    assert tenant.api.ok("POST", f"/api/v1/alerts/{alert['uuid']}/acknowledge")["acknowledged_at"]
    assert tenant.api.ok("GET", path + "&open=true")["items"] == []
    back_up(host, job, "good")
    assert tenant.api.ok("GET", path)["items"][0]["resolved_at"]


def test_missing_paths_and_a_sudden_size_are_told(tenant: Tenant, host: Host) -> None:
    job = add_job(tenant, host, name="shrinks")
    for number in range(4):
        back_up(host, job, f"shr{number}", bytes=1 << 30, bytes_new=1 << 20)
    kinds = {one["kind"] for one in tenant.api.ok("GET", f"/api/v1/alerts?job={job['uuid']}")["items"]}
    assert kinds == set()
    back_up(host, job, "shr9", bytes=1 << 28, bytes_new=1 << 28, missing_paths=["/etc/nginx"])
    kinds = {one["kind"] for one in tenant.api.ok("GET", f"/api/v1/alerts?job={job['uuid']}&open=true")["items"]}
    assert kinds == {"missing_paths", "size_anomaly", "dedup_collapse"}
    back_up(host, job, "shr10", bytes=1 << 30, bytes_new=1 << 20)
    assert tenant.api.ok("GET", f"/api/v1/alerts?job={job['uuid']}&open=true")["items"] == []


def test_a_job_without_deduplication_is_no_collapse(tenant: Tenant, host: Host) -> None:
    """Turned off, all it reads counts as new; turned on again, it is compared with the runs that did deduplicate."""
    job = add_job(tenant, host, name="twice")
    path = f"/api/v1/alerts?job={job['uuid']}&kind=dedup_collapse&open=true"
    usual, all_new = {"bytes": 1 << 30, "bytes_new": 1 << 20}, {"bytes": 1 << 30, "bytes_new": 1 << 30}
    for number in range(4):
        back_up(host, job, f"twice{number}", **usual)
    for number in range(4, 9):
        run = back_up(host, job, f"twice{number}", **all_new, deduplicated=False)
        assert tenant.api.ok("GET", f"/api/v1/runs/{run}")["summary"]["deduplicated"] is False
        assert tenant.api.ok("GET", path)["items"] == []
    back_up(host, job, "twice9", **all_new)
    assert len(tenant.api.ok("GET", path)["items"]) == 1
    back_up(host, job, "twice10", **all_new, deduplicated=False)
    assert len(tenant.api.ok("GET", path)["items"]) == 1, "it is not known to be as usual again"
    back_up(host, job, "twice11", **usual)
    assert tenant.api.ok("GET", path)["items"] == []


def test_a_run_that_is_reported_finished_again_changes_nothing(tenant: Tenant, host: Host, job: dict[str, Any]) -> None:
    run = back_up(host, job, "once")
    assert host.tell(run, {**FINISHED, "summary": {"snapshot": "twice"}}).status == 200
    backups = tenant.api.ok("GET", f"/api/v1/machine-backups?job={job['uuid']}")["items"]
    assert [one["snapshot"] for one in backups if one["run_uuid"] == run] == ["once"]


async def _later(server: RunningServer, **shift: timedelta) -> None:
    """Look after the fleet, as if time had passed."""
    assert everything.metadata.tables
    engine = make_engine(f"sqlite:///{server.data_dir / 'server.sqlite3'}")
    past = datetime.now(UTC)
    async with make_sessions(engine).begin() as session:
        if "runs" in shift:
            await session.execute(update(RunRow).values(heard_at=past - shift["runs"]))
        if "jobs" in shift:
            await session.execute(update(JobRow).where(JobRow.due_at.is_not(None)).values(due_at=past - shift["jobs"]))
        await look(session)
    await engine.dispose()


def test_a_run_nobody_knows_of_is_lost_until_it_is_heard_of(tenant: Tenant, host: Host, job: dict[str, Any]) -> None:
    server, gone, busy = tenant.api.server, str(uuid4()), str(uuid4())
    for run in (gone, busy):
        host.tell(run, {**STARTED, "job_uuid": job["uuid"]})
    with sqlite3.connect(server.data_dir / "server.sqlite3") as database:
        said = '{"running": ["' + busy + '"]}'
        database.execute("UPDATE agents SET heartbeat = ? WHERE uuid = ?", (said, host.uuid.replace("-", "")))
    asyncio.run(_later(server, runs=timedelta(minutes=16)))
    assert tenant.api.ok("GET", f"/api/v1/runs/{gone}")["status"] == "lost"
    assert tenant.api.ok("GET", f"/api/v1/runs/{busy}")["status"] == "running", "its agent says that it goes on"
    with sqlite3.connect(server.data_dir / "server.sqlite3") as database:
        database.execute(
            "UPDATE agents SET last_heartbeat_at = '2026-01-01 00:00:00' WHERE uuid = ?", (host.uuid.replace("-", ""),)
        )
    asyncio.run(_later(server, runs=timedelta(minutes=16)))
    assert tenant.api.ok("GET", f"/api/v1/runs/{busy}")["status"] == "lost", "what its agent said is long ago"
    assert tenant.api.ok("GET", f"/api/v1/alerts?agent={host.uuid}&kind=lost")["items"]
    host.tell(gone, progress(1), {"event": "log", "text": "still there"})
    assert tenant.api.ok("GET", f"/api/v1/runs/{gone}")["status"] == "running"
    host.tell(gone, FINISHED)
    assert tenant.api.ok("GET", f"/api/v1/runs/{gone}")["status"] == "success"
    host.beat()


def test_a_job_that_did_not_run_is_overdue_until_it_does(tenant: Tenant, host: Host) -> None:
    job, by_hand = add_job(tenant, host, name="late"), add_job(tenant, host, name="by hand", schedule_cron=None)
    asyncio.run(_later(tenant.api.server, jobs=timedelta(minutes=1)))
    assert tenant.api.ok("GET", f"/api/v1/backup-jobs/{job['uuid']}")["overdue"] is True
    assert tenant.api.ok("GET", f"/api/v1/backup-jobs/{by_hand['uuid']}")["overdue"] is False, "idle is not late"
    (alert,) = tenant.api.ok("GET", f"/api/v1/alerts?job={job['uuid']}&kind=overdue")["items"]
    assert alert["resolved_at"] is None
    host.tell(str(uuid4()), {**STARTED, "job_uuid": job["uuid"]})
    assert tenant.api.ok("GET", f"/api/v1/backup-jobs/{job['uuid']}")["overdue"] is False
    assert tenant.api.ok("GET", f"/api/v1/alerts?job={job['uuid']}&kind=overdue")["items"][0]["resolved_at"]
