"""Two hosts share a repository in the vault: one of them, which the operator named, keeps it tidy for both."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.agent.processes import AgentProcess, eventually
from tests.control.servers import make_tenant, running

pytestmark = pytest.mark.slow
FINAL = ("success", "partial", "failed", "cancelled", "lost", "skipped")


def test_the_maintenance_agent_lets_backups_of_all_hosts_go(tmp_path: Path) -> None:
    with running(tmp_path / "server") as server:
        api = make_tenant(server, "Alpha").api
        hosts: list[AgentProcess] = []

        def ended(run: str) -> Any:
            found = eventually(lambda: (one := api.ok("GET", f"/api/v1/runs/{run}"))["status"] in FINAL and one, 120)
            assert found["status"] == "success", (found["error"], [host.log[-2000:] for host in hosts])
            return found

        def backups(job: str) -> int:
            return len(api.ok("GET", f"/api/v1/machine-backups?job={job}")["items"])

        try:
            agents = [_host(tmp_path, f"web-{number}", server, api, hosts) for number in range(2)]
            body = {"name": "main", "vault": True, "maintenance_agent_uuid": agents[0], "maintenance_cron": "0 3 * * *"}
            repository = api.ok("POST", "/api/v1/repositories", body)
            assert repository["next_maintenance_at"]
            jobs = []
            for agent, host in zip(agents, hosts, strict=True):
                job = {"agent_uuid": agent, "name": agent, "job_type": "file", "source_paths": [str(host.data)],
                       "retention_count": 1}  # fmt: skip
                jobs.append(api.ok("POST", "/api/v1/backup-jobs", job)["uuid"])
            ended(api.ok("POST", f"/api/v1/backup-jobs/{jobs[0]}/run", {})["uuid"])
            shutil.copytree(hosts[0].work / "keys", hosts[1].work / "keys", dirs_exist_ok=True)
            for number in range(3):
                (hosts[1].data / "a.txt").write_text(f"content {number}")
                ended(api.ok("POST", f"/api/v1/backup-jobs/{jobs[1]}/run", {})["uuid"])
            assert [backups(job) for job in jobs] == [1, 3], "who may not delete lets nothing go"
            run = ended(api.ok("POST", f"/api/v1/repositories/{repository['uuid']}/maintain")["uuid"])
            assert (run["kind"], len(run["summary"]["forgotten"])) == ("maintenance", 2)
            assert [backups(job) for job in jobs] == [1, 1]
            log = " ".join(line["text"] for line in api.ok("GET", f"/api/v1/runs/{run['uuid']}/log")["items"])
            assert "2 snapshots forgotten" in log and "pruned" in log
        finally:
            for host in hosts:
                host.end()


def _host(folder: Path, name: str, server: Any, api: Any, hosts: list[AgentProcess]) -> str:
    made = api.ok("POST", "/api/v1/agents", {"hostname": name, "os": "linux"})
    (folder / name).mkdir()
    host = AgentProcess(
        folder / name, api_url=server.url, agent_uuid=made["uuid"], ca_file=str(server.ca),
        registration_token=made["registration_token"],
    )  # fmt: skip
    hosts.append(host)
    host.start()
    eventually(lambda: api.ok("GET", f"/api/v1/agents/{made['uuid']}")["status"] == "online", 60)
    return str(made["uuid"])
