"""Maintenance of a repository, as the server asked for it: backups go that no job keeps, then what only they needed."""

from __future__ import annotations

from dataclasses import dataclass, field

from agent.cancellable import CancellableRun
from agent.host import Host, Outcome, place_of
from agent.logs import log
from agent.retention import Retention, pruned
from agent.telling import Teller
from model.wire.commands import MaintainCommand


@dataclass(slots=True)
class MaintenanceRun(CancellableRun):
    """Maintenance as `asked`. If the agent is killed the next one begins it again: what went, went."""

    host: Host
    teller: Teller
    asked: MaintainCommand
    _retention: Retention = field(init=False)

    def __post_init__(self) -> None:
        self._retention = Retention(self.host, self.teller, place_of(self.asked.repository))

    async def run(self) -> None:
        """From the first event to the last."""
        if not self.teller.row.body.get("begun"):
            self.teller.row.body["begun"] = True
            self.teller.started()
        outcome = await self._worked()
        if gone := await self._retention.gone():  # also if it failed, or nobody wants it any more
            outcome.summary["forgotten"] = gone
        self.teller.ended(outcome.status, outcome.code, outcome.summary, outcome.error)
        self._retention.told()
        log().info("maintenance ended", run=str(self.teller.row.run), status=outcome.status)

    async def _work(self) -> Outcome:
        place = self._retention.place
        self.host.repositories.require(place)
        for rule in self.asked.rules:
            await self._retention.apply(rule)
        await pruned(self.host, self.teller, place)
        return Outcome("success")
