"""The database: migrations come to what the models say; both kinds behave alike, also under several processes."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import psutil
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, inspect, select, text
from sqlalchemy.ext.asyncio import AsyncEngine

from control.audit import record, verify
from control.auth.tables import TenantRow
from control.db.engine import make_engine, make_sessions
from control.db.everything import metadata
from control.db.migrate import forms, migrate
from model.errors import ConfigError
from tests.control.hosts import add_job, add_repository, enrolled
from tests.control.postgres import Cluster
from tests.control.servers import RunningServer, lox_server, make_tenant, running
from tests.control.test_isolation import (
    test_bodies_cannot_name_objects_of_another_tenant as bodies,
)  # fmt: skip
from tests.control.test_isolation import (
    test_lists_show_nothing_of_another_tenant as lists,
)
from tests.control.test_isolation import (
    test_what_belongs_to_another_tenant_is_not_there as foreign_paths,
)
from tests.control.world import make_world


async def _migrated(database: str) -> AsyncEngine:
    engine = make_engine(database)
    await migrate(engine)
    return engine


def test_migrations_make_what_the_models_say(database: str) -> None:
    """After a change of a table: ``python -m tests.control.make_migration "what it does"``."""

    def differences(connection: Connection) -> object:
        return compare_metadata(MigrationContext.configure(connection), metadata)

    async def found() -> tuple[object, bool]:
        engine = await _migrated(database)
        async with engine.connect() as connection:
            result = await connection.run_sync(differences)
        again = (await migrate(engine)).is_current
        await engine.dispose()
        return result, again

    assert asyncio.run(found()) == ([], True)


def test_a_migration_happens_as_a_whole_or_not_at_all(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is killed near its end leaves nothing behind."""
    from alembic.operations import Operations

    create = Operations.create_table
    made: list[str] = []

    def dying(self: Operations, name: str, *columns: object, **more: object) -> object:
        made.append(name)
        if len(made) == 8:
            raise KeyboardInterrupt
        return create(self, name, *columns, **more)  # type: ignore[arg-type]

    async def tables() -> list[str]:
        engine = make_engine(database)
        async with engine.connect() as connection:
            found = await connection.run_sync(lambda one: inspect(one).get_table_names())
        await engine.dispose()
        return found

    monkeypatch.setattr(Operations, "create_table", dying)
    with pytest.raises(KeyboardInterrupt):
        asyncio.run(_migrated(database))
    assert asyncio.run(tables()) == []


def test_a_database_of_a_newer_version_is_left_alone(database: str) -> None:
    async def tried() -> None:
        engine = await _migrated(database)
        async with engine.begin() as connection:
            await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        try:
            await forms(engine)
        finally:
            await engine.dispose()

    with pytest.raises(ConfigError, match="written by a newer version"):
        asyncio.run(tried())


def test_what_a_transaction_read_is_true_when_it_commits(database: str) -> None:
    """As many at once as there are connections and more: no update is lost, none fails, the chain of the log holds."""
    count = 60

    async def counted() -> tuple[str, bool, int]:
        engine = await _migrated(database)
        sessions = make_sessions(engine)
        async with sessions.begin() as db:
            db.add(TenantRow(name="0"))

        async def count_up() -> None:
            async with sessions.begin() as db:
                row = (await db.scalars(select(TenantRow).with_for_update())).one()
                await asyncio.sleep(0.001)
                row.name = str(int(row.name) + 1)
                await record(db, row.uuid, None, "count")

        await asyncio.gather(*(count_up() for _ in range(count)))
        async with sessions() as db:
            row = (await db.scalars(select(TenantRow))).one()
            found = await verify(db, row.uuid)
        await engine.dispose()
        return row.name, found.broken is None, found.rows

    assert asyncio.run(counted()) == (str(count), True, count)


def test_who_only_reads_cannot_change_anything(tmp_path: Path) -> None:
    async def tried() -> None:
        engine = await _migrated(f"sqlite:///{tmp_path / 'x'}")
        try:
            async with make_sessions(engine)() as db:
                db.add(TenantRow(name="by accident"))
                await db.commit()
        finally:
            await engine.dispose()

    with pytest.raises(RuntimeError, match=r"sessions\.begin"):
        asyncio.run(tried())


@pytest.fixture(scope="module")
def big_server(postgres: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Two processes on PostgreSQL."""
    folder = tmp_path_factory.mktemp("big")
    with running(folder, "--processes", "2", database=postgres.database()) as server:
        yield server


@pytest.mark.slow
def test_postgresql_and_two_processes_keep_tenants_apart(big_server: RunningServer) -> None:
    one, other = (make_world(make_tenant(big_server, name)) for name in ("One", "Other"))
    foreign_paths(big_server, one, other)
    lists(big_server, one, other)
    bodies(big_server, one, other)


@pytest.mark.slow
def test_a_repetition_at_another_process_is_harmless(big_server: RunningServer) -> None:
    """Ten times the same request at once, on connections of their own: done once, whichever process gets it."""
    tenant = make_tenant(big_server, "Repeats")
    body = {"hostname": "once.example.com", "os": "linux"}
    with ThreadPoolExecutor(10) as pool:
        calls = [pool.submit(tenant.api, "POST", "/api/v1/agents", body, Idempotency_Key="one") for _ in range(10)]
        statuses = sorted(call.result().status for call in calls)
    assert statuses == [201] + [409] * 9
    assert len(tenant.api.ok("GET", "/api/v1/agents")["items"]) == 1
    assert tenant.api.ok("GET", "/api/v1/audit/verify")["intact"]


@pytest.mark.slow
def test_what_a_script_says_is_taken_whatever_it_is(big_server: RunningServer) -> None:
    """PostgreSQL holds no NUL. An agent whose words are refused for it says them again and again, and nothing else."""
    tenant = make_tenant(big_server, "Nul")
    add_repository(tenant)
    host = enrolled(tenant)
    job, run = add_job(tenant, host), str(uuid4())
    trouble = dict.fromkeys(("what", "subject", "why", "hint"), "a\x00b")
    told = host.tell(
        run,
        {"event": "started", "kind": "backup", "job_uuid": job["uuid"]},
        {"event": "log", "level": "info", "text": "a\0b"},
        {"event": "problem", "path": "/a\0b", "text": "a\0b"},
        {"event": "finished", "status": "failed", "exit_code": 1, "summary": {}, "error": trouble},
    )
    assert told.status == 200, told.body
    (line,) = tenant.api.ok("GET", f"/api/v1/runs/{run}/log")["items"]
    assert line["text"] == "a\ufffdb"


@pytest.mark.slow
def test_a_process_that_died_is_replaced(big_server: RunningServer) -> None:
    assert big_server.process is not None
    supervisor = psutil.Process(big_server.process.pid)
    children = supervisor.children()
    assert len(children) == 2
    for child in children:
        child.send_signal(signal.SIGKILL)
    psutil.wait_procs(children, 10)
    end = time.monotonic() + 20
    while len(supervisor.children()) < 2:
        assert time.monotonic() < end, "they were not replaced"
        time.sleep(0.05)
    big_server.wait_ready()
    assert make_tenant(big_server, "After").api.ok("GET", "/api/v1/auth/me")


@pytest.mark.slow
def test_several_processes_stop_together(postgres: Cluster, tmp_path: Path) -> None:
    with running(tmp_path, "--processes", "2", database=postgres.database()) as server:
        assert server.process is not None
        children = psutil.Process(server.process.pid).children()
        assert server.stop() == 0
        assert psutil.wait_procs(children, 1)[1] == []
        with socket.create_server(("127.0.0.1", server.port)):
            arguments = ("run", "--processes", "2", "--listen", f"127.0.0.1:{server.port}")
            with pytest.raises(subprocess.CalledProcessError) as failed:
                lox_server(server.data_dir, *arguments, database=server.database)
        assert failed.value.returncode == 78 and "cannot listen" in failed.value.stderr


@pytest.mark.slow
def test_processes_end_when_their_supervisor_was_killed(postgres: Cluster, tmp_path: Path) -> None:
    with running(tmp_path, "--processes", "2", database=postgres.database()) as server:
        assert server.process is not None
        children = psutil.Process(server.process.pid).children()
        server.stop(signal.SIGKILL)
        assert psutil.wait_procs(children, 10)[1] == []
        server.start()
        server.stop()


@pytest.mark.slow
def test_a_copy_of_postgresql_brings_it_back(postgres: Cluster, tmp_path: Path) -> None:
    database = postgres.database()
    with running(tmp_path / "server", database=database) as server:
        tenant = make_tenant(server, "Copied")
        lox_server(server.data_dir, "backup-db", str(tmp_path / "copy"), database=database)
        tenant.admin.ok("POST", "/api/v1/api-tokens", {"name": "after the copy", "scopes": ["runs:read"]})
        server.stop()
        lox_server(server.data_dir, "restore-db", "--yes", str(tmp_path / "copy"), database=database)
        server.start()
        assert [one["name"] for one in tenant.admin.ok("GET", "/api/v1/api-tokens")["items"]] == ["everything"]


def test_several_processes_need_postgresql(tmp_path: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError) as failed:
        lox_server(tmp_path, "run", "--processes", "2")
    assert failed.value.returncode == 78 and "needs PostgreSQL" in failed.value.stderr


def test_a_database_that_is_away_is_one_clear_error(tmp_path: Path) -> None:
    url = "postgresql://lox:verysecret@127.0.0.1:1/lox"
    with pytest.raises(subprocess.CalledProcessError) as failed:
        lox_server(tmp_path, "check", database=url)
    assert failed.value.returncode == 78 and "cannot use the database" in failed.value.stderr
    assert "verysecret" not in failed.value.stderr and "Traceback" not in failed.value.stderr
