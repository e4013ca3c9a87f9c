"""A real server and a real agent, over TLS: from registration to files that are back, with both killed on the way."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.agent.processes import AgentProcess, eventually
from tests.control.servers import Client, RunningServer, make_tenant, running

pytestmark = pytest.mark.slow
FINAL = ("success", "partial", "failed", "cancelled", "lost", "skipped")
JOB = {
    "name": "Daily Web Files", "job_type": "file", "backup_mode": "incremental",
    "exclude_patterns": ["*.log", "*.tmp", "node_modules/", ".git/"], "schedule_cron": "0 2 * * *",
    "retention_count": 30, "compression_enabled": True, "encryption_enabled": True,
}  # fmt: skip


@dataclass
class Site:
    """A server with a tenant, and a host that was registered there."""

    server: RunningServer
    api: Client
    host: AgentProcess
    agent: str

    def run(self, job: str) -> str:
        """Ask for a run; its id."""
        return str(self.api.ok("POST", f"/api/v1/backup-jobs/{job}/run", {})["uuid"])

    def ended(self, run: str, where: str = "runs") -> Any:
        """A run once it is over."""

        def look() -> Any:
            found = self.api.ok("GET", f"/api/v1/{where}/{run}")
            return found if found["status"] in FINAL else None

        return eventually(look)

    def add_job(self, **more: Any) -> str:
        """The job of the manual, for this host."""
        fields = {**JOB, "agent_uuid": self.agent, "source_paths": [str(self.host.data)], **more}
        return str(self.api.ok("POST", "/api/v1/backup-jobs", fields)["uuid"])


@pytest.fixture(params=["vault", "folder"])
def site(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Site]:
    (tmp_path / "host").mkdir()
    with running(tmp_path / "server") as server:
        api = make_tenant(server, "Alpha").api
        where = {"vault": True} if request.param == "vault" else {"url": str(tmp_path / "repository")}
        api.ok("POST", "/api/v1/repositories", {"name": "main", "default": True, **where})
        made = api.ok("POST", "/api/v1/agents", {"hostname": "web-1", "os": "linux"})
        host = AgentProcess(
            tmp_path / "host", api_url=server.url, agent_uuid=made["uuid"], ca_file=str(server.ca),
            registration_token=made["registration_token"], restore_paths=[str(tmp_path / "restore")],
            allow_restore_in_place=True,
        )  # fmt: skip
        host.start()
        found = Site(server, api, host, made["uuid"])
        try:
            eventually(lambda: api.ok("GET", f"/api/v1/agents/{made['uuid']}")["status"] == "online")
            yield found
        finally:
            host.end()


def test_from_registration_to_restore(site: Site, tmp_path: Path) -> None:
    data = site.host.data
    (data / "skipped.log").write_text("x")
    (data / "index.php").write_text("<?php")
    (data / "index.php").chmod(0o640)
    job = site.add_job()
    estimate = site.api.ok("POST", f"/api/v1/backup-jobs/{job}/estimate")
    assert estimate["files"] == 2
    run = site.ended(site.run(job))
    assert (run["status"], run["summary"]["files"], run["trigger"]) == ("success", 2, "api"), run
    (backup,) = site.api.ok("GET", "/api/v1/machine-backups")["items"]
    shown = site.api.ok("GET", f"/api/v1/machine-backups/{backup['uuid']}/files?path={data}")
    assert "index.php" in str(shown) and "skipped.log" not in str(shown)

    (data / "index.php").unlink()
    (data / "a.txt").write_text("broken")
    asked = {
        "restore_type": "file",
        "target_path": str(tmp_path / "restore"),
        "selected_files": [str(data / "index.php")],
    }
    restore = site.api.ok("POST", f"/api/v1/machine-backups/{backup['uuid']}/restore", asked)
    assert site.ended(restore["uuid"], "restores")["status"] == "success"
    restored = tmp_path / "restore" / str(data)[1:] / "index.php"
    assert (restored.read_text(), restored.stat().st_mode & 0o777) == ("<?php", 0o640)

    whole = {"restore_type": "full", "overwrite_existing": True, "preserve_permissions": True}
    restore = site.api.ok("POST", f"/api/v1/machine-backups/{backup['uuid']}/restore", whole)
    assert site.ended(restore["uuid"], "restores")["status"] == "success"
    assert (data / "a.txt").read_text() == "some content\n" and (data / "index.php").read_text() == "<?php"

    refused = {"restore_type": "full", "target_path": "/srv/elsewhere"}
    restore = site.api.ok("POST", f"/api/v1/machine-backups/{backup['uuid']}/restore", refused)
    ended = site.ended(restore["uuid"], "restores")
    assert (ended["status"], ended["error"]["what"]) == ("failed", "this host lets nobody restore there")


@pytest.mark.parametrize("site", ["folder"], indirect=True)
def test_a_job_without_deduplication_stores_its_data_each_time(site: Site, tmp_path: Path) -> None:
    """And once it is turned on again, it finds what was stored meanwhile."""
    (site.host.data / "big").write_bytes(os.urandom(8 << 20))
    job = site.add_job(backup_mode="full", deduplication_enabled=False)
    packs, held = tmp_path / "repository" / "packs", [0]
    for _ in range(2):
        run = site.ended(site.run(job))
        assert run["status"] == "success", run
        told = run["summary"]
        assert (told["deduplicated"], told["dedup_ratio"]) == (False, None)
        assert told["bytes_new"] == told["bytes"] > 8 << 20 and told["bytes_stored"] > 8 << 20
        held.append(sum(pack.stat().st_size for pack in packs.rglob("*") if pack.is_file()))
        assert held[-1] > held[-2] + (8 << 20)
    assert site.api.ok("GET", f"/api/v1/alerts?job={job}&kind=dedup_collapse")["items"] == []
    site.api.ok("PATCH", f"/api/v1/backup-jobs/{job}", {"deduplication_enabled": True})
    told = site.ended(site.run(job))["summary"]
    assert (told["deduplicated"], told["bytes_new"]) == (True, 0)


@pytest.mark.parametrize("site", ["folder"], indirect=True)
def test_both_are_killed_in_mid_run(site: Site) -> None:
    """The server first: the run goes on and is told later. Then the agent: the run has failed, and another follows."""
    (site.host.data / "big").write_bytes(os.urandom(12 << 20))
    job = site.add_job(bandwidth_limit_mbps=16)
    run = site.run(job)
    eventually(lambda: (site.api.ok("GET", f"/api/v1/runs/{run}")["progress"] or {}).get("bytes_done"))
    site.server.stop(signal.SIGKILL)
    _lox_of(site.host).wait(120)
    site.server.start()
    ended = site.ended(run)
    assert (ended["status"], ended["summary"]["files"]) == ("success", 2), ended

    (site.host.data / "big").write_bytes(os.urandom(12 << 20))
    run = site.run(job)
    eventually(lambda: (site.api.ok("GET", f"/api/v1/runs/{run}")["progress"] or {}).get("bytes_done"))
    site.host.kill()
    site.host.start()
    ended = site.ended(run)
    assert (ended["status"], ended["error"]["what"]) == ("failed", "the run was interrupted")

    def again() -> Any:
        runs = site.api.ok("GET", f"/api/v1/runs?job={job}")["items"]
        return [one for one in runs if one["trigger"] == "retry" and one["status"] == "success"]

    assert eventually(again)[0]["attempt"] == 2
    assert len(site.api.ok("GET", "/api/v1/machine-backups")["items"]) == 2


@pytest.mark.parametrize("site", ["vault"], indirect=True)
def test_a_credential_is_rotated(site: Site) -> None:
    """By its operator, by its host while it runs, and by its host after a SIGKILL."""
    credential = site.host.work / "credential"
    seen = [credential.read_text()]
    site.api.ok("POST", f"/api/v1/agents/{site.agent}/rotate-token")
    eventually(lambda: credential.read_text() not in seen)
    eventually(lambda: not site.api.ok("GET", f"/api/v1/agents/{site.agent}")["rotation_pending"])
    seen.append(credential.read_text())
    assert site.host.run("rotate-token").returncode == 0
    seen.append(credential.read_text())
    site.host.kill()
    done = site.host.run("rotate-token")
    assert done.returncode == 0, done.stderr
    seen.append(credential.read_text())
    assert len(set(seen)) == 4
    assert not site.api.ok("GET", f"/api/v1/agents/{site.agent}")["rotation_pending"]
    site.host.start()
    job = site.add_job(schedule_cron=None)
    assert site.ended(site.run(job))["status"] == "success"
    assert site.api.ok("GET", f"/api/v1/agents/{site.agent}")["status"] == "online"


def _lox_of(host: AgentProcess) -> psutil.Process:
    assert host.daemon is not None
    return next(one for one in psutil.Process(host.daemon.pid).children() if "backup" in one.cmdline())
