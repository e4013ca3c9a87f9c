"""Backups go that no rule keeps, then what only they needed; the server hears of each that went, however a run ends."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field

from agent import lines
from agent.child import Event, lox
from agent.host import Host
from agent.repositories import Place
from agent.state import StateUnwritable
from agent.telling import Teller
from model.errors import RunFailed
from model.wire.jobs import RetentionRule

FORGET_SECONDS = 3600.0  # for the snapshots of one job
LIST_SECONDS = 600.0
GONE_MAX = 10_000  # that the server is told of


@dataclass(slots=True)
class Retention:
    """Retention of `place` in one run.

    Of a retention that was cut short nobody knows how far it came: by its own run, if it was stopped, or by a later
    one, if the agent was killed, which finds the note that it left: of runs that did not tell yet, of which several may
    be at work in one repository. Then what lies in the trash counts as gone.
    """

    host: Host
    teller: Teller
    place: Place
    _gone: list[str] = field(default_factory=list, init=False)
    _begun: bool = field(default=False, init=False)
    _unsure: bool = field(default=False, init=False)
    _owed: set[str] = field(default_factory=set, init=False)  # runs for which this one tells, itself among them

    async def apply(self, rule: RetentionRule) -> None:
        """Let snapshots of a job go that its rules do not keep. Raises RunFailed."""
        self._begin()
        before, tag = len(self._gone), lines.job_tag(rule.job_uuid)
        sure, self._unsure = not self._unsure, True
        try:
            ended = await lox(lines.forget(rule), self.host.environment(self.place), FORGET_SECONDS, self._hear)
        except TimeoutError:
            why = f"it was stopped after {FORGET_SECONDS:.0f} s"
            raise RunFailed("retention took too long", subject=tag, why=why, hint=GOES_ON) from None
        self._unsure = not (sure and ended.good)
        if len(self._gone) > before:
            self.teller.log(f"retention of {tag}: {len(self._gone) - before} snapshots forgotten")
        if not ended.good:
            raise RunFailed("retention failed", subject=tag, why=ended.trouble, hint=GOES_ON)

    async def gone(self) -> list[str]:
        """The snapshots that went, `GONE_MAX` at most; to be asked for when nothing more is let go."""
        gone = dict.fromkeys(self._gone)
        if self._unsure:
            trashed = await self._listed(["undelete", "--list"], "trashed")
            live = await self._listed(["snapshots"], "snapshot")
            if trashed is None or live is None:
                return [*gone][:GONE_MAX]  # the note stays: a later run finds out
            there = {one["id"] for one in live}
            latest = sorted(trashed, key=lambda one: str(one["forgotten"]), reverse=True)
            gone |= dict.fromkeys(
                str(one["id"]) for one in latest if one["rule"] == "policy" and one["id"] not in there
            )
            self._unsure = False
        return [*gone][:GONE_MAX]

    def told(self) -> None:
        """The server will hear what `gone` gave: that stands on disk."""
        if self._begun and not self._unsure and not self.teller.owing:
            self._remember(self._noted() - self._owed)

    def _begin(self) -> None:
        if not self._begun:
            own, noted = str(self.teller.row.run), self._noted()
            at_work = {str(row.run) for row in self.host.state.runs("running")} - {own}
            self._owed = noted - at_work
            self._begun, self._unsure = True, bool(self._owed)
            self._owed.add(own)
            self._remember(noted | {own})

    def _hear(self, event: Event) -> None:
        if event["type"] == "snapshot" and event.get("action") in ("forgotten", "gone"):
            self._gone.append(str(event["id"]))

    async def _listed(self, arguments: list[str], kind: str) -> list[Event] | None:
        found = list[Event]()

        def hear(event: Event) -> None:
            if event["type"] == kind:
                found.append(event)

        try:
            ended = await lox(["--json", *arguments], self.host.environment(self.place), LIST_SECONDS, hear)
        except OSError:  # it took too long, or could not begin
            return None
        return found if ended.good else None

    @property
    def _note(self) -> str:
        return f"retention/{self.place.uuid}"

    def _noted(self) -> set[str]:
        return set(self.host.state.note(self._note) or ())

    def _remember(self, runs: set[str]) -> None:
        with suppress(StateUnwritable):  # the disk is full: what a kill would lose then is not worth to keep backups
            self.host.state.put_note(self._note, sorted(runs))


GOES_ON = "the next run of the job, or the next maintenance, lets the rest go"


async def pruned(host: Host, teller: Teller, place: Place) -> None:
    """Give back the room of what nothing needs any more. Raises LoxError."""
    ended = await host.run_lox(["--json", "prune"], place, teller)
    if not ended.good:
        raise RunFailed("prune failed", subject=str(place.uuid), why=ended.trouble)
    teller.log("pruned")
