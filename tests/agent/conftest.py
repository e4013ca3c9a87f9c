"""An agent as a process of its own, a server for it, a folder to back up."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
import yaml

from tests.agent.small_server import TOKEN, SmallServer

PATIENCE = 30.0  # seconds


def eventually(condition: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    """What `condition` gives once that is true."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.05)
    return found


class AgentHost:
    """A host with an agent: its folders, its configuration, and the process of its daemon."""

    def __init__(self, folder: Path, server: SmallServer) -> None:
        self.folder, self.server = folder, server
        self.work, self.hooks, self.data = folder / "work", folder / "hooks.d", folder / "data"
        self.hooks.mkdir(mode=0o700)
        self.data.mkdir()
        (self.data / "a.txt").write_text("some content\n")
        self.config = folder / "config.yaml"
        self.settings: dict[str, Any] = {
            "api_url": server.url, "agent_uuid": str(server.agent), "registration_token": TOKEN,
            "work_dir": str(self.work), "ca_file": str(server.ca), "hooks_dir": str(self.hooks),
            "log_dir": str(folder / "log"), "metrics": {"listen": None}, "heartbeat_interval": 5,
            "retry_delay_seconds": 1, "retry_count": 1, "bandwidth_limit_mbps": None,
        }  # fmt: skip
        self.daemon: subprocess.Popen[bytes] | None = None

    def configure(self, **settings: Any) -> None:
        """Write the configuration, with these settings as well."""
        self.settings |= settings
        self.config.write_text(yaml.safe_dump(self.settings))
        self.config.chmod(0o600)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """One command of lox-agent."""
        line = [sys.executable, "-m", "agent", "--config", str(self.config), *arguments]
        return subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)

    def start(self) -> None:
        """Begin as the service does."""
        self.configure()
        with (self.folder / "stderr").open("ab") as log:
            line = [sys.executable, "-m", "agent", "--config", str(self.config), "run"]
            self.daemon = subprocess.Popen(line, stderr=log, start_new_session=True)

    def kill(self) -> None:
        """SIGKILL: the daemon only, as the kernel does when memory is short."""
        assert self.daemon is not None
        self.daemon.kill()
        self.daemon.wait()

    def stop(self) -> int:
        """As the service manager does. Returns the exit code."""
        assert self.daemon is not None
        self.daemon.send_signal(signal.SIGTERM)
        return self.daemon.wait(70)

    @property
    def log(self) -> str:
        """What the daemon has logged."""
        return (self.folder / "stderr").read_text()

    def status(self) -> dict[str, Any]:
        """`lox-agent status`."""
        found = json.loads(self.run("--json", "status").stdout)
        assert isinstance(found, dict)
        return found

    def add_job(self, **fields: Any) -> UUID:
        """A job, into a repository in a folder, which is made with the first."""
        if not self.server.repositories:
            self.server.repositories.append(
                {"uuid": str(uuid4()), "name": "default", "url": str(self.folder / "repository"), "vault": False,
                 "encryption": "required", "maintenance": True}
            )  # fmt: skip
        uuid = uuid4()
        job = {"uuid": str(uuid), "name": "web-files", "job_type": "file", "source_paths": [str(self.data)],
               "repository_uuid": self.server.repositories[0]["uuid"], "encryption_enabled": True}  # fmt: skip
        self.server.jobs.append(job | fields)
        self.server.revision += 1
        return uuid

    def run_job(self, job: UUID, **more: Any) -> UUID:
        """Have the server ask for a run."""
        run = uuid4()
        self.server.command(kind="run_job", job_uuid=str(job), run_uuid=str(run), **more)
        return run

    def ended(self, run: UUID, seconds: float = PATIENCE) -> Any:
        """How a run ended, once the server knows."""
        return eventually(lambda: self.server.told(run, "finished"), seconds)[0]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[SmallServer]:
    """A server that is there."""
    made = SmallServer(tmp_path, uuid4())
    made.start()
    yield made
    made.stop()


@pytest.fixture
def host(tmp_path: Path, server: SmallServer) -> Iterator[AgentHost]:
    """A host whose agent is not started yet."""
    made = AgentHost(tmp_path, server)
    made.configure()
    yield made
    if made.daemon is not None and made.daemon.poll() is None:
        os.killpg(made.daemon.pid, signal.SIGKILL)
        made.daemon.wait()
