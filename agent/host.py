"""What all runs of an agent share."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from agent.bandwidth import Bandwidth
from agent.child import Child, Ended
from agent.config import AgentConfig
from agent.metrics import AgentMetrics
from agent.repositories import Place, Repositories
from agent.state import RunRow, State, StateUnwritable
from agent.telling import Teller
from agent.work_dir import WorkDir
from model.errors import LoxError
from model.exits import ExitCode
from model.wire.policy import PolicyRepository


@dataclass(slots=True)
class Host:
    """The services of one agent process. `sending` is set when there is something to send."""

    config: AgentConfig
    work: WorkDir
    state: State
    repositories: Repositories
    bandwidth: Bandwidth
    metrics: AgentMetrics
    sending: asyncio.Event = field(default_factory=asyncio.Event)

    @classmethod
    def of(cls, config: AgentConfig) -> Host:
        """Everything that lies in the working directory, which is made if it is missing. Raises ConfigError."""
        work = WorkDir(config.work_dir)
        work.prepare()
        metrics = AgentMetrics(config.metrics.textfile or work.metrics)
        bandwidth = Bandwidth(work.limits, config.bandwidth_limit_mbps)
        return cls(config, work, State(work.state), Repositories(work, config), bandwidth, metrics)

    def teller(self, row: RunRow) -> Teller:
        """Who tells of a run."""
        return Teller(self.state, row, self.sending.set)

    async def run_lox(self, arguments: Sequence[str], place: Place, teller: Teller) -> Ended:
        """`lox` as the process of a run: what it says is told. An agent that comes after a killed one finds it."""
        child = Child(arguments, self.environment(place))
        await child.start()
        row = teller.row
        row.pid, row.pid_began = child.pid, child.began
        try:
            self.state.put_run(row)
            return await child.finish(teller.event)
        except StateUnwritable:  # no agent after this one would find it
            await child.stop()
            raise
        finally:
            row.pid = row.pid_began = None

    def environment(self, place: Place) -> dict[str, str]:
        """What `lox` is told in its environment."""
        return self.repositories.environment(place) | {"LOX_METRICS_TEXTFILE": str(self.metrics.file)}


@dataclass(slots=True)
class Outcome:
    """How a run ended. `status` as the server calls it."""

    status: str
    code: int = 0
    summary: dict[str, object] = field(default_factory=dict)
    error: LoxError | None = None

    @property
    def good(self) -> bool:
        """Whether something was made."""
        return self.status in ("success", "partial")

    @classmethod
    def of_error(cls, error: LoxError) -> Outcome:
        """It failed for this reason."""
        return cls("failed", int(error.exit_code), error=error)

    @classmethod
    def cancelled(cls) -> Outcome:
        """Somebody did not want it any more."""
        return cls("cancelled", int(ExitCode.INTERRUPTED))


def place_of(repository: PolicyRepository) -> Place:
    """A repository of the policy as this host uses it. One in a folder of the host is maintained by it, too."""
    local = repository.url.startswith(("/", "file:"))
    sealed, maintained = repository.encryption == "required", repository.maintenance or local
    return Place(repository.uuid, repository.url, sealed, maintained, repository.maintenance and repository.scheduled)
