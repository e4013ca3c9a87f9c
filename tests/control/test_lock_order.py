"""What the server does by itself holds no host while it waits for somebody who is about to come to that host."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest

from control.app import make_services
from control.db.engine import make_engine, make_sessions
from control.fleet.commands import Wakes
from control.fleet.known import KnownAgents
from control.fleet.watching import look
from control.repositories.maintenance import ask_due
from control.settings import ServerSettings
from tests.agent import processes
from tests.control.hosts import add_repository
from tests.control.postgres import Cluster
from tests.control.servers import RunningServer, Tenant, make_tenant, running
from tests.control.test_repository_locks import WAITING, add_job, new_host

pytestmark = pytest.mark.slow
eventually = partial(processes.eventually, seconds=60.0)


@pytest.fixture(scope="module")
def database(postgres: Cluster) -> str:
    return postgres.database()


@pytest.fixture(scope="module")
def server(database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with running(tmp_path_factory.mktemp("order"), database=database) as found:
        yield found


@pytest.fixture(scope="module")
def tenant(server: RunningServer) -> Tenant:
    return make_tenant(server, "Order")


def change(database: str, *statements: str) -> None:
    with psycopg.connect(database) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def blocked_without_the_host(
    database: str, held: str, uuid: str, host: str, work: Callable[[], Coroutine[Any, Any, None]]
) -> None:
    """While somebody holds a row of the table `held`, `work` waits for it; and the row of the host is free."""
    with (
        ThreadPoolExecutor(1) as pool,
        psycopg.connect(database) as holder,
        psycopg.connect(database, autocommit=True) as looker,
    ):
        holder.execute(f"SELECT uuid FROM {held} WHERE uuid = %s FOR UPDATE".encode(), [uuid])
        asked = pool.submit(lambda: asyncio.run(work()))
        try:
            assert eventually(lambda: asked.done() or looker.execute(WAITING).fetchone() != (0,))
            assert not asked.done(), "it waits"
            holder.execute("SELECT uuid FROM agents WHERE uuid = %s FOR NO KEY UPDATE NOWAIT", [host])
        finally:
            holder.rollback()
        asked.result()


def test_who_looks_after_the_fleet_holds_no_host_while_a_job_is_changed(database: str, tenant: Tenant) -> None:
    add_repository(tenant)
    host = new_host(tenant)
    job = add_job(tenant, host)
    change(
        database,
        "UPDATE agents SET last_heartbeat_at = now() - interval '1 day'",
        "UPDATE jobs SET due_at = now() - interval '1 day'",
    )

    async def once() -> None:
        engine = make_engine(database)
        async with make_sessions(engine).begin() as session:
            await look(session)
        await engine.dispose()

    blocked_without_the_host(database, "jobs", job["uuid"], host, once)
    kinds = {one["kind"] for one in tenant.api.ok("GET", f"/api/v1/alerts?agent={host}")["items"]}
    assert kinds == {"offline", "overdue"}


def test_who_asks_for_maintenance_holds_no_host_while_a_repository_is_used(
    database: str, tenant: Tenant, tmp_path: Path
) -> None:
    host = new_host(tenant)
    cron: dict[str, Any] = {"maintenance_cron": "15 3 * * *", "maintenance_agent_uuid": host, "default": False}
    made = [add_repository(tenant, **cron) for _ in range(2)]

    async def once() -> None:
        services = make_services(ServerSettings(data_dir=tmp_path, database_url=database))
        services.keep(Wakes(KnownAgents()))
        await ask_due(services)
        await services.engine.dispose()

    both = ", ".join(f"'{one['uuid']}'" for one in made)
    for one in made:  # which of them comes first is chance
        change(
            database,
            "UPDATE runs SET status = 'cancelled'",
            f"UPDATE agents SET registered_at = now() WHERE uuid = '{host}'",
            f"UPDATE repositories SET maintenance_due_at = now() - interval '1 day' WHERE uuid IN ({both})",
        )
        blocked_without_the_host(database, "repositories", one["uuid"], host, once)
    asked = tenant.api.ok("GET", f"/api/v1/runs?agent={host}")["items"]
    assert sorted(run["status"] for run in asked) == ["cancelled"] * 2 + ["queued"] * 2
