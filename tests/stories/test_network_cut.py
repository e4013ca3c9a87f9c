"""The cable between a host and its server is pulled: the host goes on by its schedule, and tells of it later.

``LOX_CUT_SECONDS=600`` pulls it for ten minutes.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests import separate_hosts
from tests.agent.processes import AgentProcess, eventually
from tests.control.servers import Client, make_tenant, running

SECONDS = float(os.environ.get("LOX_CUT_SECONDS", "75"))
OFFLINE_SECONDS = 300

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not separate_hosts.possible(), reason="needs root and network namespaces"),
]


@dataclass(frozen=True)
class Cable:
    """A network of its own, and the wire to it."""

    space: str
    near: str
    server: str
    """The address of the near end."""

    def pull(self) -> None:
        """Nothing comes through any more; nobody is told."""
        _ip(f"link set {self.near} down")

    def plug(self) -> None:
        """Everything comes through again."""
        _ip(f"link set {self.near} up")


def _ip(command: str) -> None:
    subprocess.run(["ip", *command.split()], check=True)


def _free_addresses() -> tuple[str, str]:
    """Those of a network of two that is not here yet: a run that was killed leaves its own, and with it the way there."""
    taken = subprocess.run(["ip", "-4", "address"], check=True, capture_output=True, text=True).stdout
    network = next(number for number in range(256) if f" 10.213.{number}.1/" not in taken)
    return f"10.213.{network}.1", f"10.213.{network}.2"


@pytest.fixture
def cable() -> Iterator[Cable]:
    server, host = _free_addresses()
    made = Cable(f"lxc{os.getpid()}", f"lxn{os.getpid()}", server)
    _ip(f"netns add {made.space}")
    try:
        _ip(f"link add {made.near} type veth peer name far netns {made.space}")
        _ip(f"address add {server}/30 dev {made.near}")
        _ip(f"link set {made.near} up")
        for command in (f"address add {host}/30 dev far", "link set far up", "link set lo up"):
            _ip(f"-n {made.space} {command}")
        yield made
    finally:
        _ip(f"netns del {made.space}")


def test_the_cable_is_pulled(tmp_path: Path, cable: Cable) -> None:
    (tmp_path / "host").mkdir()
    with running(tmp_path / "server", address=cable.server) as server:
        api = make_tenant(server, "Alpha").api
        made = api.ok("POST", "/api/v1/agents", {"hostname": "web-1", "os": "linux"})
        host = AgentProcess(
            tmp_path / "host", api_url=server.url, agent_uuid=made["uuid"], ca_file=str(server.ca),
            registration_token=made["registration_token"], retry_count=3, retry_delay_seconds=5,
        )  # fmt: skip
        host.inside = ["ip", "netns", "exec", cable.space]
        host.start()
        try:
            _cut_and_mended(api, host, made["uuid"], cable)
        finally:
            host.end()


def _cut_and_mended(api: Client, host: AgentProcess, agent: str, cable: Cable) -> None:
    eventually(lambda: api.ok("GET", f"/api/v1/agents/{agent}")["status"] == "online")
    minutely = _job(api, agent, "every minute", [str(host.data)], {"url": str(host.folder / "near")}, "* * * * *")
    (host.folder / "much").mkdir()
    (host.folder / "much" / "noise").write_bytes(os.urandom(24 << 20))
    vault = _job(api, agent, "far", [str(host.folder / "much")], {"vault": True}, None, bandwidth_limit_mbps=16)
    run = api.ok("POST", f"/api/v1/backup-jobs/{vault}/run", {})["uuid"]
    eventually(lambda: (api.ok("GET", f"/api/v1/runs/{run}")["progress"] or {}).get("bytes_done"), 60)

    pulled = datetime.now(UTC)
    cable.pull()
    time.sleep(SECONDS)
    assert _status(api, agent) == ("offline" if SECONDS > OFFLINE_SECONDS + 30 else "online")
    plugged = datetime.now(UTC)
    cable.plug()

    eventually(lambda: _status(api, agent) == "online", 120)
    wanted = _minutes(pulled, plugged)
    told = eventually(lambda: _all_there(api, minutely, wanted), 120)
    assert all(one["status"] == "success" for one in told), told
    assert any(pulled < datetime.fromisoformat(one["finished_at"]) < plugged for one in told), "they ran meanwhile"

    def far_is_done() -> Any:
        runs = api.ok("GET", f"/api/v1/runs?job={vault}")["items"]
        return [one for one in runs if one["status"] == "success"]

    eventually(far_is_done, 240)
    if SECONDS > OFFLINE_SECONDS + 30:
        alerts = api.ok("GET", "/api/v1/alerts")["items"]
        assert "offline" in [alert["kind"] for alert in alerts if alert["agent_uuid"] == agent]
    print(f"cut for {SECONDS:.0f} s: {len(told)} scheduled runs went on and were told later")


def _job(
    api: Client, agent: str, name: str, paths: list[str], where: dict[str, Any], cron: str | None, **more: Any
) -> str:
    repository = api.ok("POST", "/api/v1/repositories", {"name": name, **where})["uuid"]
    body = {
        "agent_uuid": agent, "name": name, "job_type": "file", "source_paths": paths, "schedule_cron": cron,
        "encryption_enabled": True, "repository_uuid": repository, "retention_count": 100, **more,
    }  # fmt: skip
    return str(api.ok("POST", "/api/v1/backup-jobs", body)["uuid"])


def _status(api: Client, agent: str) -> str:
    return str(api.ok("GET", f"/api/v1/agents/{agent}")["status"])


def _minutes(begin: datetime, end: datetime) -> list[datetime]:
    """The whole minutes between two times, without the last seconds, in which a run may still be under way."""
    first = begin.replace(second=0, microsecond=0) + timedelta(minutes=1)
    count = int((end - timedelta(seconds=10) - first).total_seconds() // 60) + 1
    return [first + timedelta(minutes=number) for number in range(max(0, count))]


def _all_there(api: Client, job: str, wanted: list[datetime]) -> list[dict[str, Any]]:
    """The runs of the minutes `wanted`, once the server knows how all of them ended."""
    runs = api.ok("GET", f"/api/v1/runs?job={job}&limit=100")["items"]
    known = {datetime.fromisoformat(one["scheduled_for"]): one for one in runs if one["finished_at"]}
    return [known[minute] for minute in wanted] if set(wanted) <= set(known) else []
