"""A small fleet for a short while: nothing fails, no heartbeat is lost, memory stays."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.control.fleet_load import drive, missing
from tests.control.servers import make_tenant, running


@pytest.mark.slow
def test_a_hundred_agents(tmp_path: Path) -> None:
    with running(tmp_path / "server", LOX_SERVER_LOG_LEVEL="info") as server:
        tenant = make_tenant(server, "Load")
        fleet = asyncio.run(drive(tenant, agents=100, streams=10, seconds=20, beat=10, ramp=5))
        tally = fleet.tally
        assert tally.failures == []
        assert tally.beats_answered == tally.beats_sent >= 200
        assert asyncio.run(missing(tenant)) == []
        runs = tenant.api.ok("GET", "/api/v1/runs?status=running")["items"]
        assert len(runs) == 10 and min(run["progress"]["files_done"] for run in runs) > 3
        assert tally.memory[-1] - tally.memory[len(tally.memory) // 2] < 20 << 20
