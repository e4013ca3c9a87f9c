"""One server for a module, with two tenants."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.control.servers import RunningServer, Tenant, make_tenant, running


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with running(tmp_path_factory.mktemp("server")) as found:
        yield found


@pytest.fixture(scope="module")
def tenant(server: RunningServer) -> Tenant:
    return make_tenant(server, "Alpha")


@pytest.fixture(scope="module")
def other_tenant(server: RunningServer) -> Tenant:
    return make_tenant(server, "Beta")
