"""Credentials of a whole fleet change while it works, and nobody notices. Larger: `tests.control.rotation_load`."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.control.rotation_load import drive
from tests.control.servers import make_tenant, running


@pytest.mark.slow
def test_all_credentials_change_under_load_and_no_agent_is_held_up(tmp_path: Path) -> None:
    with running(tmp_path, LOX_SERVER_LOG_LEVEL="info") as server:
        result = asyncio.run(drive(make_tenant(server, "Turning"), agents=12, rounds=2, beat=1.0))
    assert result.failures == [] and result.alerts == [] and result.not_online == set(), str(result)
    assert len(result.rounds) == 2 and result.credentials >= 24
