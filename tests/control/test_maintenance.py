"""Maintenance of repositories: who is asked, when, by which rules, and what becomes of its end."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import update

from control.app import make_services
from control.db import everything
from control.fleet.commands import Wakes
from control.fleet.known import KnownAgents
from control.repositories.maintenance import ask_due
from control.repositories.tables import RepositoryRow
from control.settings import ServerSettings
from tests.control.hosts import Host, add_job, add_repository, back_up, enrolled
from tests.control.servers import RunningServer, Tenant


@pytest.fixture
def hosts(tenant: Tenant) -> list[Host]:
    return [enrolled(tenant, f"host-{uuid4().hex[:8]}") for _ in range(2)]


async def _due(server: RunningServer, **values: Any) -> None:
    """The times of all repositories are over, as if time had passed; a process of the server looks."""
    assert everything.metadata.tables
    services = make_services(ServerSettings(data_dir=server.data_dir, public_url=server.url))
    services.keep(Wakes(KnownAgents()))
    async with services.sessions.begin() as session:
        past = datetime.now(UTC) - timedelta(days=3)
        due = update(RepositoryRow).where(RepositoryRow.maintenance_due_at.is_not(None))
        await session.execute(due.values(maintenance_due_at=past))
    await ask_due(services)
    await services.engine.dispose()


def test_the_server_asks_once_for_what_is_due_with_the_rules_of_all_jobs(tenant: Tenant, hosts: list[Host]) -> None:
    first, second = hosts
    zone = {"maintenance_cron": "15 3 * * *", "maintenance_timezone": "Europe/Berlin"}
    made = add_repository(tenant, maintenance_agent_uuid=first.uuid, **zone)
    local = datetime.fromisoformat(made["next_maintenance_at"])
    assert (local.minute, local.hour in (1, 2)) == (15, True)
    jobs = [
        add_job(tenant, first, retention_count=3),
        add_job(tenant, second, keep={"daily": 9}, timezone="Asia/Tokyo"),
    ]
    (known,) = first.policy()["repositories"]
    assert known["maintenance"] and known["scheduled"]
    server = tenant.api.server
    for _ in range(2):
        asyncio.run(_due(server))
    asked = [one["body"] for one in first.commands() if one["body"]["kind"] == "maintain"]
    assert len(asked) == 1, "it is under way, and not asked for again"
    rules = {rule["job_uuid"]: rule for rule in asked[0]["rules"]}
    assert set(rules) == {job["uuid"] for job in jobs}
    assert rules[jobs[0]["uuid"]]["retention_count"] == 3
    assert (rules[jobs[1]["uuid"]]["keep"]["daily"], rules[jobs[1]["uuid"]]["timezone"]) == (9, "Asia/Tokyo")
    again = tenant.api("POST", f"/api/v1/repositories/{made['uuid']}/maintain")
    assert (again.status, again.body["detail"]) == (409, "it is being maintained")
    snapshot = f"snapshot{uuid4().hex[:8]}"
    back_up(second, jobs[1], snapshot)
    run = asked[0]["run_uuid"]
    first.tell(run, {"event": "started", "kind": "maintenance"})
    assert tenant.api.ok("GET", f"/api/v1/runs/{run}")["trigger"] == "schedule"
    done = {"event": "finished", "status": "success", "summary": {"forgotten": [snapshot]}}
    assert first.tell(run, done).status == 200
    assert tenant.api.ok("GET", f"/api/v1/machine-backups?job={jobs[1]['uuid']}")["items"] == []


def test_maintenance_that_fails_is_an_alert_until_it_succeeds(tenant: Tenant, hosts: list[Host]) -> None:
    made = add_repository(tenant, maintenance_agent_uuid=hosts[0].uuid)
    path = f"/api/v1/repositories/{made['uuid']}/maintain"
    for status, still_open in (("failed", 1), ("success", 0)):
        run = tenant.api.ok("POST", path)["uuid"]
        error = {"what": "prune failed", "why": "no key"} if status == "failed" else None
        hosts[0].tell(run, {"event": "started", "kind": "maintenance"})
        hosts[0].tell(run, {"event": "finished", "status": status, "error": error})
        found = tenant.api.ok("GET", f"/api/v1/alerts?agent={hosts[0].uuid}&kind=failed&open=true")["items"]
        assert len(found) == still_open


def test_without_a_maintainer_or_a_time_nothing_is_asked(tenant: Tenant, hosts: list[Host]) -> None:
    nobody, by_hand = add_repository(tenant), add_repository(tenant, maintenance_cron=None)
    assert tenant.api("POST", f"/api/v1/repositories/{nobody['uuid']}/maintain").status == 409
    assert (nobody["next_maintenance_at"], by_hand["next_maintenance_at"]) == (None, None)
    path = f"/api/v1/repositories/{nobody['uuid']}"
    set_up = tenant.api.ok("PATCH", path, {"maintenance_agent_uuid": hosts[1].uuid})
    assert set_up["next_maintenance_at"], "once a day, unless told otherwise"
    assert tenant.api.ok("PATCH", path, {"maintenance_cron": None})["next_maintenance_at"] is None
    for field, value in (("maintenance_cron", "61 * * * *"), ("maintenance_timezone", "Mars/Olympus")):
        refused = tenant.api("PATCH", path, {"maintenance_cron": "0 1 * * *", field: value})
        assert (refused.status, field in refused.body["detail"]) == (422, True)
