"""Every kind of alert, from its cause to somebody who is told, and to its end; and a server that is killed at it."""

from __future__ import annotations

import asyncio
import json
import signal
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, get_args
from uuid import uuid4

import psutil
import pytest
from sqlalchemy import update

from control.alerts.tables import AlertDeliveryRow
from control.db import everything
from control.db.engine import make_engine, make_sessions
from control.fleet.watching import look
from model.wire.alerts import AlertKind
from tests.agent import processes
from tests.control import receivers
from tests.control.hosts import Host, add_job, add_repository, back_up, enrolled, registration
from tests.control.postgres import Cluster
from tests.control.receivers import Receiver
from tests.control.servers import Client, RunningServer, Tenant, make_tenant, running

pytestmark = pytest.mark.slow
TARGETS = "/api/v1/alert-targets"
eventually = partial(processes.eventually, seconds=90.0)
USUAL: dict[str, Any] = {"bytes": 1 << 30, "bytes_new": 1 << 20}
STRANGE: dict[str, Any] = {"bytes": 1 << 28, "bytes_new": 1 << 28, "missing_paths": ["/etc/nginx"]}
LOOKED_AWAY = timedelta(hours=1)


@pytest.fixture
def hook() -> Iterator[Receiver]:
    with receivers.web() as found:
        yield found


@pytest.fixture
def broken() -> Iterator[Receiver]:
    with receivers.web() as found:
        found.statuses = [500] * 100
        yield found


def started(host: Host, job: dict[str, Any]) -> str:
    """A run that goes on."""
    run = str(uuid4())
    assert host.tell(run, {"event": "started", "kind": "backup", "job_uuid": job["uuid"]}).status == 200
    return run


def fail(host: Host, job: dict[str, Any]) -> None:
    error = {"what": "cannot store", "why": "no room left"}
    assert host.tell(started(host, job), {"event": "finished", "status": "failed", "error": error}).status == 200


def change(server: RunningServer, statement: str, *values: str) -> bool:
    """Changes the server's database: time that a test cannot wait for. False: no condition came true by that."""
    with sqlite3.connect(server.data_dir / "server.sqlite3", timeout=30) as database:
        assert database.execute(statement, [value.replace("-", "") for value in values]).rowcount
    database.close()
    return False


def look_after(server: RunningServer) -> None:
    """What the server does every 15 s."""

    async def once() -> None:
        assert everything.metadata.tables
        engine = make_engine(f"sqlite:///{server.data_dir / 'server.sqlite3'}")
        async with make_sessions(engine).begin() as db:
            await look(db)
        await engine.dispose()

    asyncio.run(once())


def await_all(hook: Receiver, event: str) -> None:
    """Returns when something of every kind was told to have happened."""
    seen: set[str] = set()
    while seen != set(get_args(AlertKind)):
        told = json.loads(hook.next().body)
        seen |= {alert["kind"] for alert in told["alerts"] if alert["event"] == event}


def test_every_kind_opens_and_ends(tenant: Tenant, hook: Receiver, broken: Receiver) -> None:
    server, api, past = tenant.api.server, tenant.api, (datetime.now(UTC) - LOOKED_AWAY).strftime("%F %T.000000")
    at_once = {"wait_seconds": 0, "quiet_seconds": 0}
    dead = {"name": "dead", "webhook": {"url": broken.url}, "kinds": ["failed"], "resolved": False, **at_once}
    path = f"{TARGETS}/{api.ok('POST', TARGETS, dead)['uuid']}"
    api.ok("POST", TARGETS, {"name": "all", "webhook": {"url": hook.url}, **at_once})
    add_repository(tenant)
    host = enrolled(tenant, "busy")
    failing, odd, late, gone = (add_job(tenant, host, name=name) for name in ("failing", "odd", "late", "gone"))
    silent, skewed, thief = (enrolled(tenant, name) for name in ("silent", "skewed", "thief"))
    for number in range(4):
        back_up(host, odd, f"odd{number}", **USUAL)
    eventually(lambda: _written(server, silent))

    fail(host, failing)
    back_up(host, odd, "odd8", **STRANGE)
    run = started(host, gone)
    change(server, f"UPDATE runs SET heard_at = '{past}' WHERE uuid = ?", run)
    change(server, f"UPDATE jobs SET due_at = '{past}' WHERE uuid = ?", late["uuid"])
    change(server, f"UPDATE agents SET last_heartbeat_at = '{past}' WHERE uuid = ?", silent.uuid)
    look_after(server)
    skewed.beat(time=(datetime.now(UTC) + timedelta(minutes=10)).isoformat())
    assert (
        Client(server)("POST", "/api/v1/agent/register", registration(thief.agent, machine_id="another-machine")).status
        == 401
    )
    eventually(lambda: api.ok("GET", path)["error"])
    delivery = api.ok("GET", f"{path}/deliveries")["items"][0]["uuid"]
    last = f"UPDATE alert_deliveries SET attempts = 7, due_at = '{past}' WHERE uuid = ?"
    eventually(lambda: change(server, last, delivery) or api.ok("GET", "/api/v1/alerts?kind=undelivered")["items"])
    await_all(hook, "opened")
    broken.statuses.clear()

    back_up(host, failing, "good1")
    back_up(host, odd, "odd9", **USUAL)
    back_up(host, gone, "good2")
    started(host, late)
    silent.beat()
    skewed.beat()
    again = api.ok("POST", f"/api/v1/agents/{thief.uuid}/install-command")
    Client(server).ok("POST", "/api/v1/agent/register", registration({**thief.agent, **again}))
    fail(host, failing)
    await_all(hook, "resolved")
    ours = {host.uuid, silent.uuid, skewed.uuid, thief.uuid}
    left = [one for one in api.ok("GET", "/api/v1/alerts?open=true")["items"] if one["agent_uuid"] in ours]
    assert [(one["kind"], one["job_uuid"]) for one in left] == [("failed", failing["uuid"])]


def _written(server: RunningServer, host: Host) -> bool:
    """Whether the heartbeat of a host is in the database."""
    with sqlite3.connect(server.data_dir / "server.sqlite3", timeout=30) as database:
        asked = "SELECT last_heartbeat_at FROM agents WHERE uuid = ?"
        (found,) = database.execute(asked, [host.uuid.replace("-", "")]).fetchone()
    database.close()
    return found is not None


def test_an_acknowledged_state_is_not_told_again(tenant: Tenant) -> None:
    host = enrolled(tenant)
    path = f"/api/v1/alerts?agent={host.uuid}&kind=clock_skew"
    off = (datetime.now(UTC) + timedelta(minutes=10)).isoformat()
    host.beat(time=off)
    alert = eventually(lambda: tenant.api.ok("GET", path)["items"])[0]
    tenant.api.ok("POST", f"/api/v1/alerts/{alert['uuid']}/acknowledge")
    host.beat(time=off)
    eventually(lambda: tenant.api.ok("GET", path)["items"][0]["count"] >= 2)
    assert len(tenant.api.ok("GET", path)["items"]) == 1


def test_what_goes_takes_its_alerts_with_it_and_that_is_told(tenant: Tenant, hook: Receiver) -> None:
    made = {"name": "all", "webhook": {"url": hook.url}, "kinds": ["failed"], "wait_seconds": 0, "quiet_seconds": 0}
    tenant.api.ok("POST", TARGETS, made)
    add_repository(tenant)
    host = enrolled(tenant, "leaves")
    one, other = add_job(tenant, host, name="one"), add_job(tenant, host, name="other")
    for job in (one, other):
        fail(host, job)
        hook.next()
    tenant.api.ok("DELETE", f"/api/v1/backup-jobs/{one['uuid']}")
    (told,) = json.loads(hook.next().body)["alerts"]
    assert (told["event"], told["job_uuid"]) == ("resolved", one["uuid"])
    tenant.api.ok("DELETE", f"/api/v1/agents/{host.uuid}")
    (told,) = json.loads(hook.next().body)["alerts"]
    assert (told["event"], told["job_uuid"]) == ("resolved", other["uuid"])


def test_a_server_that_is_killed_at_it_sends_it_again_and_not_for_ever(tmp_path: Path, hook: Receiver) -> None:
    with running(tmp_path / "killed", LOX_SERVER_ALERT_NETWORKS="127.0.0.1/32") as server:
        tenant = make_tenant(server, "Killed")
        body = {"name": "slow", "webhook": {"url": hook.url}, "wait_seconds": 0, "quiet_seconds": 0}
        path = f"{TARGETS}/{tenant.api.ok('POST', TARGETS, body)['uuid']}"
        add_repository(tenant)
        host = enrolled(tenant)
        hook.go.clear()
        fail(host, add_job(tenant, host))
        first = hook.next()
        server.stop(signal.SIGKILL)
        hook.go.set()
        change(server, "UPDATE alert_deliveries SET claimed_until = created_at WHERE ? = ''", "")  # a minute later
        server.start()
        second = hook.next()
        assert (second.headers["webhook-id"], second.body) == (first.headers["webhook-id"], first.body)
        eventually(lambda: tenant.api.ok("GET", path)["sent"] == 1)
        (delivery,) = tenant.api.ok("GET", f"{path}/deliveries")["items"]
        assert (delivery["state"], delivery["uuid"]) == ("sent", first.headers["webhook-id"])
        assert delivery["attempts"] >= 2
        assert server.stop() == 0 and hook.came.empty()


def test_of_two_processes_one_sends_and_the_next_takes_over(tmp_path: Path, hook: Receiver, postgres: Cluster) -> None:
    database, allowed = postgres.database(), "127.0.0.1/32"
    two = {"LOX_SERVER_PROCESSES": "2", "LOX_SERVER_ALERT_NETWORKS": allowed}
    with running(tmp_path / "two", database=database, **two) as server:
        tenant = make_tenant(server, "Two")
        body = {"name": "slow", "webhook": {"url": hook.url}, "wait_seconds": 0, "quiet_seconds": 0}
        path = f"{TARGETS}/{tenant.api.ok('POST', TARGETS, body)['uuid']}"
        add_repository(tenant)
        host = enrolled(tenant)
        hook.go.clear()
        fail(host, add_job(tenant, host))
        first = hook.next()
        assert server.process is not None
        (sender,) = [one for one in psutil.Process(server.process.pid).children() if hook.port in _peers(one)]
        sender.kill()
        hook.go.set()
        asyncio.run(_release(database))
        second = hook.next()
        assert (second.headers["webhook-id"], second.body) == (first.headers["webhook-id"], first.body)
        eventually(lambda: tenant.api.ok("GET", path)["sent"] == 1)
        assert server.stop() == 0 and hook.came.empty()


def _peers(process: psutil.Process) -> set[int]:
    """Ports to which a process has connections."""
    return {one.raddr.port for one in process.net_connections("tcp") if one.raddr}


async def _release(database: str) -> None:
    """As if a minute had passed since a message was claimed."""
    engine = make_engine(database)
    async with make_sessions(engine).begin() as db:
        await db.execute(update(AlertDeliveryRow).values(claimed_until=AlertDeliveryRow.created_at))
    await engine.dispose()
