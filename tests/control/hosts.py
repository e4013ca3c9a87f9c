"""Hosts as a server sees them: clients that enrolled, and speak the wire models."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from tests.control.servers import Answer, Client, RunningServer, Tenant

JOB = {
    "name": "Daily Web Files",
    "job_type": "file",
    "backup_mode": "incremental",
    "source_paths": ["/var/www", "/etc/nginx", "/etc/letsencrypt"],
    "exclude_patterns": ["*.log", "*.tmp", "node_modules/", ".git/"],
    "schedule_cron": "0 2 * * *",
    "retention_count": 30,
    "compression_enabled": True,
    "encryption_enabled": True,
}


def stamp() -> str:
    """The time, as a host says it."""
    return datetime.now(UTC).isoformat()


@dataclass
class Host:
    """One host: `agent` is what the API said of it, `credential` what it got for its token."""

    server: RunningServer
    agent: dict[str, Any]
    credential: str
    after: int = 0
    beats: int = 0
    sequences: dict[str, int] = field(default_factory=dict)

    @property
    def uuid(self) -> str:
        return str(self.agent["uuid"])

    @property
    def client(self) -> Client:
        return Client(self.server, self.credential)

    def beat(self, **said: Any) -> Answer:
        """Send a heartbeat."""
        self.beats += 1
        health = {"version": "1.2.3", **said.pop("health", {})}
        body = {"time": stamp(), "sequence": self.beats, "health": health, **said}
        return self.client("POST", "/api/v1/agent/heartbeat", body)

    def commands(self, wait: float = 0) -> list[dict[str, Any]]:
        """Take over what waits."""
        found = self.client.ok("GET", f"/api/v1/agent/commands?after={self.after}&wait={wait}")["commands"]
        if found:
            self.after = found[-1]["sequence"]
        return list(found)

    def command(self, kind: str, wait: float = 5) -> dict[str, Any]:
        """The next command of a kind; others are passed over."""
        while commands := self.commands(wait):
            for command in commands:
                if command["body"]["kind"] == kind:
                    return dict(command["body"])
        raise AssertionError(f"no {kind} came")

    def tell(self, run: str, *events: dict[str, Any]) -> Answer:
        """Report events of a run, numbered as they come."""
        numbered = []
        for event in events:
            self.sequences[run] = self.sequences.get(run, 0) + 1
            numbered.append({"sequence": self.sequences[run], "time": stamp(), **event})
        return self.client("POST", f"/api/v1/agent/runs/{run}/events", {"events": numbered})

    def policy(self) -> dict[str, Any]:
        """What it is to work by."""
        return dict(self.client.ok("GET", "/api/v1/agent/policy"))


def registration(made: dict[str, Any], **other: str) -> dict[str, str]:
    """The body of a registration."""
    body = {
        "agent_uuid": made["uuid"], "registration_token": made["registration_token"], "hostname": made["hostname"],
        "os": made["os"], "version": "1.2.3", "machine_id": "0123456789abcdef",
    }  # fmt: skip
    return body | other


def enrolled(tenant: Tenant, hostname: str = "web-1.example.com") -> Host:
    """A new agent that is online."""
    made = tenant.api.ok("POST", "/api/v1/agents", {"hostname": hostname, "os": "linux"})
    server = tenant.api.server
    host = Host(server, made, Client(server).ok("POST", "/api/v1/agent/register", registration(made))["credential"])
    assert host.beat().status == 200
    return host


def add_repository(tenant: Tenant, **other: Any) -> dict[str, Any]:
    """A repository, the tenant's default."""
    body = {"name": f"main {uuid4()}", "url": "/srv/backup", "default": True, **other}
    return dict(tenant.api.ok("POST", "/api/v1/repositories", body))


def add_job(tenant: Tenant, host: Host, **other: Any) -> dict[str, Any]:
    """The job of the product text."""
    return dict(tenant.api.ok("POST", "/api/v1/backup-jobs", {"agent_uuid": host.uuid, **JOB, **other}))


def back_up(host: Host, job: dict[str, Any], snapshot: str, **summary: Any) -> str:
    """A run of `job` that its own schedule began and that came to a snapshot. Returns its id."""
    run = str(uuid4())
    told = {"snapshot": snapshot, "files": 3, "bytes": 30, "bytes_new": 3, "bytes_stored": 2, **summary}
    answer = host.tell(
        run,
        {"event": "started", "kind": "backup", "job_uuid": job["uuid"]},
        {"event": "finished", "status": "success", "exit_code": 0, "summary": told},
    )
    assert answer.status == 200, answer.body
    return run


@contextmanager
def beside() -> Iterator[Any]:
    """``submit`` for work that goes on while the test does something else."""
    with ThreadPoolExecutor(4, "beside") as pool:
        yield pool.submit


def waits(future: Future[Any], seconds: float = 0.3) -> bool:
    """Whether `future` is not done after `seconds`."""
    threading.Event().wait(seconds)
    return not future.done()
