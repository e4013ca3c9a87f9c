"""A job that says how long a backup may take."""

from __future__ import annotations

import pytest

from tests.agent.conftest import AgentHost
from tests.agent.small_server import SmallServer
from tests.agent.test_daemon import hook


@pytest.mark.slow
def test_a_backup_that_takes_too_long_is_stopped_and_has_failed(host: AgentHost, server: SmallServer) -> None:
    hook(host, "before", "sleep 600")
    hook(host, "after", f'echo "$LOX_STATUS" > {host.folder}/after')
    first = host.add_job(name="first")
    job = host.add_job(pre_script="before", post_script="after", max_duration_seconds=5)
    host.start()
    assert host.ended(host.run_job(first)).status == "success", "the repository is made"
    end = host.ended(host.run_job(job))
    assert (end.status, end.error.what) == ("failed", "the backup was stopped")
    assert "longer than 5 s" in end.error.why
    assert (host.folder / "after").read_text() == "failed\n", "the script after it ran"
