"""Maintenance of a repository, as the server asked for it: backups go that no job keeps, then what only they needed."""

from __future__ import annotations

from dataclasses import dataclass

from agent import lines
from agent.cancellable import CancellableRun
from agent.child import Event, lox
from agent.host import Host, Outcome, place_of
from agent.logs import log
from agent.repositories import Place
from agent.telling import Teller
from model.errors import RunFailed
from model.wire.commands import MaintainCommand
from model.wire.jobs import RetentionRule

FORGET_SECONDS = 3600.0  # for the snapshots of one job
FORGOTTEN_MAX = 10_000  # that the server is told of


async def forgotten(host: Host, teller: Teller, place: Place, rule: RetentionRule) -> list[str]:
    """Let snapshots of a job go that its rules do not keep: which. Raises RunFailed."""
    gone = list[str]()

    def hear(event: Event) -> None:
        if event["type"] == "decision" and event.get("action") == "forget":
            gone.append(str(event["id"]))

    try:
        ended = await lox(lines.forget(rule), host.environment(place), FORGET_SECONDS, hear)
    except TimeoutError:
        raise RunFailed("retention took too long", subject=lines.job_tag(rule.job_uuid)) from None
    if not ended.good:
        raise RunFailed("retention failed", subject=lines.job_tag(rule.job_uuid), why=ended.trouble)
    if gone:
        teller.log(f"retention of {lines.job_tag(rule.job_uuid)}: {len(gone)} snapshots forgotten")
    return gone[:FORGOTTEN_MAX]


async def pruned(host: Host, teller: Teller, place: Place) -> None:
    """Give back the room of what nothing needs any more. Raises LoxError."""
    ended = await host.run_lox(["--json", "prune"], place, teller)
    if not ended.good:
        raise RunFailed("prune failed", subject=str(place.uuid), why=ended.trouble)
    teller.log("pruned")


@dataclass(slots=True)
class MaintenanceRun(CancellableRun):
    """Maintenance as `asked`. If the agent is killed the next one begins it again: what went, went."""

    host: Host
    teller: Teller
    asked: MaintainCommand

    async def run(self) -> None:
        """From the first event to the last."""
        if not self.teller.row.body.get("begun"):
            self.teller.row.body["begun"] = True
            self.teller.started()
        outcome = await self._worked()
        self.teller.ended(outcome.status, outcome.code, outcome.summary, outcome.error)
        log().info("maintenance ended", run=str(self.teller.row.run), status=outcome.status)

    async def _work(self) -> Outcome:
        place, gone = place_of(self.asked.repository), list[str]()
        self.host.repositories.require(place)
        for rule in self.asked.rules:
            gone += await forgotten(self.host, self.teller, place, rule)
        await pruned(self.host, self.teller, place)
        return Outcome("success", summary={"forgotten": gone[:FORGOTTEN_MAX]})
