"""Agents as operators see them, their heartbeats and their commands."""

from __future__ import annotations

import asyncio
import re
import signal
import sqlite3
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from control.db import everything
from control.db.engine import make_engine, make_sessions
from control.fleet.watching import look
from tests.agent.processes import eventually
from tests.control.hosts import Host, add_job, add_repository, beside, enrolled, waits
from tests.control.servers import RunningServer, Tenant, make_tenant, running


def test_agents_are_listed_changed_and_told(tenant: Tenant) -> None:
    host = enrolled(tenant, "list-1")
    path = f"/api/v1/agents/{host.uuid}"
    changed = tenant.api.ok(
        "PATCH", path, {"name": "Web", "tags": ["prod"], "bandwidth_limit_mbps": 20, "paused": True}
    )
    assert (changed["name"], changed["tags"], changed["paused"]) == ("Web", ["prod"], True)
    policy = host.policy()
    assert policy["paused"] is True and policy["bandwidth_limit_mbps"] == 20
    assert host.command("set_limits")["bandwidth_limit_mbps"] == 20
    assert tenant.api("PATCH", path, {"tags": None}).status == 422
    found = tenant.api.ok("GET", "/api/v1/agents?hostname=list-1")["items"]
    assert [one["uuid"] for one in found] == [host.uuid]


def test_health_is_what_the_agent_said_and_what_needs_a_look(tenant: Tenant) -> None:
    host = enrolled(tenant)
    disks = [{"path": "/var/lib/lox-agent", "free": 1, "total": 100}]
    host.beat(health={"disks": disks, "clock_skew_seconds": 300.0}, metrics_port=19100)
    found = tenant.api.ok("GET", f"/api/v1/agents/{host.uuid}/health")
    assert found["health"]["disks"] == disks
    assert any("1 % free" in text for text in found["problems"]) and any("clock" in text for text in found["problems"])
    assert tenant.api.ok("GET", f"/api/v1/agents/{host.uuid}")["metrics_port"] == 19100


def _shift(server: RunningServer, agent: str, seconds: float) -> None:
    """As if an agent had been silent for so long; looked after at once."""

    async def after() -> None:
        engine = make_engine(f"sqlite:///{server.data_dir / 'server.sqlite3'}")
        async with make_sessions(engine).begin() as session:
            await look(session)
        await engine.dispose()

    assert everything.metadata.tables
    time.sleep(5.5)  # heartbeats are written by then
    then = (datetime.now(UTC) - timedelta(seconds=seconds)).strftime("%Y-%m-%d %H:%M:%S.%f")
    with sqlite3.connect(server.data_dir / "server.sqlite3") as database:
        changed = database.execute(
            "UPDATE agents SET last_heartbeat_at = ? WHERE uuid = ?", (then, agent.replace("-", ""))
        )
        assert changed.rowcount == 1
    asyncio.run(after())


@pytest.mark.slow
def test_an_agent_is_offline_after_five_minutes_and_back_at_once(tenant: Tenant) -> None:
    host, server = enrolled(tenant), tenant.api.server
    path = f"/api/v1/agents/{host.uuid}"
    _shift(server, host.uuid, 290)
    assert tenant.api.ok("GET", path)["status"] == "online"
    _shift(server, host.uuid, 301)
    assert tenant.api.ok("GET", path)["status"] == "offline"
    (alert,) = tenant.api.ok("GET", f"/api/v1/alerts?agent={host.uuid}&kind=offline")["items"]
    assert alert["resolved_at"] is None and "no heartbeat since" in alert["text"]
    host.beat()
    assert tenant.api.ok("GET", path)["status"] == "online"
    eventually(
        lambda: tenant.api.ok("GET", f"/api/v1/alerts?agent={host.uuid}&kind=offline")["items"][0]["resolved_at"]
    )


@pytest.mark.slow
def test_a_wrong_clock_is_told(tenant: Tenant) -> None:
    host = enrolled(tenant)
    host.beat(time=(datetime.now(UTC) + timedelta(minutes=10)).isoformat())
    path = f"/api/v1/alerts?agent={host.uuid}&kind=clock_skew"
    (alert,) = eventually(lambda: tenant.api.ok("GET", path)["items"])
    ahead = re.search(r"clock is (\d+) s ahead", alert["text"])
    assert ahead is not None and 540 < int(ahead[1]) <= 600, "less by what the request took"


def test_a_waiting_agent_hears_of_a_command_at_once(tenant: Tenant) -> None:
    host = enrolled(tenant)
    with beside() as submit:
        waiting = submit(host.commands, 20)
        assert waits(waiting, 1.0)
        begin = time.monotonic()
        tenant.api.ok("POST", f"/api/v1/agents/{host.uuid}/rotate-token")
        (command,) = waiting.result(5)
        assert time.monotonic() - begin < 1.0, "long before the wait is over"
    assert command["body"]["kind"] == "rotate_credential" and command["sequence"] == host.after


def test_commands_come_until_they_are_taken_over(tenant: Tenant) -> None:
    add_repository(tenant)
    host = enrolled(tenant)
    job = add_job(tenant, host)
    tenant.api.ok("POST", f"/api/v1/backup-jobs/{job['uuid']}/run", {})
    first = host.commands()
    host.after = 0
    assert host.commands() == first and [one["sequence"] for one in first] == [1, 2]
    assert host.commands() == []
    host.after = 0
    assert host.commands() == [], "what was taken over is gone"


@pytest.mark.slow
def test_commands_survive_the_death_of_the_server(tmp_path: Path) -> None:
    with running(tmp_path / "server") as server:
        tenant = make_tenant(server, "Alpha")
        add_repository(tenant)
        host = enrolled(tenant)
        job = add_job(tenant, host)
        host.commands()
        run = tenant.api.ok("POST", f"/api/v1/backup-jobs/{job['uuid']}/run", {})["uuid"]
        server.stop(signal.SIGKILL)
        server.start()
        assert host.command("run_job")["run_uuid"] == run
        ended = {"event": "finished", "status": "success", "summary": {"snapshot": "s1"}}
        assert host.tell(run, {"event": "started", "kind": "backup"}, ended).status == 200
        assert tenant.api.ok("GET", f"/api/v1/runs/{run}")["status"] == "success"
        assert server.stop() == 0, "SIGTERM"


def test_an_agent_that_is_ahead_of_a_restored_database_gets_what_is_new(tenant: Tenant) -> None:
    host: Host = enrolled(tenant)
    host.after = 40
    assert host.commands() == []
    tenant.api.ok("POST", f"/api/v1/agents/{host.uuid}/rotate-token")
    assert [one["sequence"] for one in host.commands()] == [41]


def test_agents_of_a_suspended_tenant_are_told_to_wait_and_go_on_later(server: RunningServer) -> None:
    tenant = make_tenant(server, "Paused")
    host = enrolled(tenant, "paused-1")
    path = f"/api/v1/tenants/{tenant.uuid}"
    server.root().ok("PATCH", path, {"suspended": True})
    deadline = time.monotonic() + 10  # what is known of agents lives for some seconds
    while (answer := host.beat()).status == 200:
        assert time.monotonic() < deadline
        time.sleep(0.5)
    assert (answer.status, answer.body["detail"]) == (403, "the tenant of this agent is suspended")
    server.root().ok("PATCH", path, {"suspended": False})
    assert host.beat().status == 200
