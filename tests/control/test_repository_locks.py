"""A repository is removed while others put jobs into it: on PostgreSQL, where two transactions can be in the middle."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from tests.agent import processes
from tests.control.hosts import JOB, add_repository
from tests.control.postgres import Cluster
from tests.control.servers import Answer, RunningServer, Tenant, make_tenant, running

pytestmark = pytest.mark.slow
eventually = partial(processes.eventually, seconds=60.0)
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


@pytest.fixture(scope="module")
def database(postgres: Cluster) -> str:
    return postgres.database()


@pytest.fixture(scope="module")
def server(database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with running(tmp_path_factory.mktemp("locks"), database=database) as found:
        yield found


@pytest.fixture(scope="module")
def tenant(server: RunningServer) -> Tenant:
    return make_tenant(server, "Locks")


class Held:
    """A host's row that somebody else holds: whoever comes to it waits there, in the middle of a transaction."""

    def __init__(self, holder: psycopg.Connection[Any], looker: psycopg.Connection[Any], pool: ThreadPoolExecutor):
        self._holder, self._looker, self._pool = holder, looker, pool

    def ask(self, tenant: Tenant, *request: Any, waiting: int) -> Future[Answer]:
        """Begin a request. Returns when it is done, or when so many wait for others in the database."""
        asked = self._pool.submit(tenant.api, *request)
        assert eventually(lambda: asked.done() or self._waiting() == waiting)
        return asked

    def _waiting(self) -> int:
        (count,) = self._looker.execute(WAITING).fetchone() or (0,)
        return int(count)

    def let_go(self) -> None:
        """Let them go on."""
        self._holder.rollback()


@contextmanager
def held(database: str, host: str) -> Iterator[Held]:
    with (
        ThreadPoolExecutor(2) as pool,
        psycopg.connect(database) as holder,
        psycopg.connect(database, autocommit=True) as looker,
    ):
        holder.execute("SELECT uuid FROM agents WHERE uuid = %s FOR UPDATE", [host])
        try:
            yield Held(holder, looker, pool)
        finally:
            holder.rollback()


def new_host(tenant: Tenant) -> str:
    """One that is not there yet: it sends no heartbeats, which would wait too."""
    body = {"hostname": f"{uuid4()}.example.com", "os": "linux"}
    return str(tenant.api.ok("POST", "/api/v1/agents", body)["uuid"])


def a_job(host: str, **fields: Any) -> dict[str, Any]:
    return {**JOB, "agent_uuid": host, **fields}


def add_job(tenant: Tenant, host: str, **fields: Any) -> dict[str, Any]:
    return dict(tenant.api.ok("POST", "/api/v1/backup-jobs", a_job(host, **fields)))


def jobs_of_removed(tenant: Tenant, repository: dict[str, Any]) -> list[str]:
    """Names of jobs that go on to a repository which nobody finds."""
    jobs = tenant.api.ok("GET", "/api/v1/backup-jobs")["items"]
    gone = tenant.api("GET", f"/api/v1/repositories/{repository['uuid']}").status == 404
    return [one["name"] for one in jobs if gone and one["enabled"] and one["repository_uuid"] == repository["uuid"]]


@pytest.mark.parametrize("named", [True, False])
def test_what_is_being_put_in_keeps_a_repository(database: str, tenant: Tenant, named: bool) -> None:
    repository, host = add_repository(tenant), new_host(tenant)
    body = a_job(host, repository_uuid=repository["uuid"] if named else None)
    with held(database, host) as others:
        made = others.ask(tenant, "POST", "/api/v1/backup-jobs", body, waiting=1)
        removed = others.ask(tenant, "DELETE", f"/api/v1/repositories/{repository['uuid']}", waiting=2)
        others.let_go()
        assert made.result().status == 201
        assert removed.result().status == 409, "a job uses it"
    assert tenant.api("GET", f"/api/v1/repositories/{repository['uuid']}").status == 200


@pytest.mark.parametrize("how", ["made", "moved there", "turned on"])
def test_nothing_is_put_into_what_is_being_removed(database: str, tenant: Tenant, how: str) -> None:
    repository, elsewhere = add_repository(tenant), add_repository(tenant, default=False)
    one, other = (new_host(tenant) for _ in range(2))
    add_job(tenant, one, repository_uuid=repository["uuid"])
    inside = add_job(tenant, other, repository_uuid=repository["uuid"], enabled=False)
    outside = add_job(tenant, other, repository_uuid=elsewhere["uuid"])
    ways: dict[str, tuple[Any, ...]] = {
        "made": ("POST", "/api/v1/backup-jobs", a_job(other, name="new", repository_uuid=repository["uuid"])),
        "moved there": ("PATCH", f"/api/v1/backup-jobs/{outside['uuid']}", {"repository_uuid": repository["uuid"]}),
        "turned on": ("PATCH", f"/api/v1/backup-jobs/{inside['uuid']}", {"enabled": True}),
    }
    with held(database, one) as others:
        path = f"/api/v1/repositories/{repository['uuid']}?force=true"
        removed = others.ask(tenant, "DELETE", path, waiting=1)
        put = others.ask(tenant, *ways[how], waiting=2)
        others.let_go()
        assert (removed.result().status, put.result().status) == (204, 422)
        assert "there is no such repository" in put.result().body["detail"]
    assert jobs_of_removed(tenant, repository) == []


def test_two_changes_of_a_job_both_hold(database: str, tenant: Tenant) -> None:
    add_repository(tenant)
    host = new_host(tenant)
    path = f"/api/v1/backup-jobs/{add_job(tenant, host)['uuid']}"
    with held(database, host) as others:
        first = others.ask(tenant, "PATCH", path, {"retention_count": 7}, waiting=1)
        second = others.ask(tenant, "PATCH", path, {"source_paths": ["/srv"]}, waiting=2)
        others.let_go()
        assert (first.result().status, second.result().status) == (200, 200)
    shown = tenant.api.ok("GET", path)
    assert (shown["retention_count"], shown["source_paths"]) == (7, ["/srv"])


def test_a_repository_that_is_being_removed_is_not_made_the_default(database: str, tenant: Tenant) -> None:
    first, second = add_repository(tenant), add_repository(tenant, default=False)
    host = new_host(tenant)
    add_job(tenant, host, repository_uuid=second["uuid"])
    path = f"/api/v1/repositories/{second['uuid']}"
    with held(database, host) as others:
        removed = others.ask(tenant, "DELETE", f"{path}?force=true", waiting=1)
        changed = others.ask(tenant, "PATCH", path, {"default": True}, waiting=2)
        others.let_go()
        assert (removed.result().status, changed.result().status) == (204, 404)
    assert tenant.api.ok("GET", f"/api/v1/repositories/{first['uuid']}")["default"]


def test_of_two_that_become_the_default_one_is_it(database: str, tenant: Tenant) -> None:
    host = new_host(tenant)
    body = {"url": "/srv/backup", "default": True}
    with held(database, host) as others:
        path = "/api/v1/repositories"
        first = others.ask(tenant, "POST", path, {**body, "name": "a", "maintenance_agent_uuid": host}, waiting=1)
        second = others.ask(tenant, "POST", path, {**body, "name": "b"}, waiting=2)
        others.let_go()
        assert (first.result().status, second.result().status) == (201, 201)
    assert [one["name"] for one in tenant.api.ok("GET", path)["items"] if one["default"]] == ["b"]
