"""One server for all modules, with two tenants for each."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from tests.agent.small_server import certificate
from tests.control.postgres import Cluster, programs, running_cluster
from tests.control.servers import RunningServer, Tenant, make_tenant, running

NUMBERS = count(1)


@pytest.fixture(scope="session")
def pem(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate that the server trusts, and its key: for a mail server."""
    return certificate(tmp_path_factory.mktemp("pem"))


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, pem: tuple[Path, Path]) -> Iterator[RunningServer]:
    """It may tell alerts to 127.0.0.1, where tests listen, and to no other address of this machine."""
    allowed = {"LOX_SERVER_ALERT_NETWORKS": "127.0.0.1/32", "SSL_CERT_FILE": str(pem[0])}
    with running(tmp_path_factory.mktemp("server"), **allowed) as found:
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
