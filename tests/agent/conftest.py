"""An agent as a process of its own, a server for it, a folder to back up."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from tests.agent.processes import PATIENCE, AgentProcess, eventually
from tests.agent.small_server import TOKEN, SmallServer

__all__ = ["AgentHost", "eventually"]


class AgentHost(AgentProcess):
    """An agent of a small server."""

    def __init__(self, folder: Path, server: SmallServer) -> None:
        super().__init__(
            folder, api_url=server.url, agent_uuid=str(server.agent), registration_token=TOKEN, ca_file=str(server.ca)
        )
        self.server = server

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
    made.end()
