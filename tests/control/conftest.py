"""One server for all modules, with two tenants for each."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from tests.control.postgres import Cluster, programs, running_cluster
from tests.control.servers import RunningServer, Tenant, make_tenant, running

NUMBERS = count(1)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with running(tmp_path_factory.mktemp("server")) as found:
        yield found


@pytest.fixture(scope="module")
def tenant(server: RunningServer) -> Tenant:
    return make_tenant(server, f"Alpha{next(NUMBERS)}")


@pytest.fixture(scope="module")
def other_tenant(server: RunningServer) -> Tenant:
    return make_tenant(server, f"Beta{next(NUMBERS)}")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Cluster]:
    """A cluster for this session."""
    found = programs()
    if found is None:
        pytest.skip("PostgreSQL is not here: apt-get install postgresql")
    folder = Path(tempfile.mkdtemp(prefix="lox-pg-", dir="/tmp"))
    try:
        with running_cluster(folder, found) as cluster:
            yield cluster
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database, of each kind that the server can use."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'database.sqlite3'}"
    return str(request.getfixturevalue("postgres").database())
