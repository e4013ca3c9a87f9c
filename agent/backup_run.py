"""One run of a job: script before, `lox backup` with its repetitions, script after, retention; all of it told."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from agent import lines
from agent.cancellable import CancellableRun
from agent.child import Ended
from agent.hooks import HookResult, run_hook
from agent.host import Host, Outcome
from agent.logs import log
from agent.pings import ending, ping
from agent.repositories import Place, trouble_of
from agent.retention import GOES_ON, Retention, pruned
from agent.state import StateUnwritable
from agent.telling import Teller, summary_of_backup
from model.errors import ConfigError, LoxError, RunFailed
from model.exits import ExitCode
from model.wire.policy import PolicyJob

PRUNE_HOURS = 24
PRUNE_EVERY = PRUNE_HOURS * 3600.0  # seconds
HOOK_LINES = 200


@dataclass(slots=True)
class BackupRun(CancellableRun):
    """A run of `job` into `place`."""

    host: Host
    teller: Teller
    job: PolicyJob
    place: Place

    async def run(self) -> None:
        """From the first event to the last. If the task is cancelled, the row stays: the next agent takes it up."""
        self.teller.started()
        self._ping("start")
        outcome = await self._guarded()
        self._remember_made(outcome)
        outcome = await self._after(outcome)
        self._remember_made(outcome)
        retention = Retention(self.host, self.teller, self.place)
        if outcome.good and self.place.maintained:
            await self._retain(retention)
        if gone := await retention.gone():
            outcome.summary["forgotten"] = gone
        if self.teller.row.body.get("uncounted"):
            self.host.metrics.failed(lines.label(self.job, self.job.uuid), outcome.status)
        self.teller.ended(outcome.status, outcome.code, outcome.summary, outcome.error)
        retention.told()
        self._ping(ending(outcome.good, outcome.code))
        self._log(outcome)

    def _remember_made(self, outcome: Outcome) -> None:
        """There is a backup, whatever happens to the agent until it has told of it."""
        if outcome.good:
            self.teller.row.body["made"] = [outcome.status, outcome.code, outcome.summary]
            with suppress(StateUnwritable):  # the disk is full: then it counts as failed if the agent is killed now
                self.host.state.put_run(self.teller.row)

    def _ping(self, what: str) -> None:
        ping(self.job.ping_url, what, self.teller.row.run, this_host=self.host.config.allow_ping_this_host)

    def _log(self, outcome: Outcome) -> None:
        told = {"job": self.job.name, "run": str(self.teller.row.run), "status": outcome.status}
        if outcome.error is not None:
            log().error("backup ended", why=str(outcome.error), **told)
        else:
            log().info("backup ended", snapshot=outcome.summary.get("snapshot"), **told)

    async def _guarded(self) -> Outcome:
        self.teller.row.body["uncounted"] = True  # until lox runs, which counts itself
        return await self._worked(self.job.max_duration_seconds)

    async def _work(self) -> Outcome:
        lines.refuse_impossible(self.job, self.place.encrypted)
        kit = await self.host.repositories.prepare(self.place)
        if kit is not None:
            self.teller.log(f"the repository's key was made on this host; print its recovery kit: {kit}", "warn")
        paths, missing = self._paths()
        if self.job.pre_script is not None:
            self._remember_post()
            result = await self._hook(self.job.pre_script, self.job.pre_script_timeout_seconds, {})
            if result.trouble:
                raise RunFailed("the script before the backup failed", why=result.trouble)
        self._remember_post()
        ended = await self._attempts(paths)
        return self._outcome(ended, missing)

    def _paths(self) -> tuple[list[str], list[str]]:
        """Paths of the job that are there, and those that are not. Raises ConfigError if none is."""
        there = [path for path in self.job.source_paths if os.path.lexists(path)]
        missing = [path for path in self.job.source_paths if path not in there]
        for path in missing:
            self.teller.problem(path, "does not exist")
        if not there:
            raise ConfigError("nothing to back up", subject=self.job.name, why="none of its paths exists")
        return there, missing

    def _remember_post(self) -> None:
        """From here on the script after the backup is owed, even if the agent is killed."""
        if self.job.post_script is not None:
            self.teller.row.body["post"] = [self.job.post_script, self.job.post_script_timeout_seconds]
            self.host.state.put_run(self.teller.row)

    async def _attempts(self, paths: list[str]) -> Ended:
        config, row = self.host.config, self.teller.row
        limit = self.host.bandwidth.join(row.run, self.job.bandwidth_limit_mbps)
        line = lines.backup(self.job, paths, row.body.get("mode"), limit)
        try:
            for left in range(config.retry_count, -1, -1):
                ended = await self.host.run_lox(line, self.place, self.teller)
                row.body["uncounted"] = ended.code < 0 or ended.code == ExitCode.USAGE
                if not left or not worth_repeating(ended):
                    break
                delay = config.retry_delay_seconds
                self.teller.log(
                    f"failed: {ended.trouble}; the next of {left} more attempts begins in {delay} s", "warn"
                )
                self.teller.flush()
                await asyncio.sleep(delay)
        finally:
            self.host.bandwidth.leave(row.run)
        return ended

    def _outcome(self, ended: Ended, missing: list[str]) -> Outcome:
        if not ended.good:
            return Outcome("failed", ended.code, error=trouble_of(ended, "the backup failed", self.place))
        status = "partial" if missing or ended.code == ExitCode.PARTIAL else "success"
        return Outcome(status, max(ended.code, ExitCode.PARTIAL if missing else 0), summary_of_backup(ended, missing))

    async def _after(self, outcome: Outcome) -> Outcome:
        """The script after the backup, whatever came of that; if it fails, something is not as it should be."""
        if not self.teller.row.body.get("post"):
            return outcome
        assert self.job.post_script is not None, "that is why it is owed"
        told = {"status": outcome.status, "snapshot": outcome.summary.get("snapshot") or "", "exit_code": outcome.code}
        try:
            result = await self._hook(self.job.post_script, self.job.post_script_timeout_seconds, told)
            trouble = result.trouble
        except (LoxError, OSError) as error:
            trouble = str(error)
        self.teller.row.body.pop("post")
        if trouble and outcome.status == "success":
            outcome.status, outcome.code = "partial", int(ExitCode.PARTIAL)
        return outcome

    async def _hook(self, name: str, seconds: int, told: Mapping[str, object]) -> HookResult:
        result = await run_hook(self.host.config.hooks_dir, name, context(self.job, self.teller) | dict(told), seconds)
        tell_hook(self.teller, result)
        return result

    async def _retain(self, retention: Retention) -> None:
        """Forget what the job's rules do not keep, and prune once a day, where that is this agent's business.

        Where the server says when the repository is maintained, it is pruned then.
        """
        try:
            await retention.apply(lines.rule_of(self.job))
        except (LoxError, OSError) as error:
            self.teller.log(f"{error}; {getattr(error, 'hint', '') or GOES_ON}", "error")
            return
        name = f"pruned/{self.place.uuid}"
        if self.place.scheduled or time.time() - (self.host.state.note(name) or 0.0) < PRUNE_EVERY:
            return
        try:
            self.host.state.put_note(name, time.time())
            await pruned(self.host, self.teller, self.place)
        except StateUnwritable as error:
            self.teller.log(f"not pruned: {error}", "error")
        except (LoxError, OSError) as error:
            self.teller.log(f"{error}; the first run of a job after {PRUNE_HOURS} hours tries again", "error")


def worth_repeating(ended: Ended) -> bool:
    """Whether another attempt may do what this one did not: not if a setting, a key or a full store is the reason."""
    return ended.code < 0 or ended.code == ExitCode.FAILURE


def context(job: PolicyJob, teller: Teller) -> dict[str, object]:
    """What scripts are told."""
    return {"job": job.name, "job_uuid": str(job.uuid), "run": str(teller.row.run), "paths": list(job.source_paths)}


def tell_hook(teller: Teller, result: HookResult) -> None:
    """What a script said, line by line, and whether it failed."""
    for line in result.output.splitlines()[:HOOK_LINES]:
        teller.log(f"{result.name}: {line}")
    if result.trouble:
        teller.log(result.trouble, "error")
    teller.flush()
