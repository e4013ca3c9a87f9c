"""Runs of this host: what the schedule and the server want begins, what a killed agent left is taken up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any
from uuid import NAMESPACE_OID, UUID, uuid5

from agent import child, hooks, lines
from agent.backup_run import BackupRun, context, tell_hook
from agent.bandwidth import clear
from agent.host import Host, place_of
from agent.logs import log
from agent.maintenance_run import MaintenanceRun
from agent.pings import ping
from agent.repositories import Place
from agent.restore_run import RestoreRun
from agent.schedule import Schedule, Skipped, Wanted
from agent.state import UNWRITABLE_SECONDS, RunRow, StateUnwritable
from agent.telling import Teller, stamp
from agent.timetable import Timetable
from model.errors import LoxError, NotFound, RunFailed
from model.wire.commands import MaintainCommand, RestoreCommand, RunJob
from model.wire.policy import Policy, PolicyJob

Asked = RunJob | RestoreCommand | MaintainCommand
LOOK_SECONDS = 30.0  # at most until the clock is looked at again: it may have been set


class Runner:
    """All runs of the agent. `serve` is its task; the other methods may be called from the same loop at any time."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.policy: Policy | None = None
        self.schedule = Schedule(host.config.max_concurrent_jobs, host.state.marks())
        self._runs: dict[UUID, BackupRun | RestoreRun | MaintenanceRun] = {}
        self._tasks: dict[UUID, asyncio.Task[None]] = {}
        self._changed = asyncio.Event()

    # ---- what is wanted

    def set_policy(self, policy: Policy) -> None:
        """Work by this policy from now on."""
        self.policy = policy
        tables, expected = list[Timetable](), list[tuple[str, float | None]]()
        for job in policy.jobs:
            try:
                table = lines.timetable(job)
            except LoxError as error:
                log().error("a job cannot be scheduled", job=job.name, why=str(error))
                continue
            expected.append((lines.label(job, job.uuid), None if table is None else table.interval(time.time())))
            tables += [table] if table is not None else []
        self.schedule.set_tables(tables, time.time())
        self.schedule.paused = policy.paused
        with suppress(StateUnwritable):  # they are written with the next change
            self.host.state.decided(self.schedule.marks)
        self.host.metrics.expect(expected)
        limits = [limit for limit in (self.host.config.bandwidth_limit_mbps, policy.bandwidth_limit_mbps) if limit]
        self.host.bandwidth.set_total(min(limits, default=None))
        for job in policy.jobs:
            self._limit(job.uuid, job.bandwidth_limit_mbps)
        self._changed.set()

    def set_limit(self, job: UUID | None, mbps: float | None) -> None:
        """A limit changes at once: of a job, or of the host, where its own configuration stays an upper bound."""
        if job is not None:
            self._limit(job, mbps)
            return
        own = self.host.config.bandwidth_limit_mbps
        self.host.bandwidth.set_total(min((one for one in (own, mbps) if one is not None), default=None))

    def _limit(self, job: UUID, mbps: float | None) -> None:
        for run, running in self._runs.items():
            if isinstance(running, BackupRun) and running.job.uuid == job:
                self.host.bandwidth.set_own(run, mbps)

    def row_of(self, asked: Asked) -> RunRow:
        """A run that the server asks for, to be remembered with the command."""
        if isinstance(asked, RunJob):
            body: dict[str, Any] = {"trigger": "api", "mode": asked.mode, "attempt": 1}
            return RunRow(asked.run_uuid, asked.job_uuid, "backup", "waiting", body)
        if isinstance(asked, MaintainCommand):
            body = {"trigger": "api", "attempt": 1, "maintain": asked.model_dump(mode="json")}
            return RunRow(asked.run_uuid, None, "maintenance", "waiting", body)
        body = {"trigger": "api", "attempt": 1, "restore": asked.model_dump(mode="json")}
        return RunRow(asked.restore_uuid, None, "restore", "waiting", body)

    def begin(self, row: RunRow) -> None:
        """A run that is remembered as waiting is to begin: a backup when its turn comes, others now."""
        if row.kind != "backup":
            self._start(row)
        else:
            assert row.job is not None, "of a backup"
            due = row.body.get("due")
            self.schedule.ask(Wanted(row.job, row.run, due))
            self._changed.set()

    def look(self) -> None:
        """Somebody on this host may have asked for runs: they are remembered as waiting."""
        known = {one.run for one in self.schedule.waiting}
        for row in self.host.state.runs("waiting"):
            if row.run not in known:
                self.begin(row)

    def knows(self, job: UUID) -> bool:
        """Whether the policy has this job."""
        return self.policy is not None and _found(self.policy, job) is not None

    def cancel(self, run: UUID) -> bool:
        """A run is not wanted any more, whether it runs or waits; False if there is none."""
        if (running := self._runs.get(run)) is not None:
            running.cancel()
            return True
        waiting = [row for row in self.host.state.runs("waiting") if row.run == run]
        self.schedule.forget(run)
        for row in waiting:
            self.host.teller(row).ended("cancelled", 130)
        return bool(waiting)

    @property
    def running(self) -> list[UUID]:
        """Runs that are on."""
        return list(self._tasks)

    # ---- what happens

    async def serve(self) -> None:
        """Begin what is due, until cancelled; then what runs is stopped cleanly, to be taken up by the next agent."""
        clear(self.host.work.limits)
        await self._recover()
        try:
            while True:
                self._changed.clear()
                wait = self._ticked()
                try:
                    async with asyncio.timeout(wait):
                        await self._changed.wait()
                except TimeoutError:
                    pass
        finally:
            tasks = list(self._tasks.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _ticked(self) -> float:
        """Begin what is due. Returns seconds until the next look."""
        try:
            self._tick(time.time())
        except StateUnwritable as error:
            log().warning("nothing can begin", why=str(error), hint=error.hint)
            return UNWRITABLE_SECONDS
        upcoming = min(self.schedule.next_times(time.time()).values(), default=float("inf"))
        return max(0.05, min(LOOK_SECONDS, upcoming - time.time()))

    def _tick(self, now: float) -> None:
        kept = self.schedule.kept()
        orders = self.schedule.tick(now)
        known = {row.run: row for row in self.host.state.runs("waiting")} if orders.begin else {}
        new = [_row(one) for one in (*orders.queued, *orders.begin) if one.run not in known]
        if new or self.schedule.marks != kept[0]:
            try:
                self.host.state.decided(self.schedule.marks, new)
            except StateUnwritable:
                self.schedule.undo(kept)
                raise
        known |= {row.run: row for row in new}
        for wanted in orders.begin:
            self._start(known[wanted.run])
        for skipped in orders.skipped:
            self._tell_skipped(skipped)

    def _start(self, row: RunRow) -> None:
        row.state, row.begun = "running", time.time()
        task = asyncio.create_task(self._run(row), name=f"run-{row.run}")
        self._tasks[row.run] = task

    async def _run(self, row: RunRow) -> None:
        try:
            await self._to_its_end(row, self.host.teller(row))
        finally:
            self._runs.pop(row.run, None)
            self._tasks.pop(row.run, None)
            if row.job is not None:
                self.schedule.ended(row.job)
            self._changed.set()

    async def _to_its_end(self, row: RunRow, teller: Teller) -> None:
        try:
            await self._written(row)
            self._runs[row.run] = run = self._made(row, teller)
            await run.run()
        except LoxError as error:  # it could not even begin
            teller.started()
            teller.ended("failed", int(error.exit_code), error=error)
        except Exception as error:
            log().exception("a run ended by a mistake of the agent", run=str(row.run))
            why = f"{type(error).__name__}: {error}"
            teller.ended("failed", 1, error=RunFailed("internal error of the agent", why=why))
        await _settled(teller)

    async def _written(self, row: RunRow) -> None:
        """That a run begins stands on disk; where that is full it waits."""
        while True:
            try:
                return self.host.state.put_run(row)
            except StateUnwritable:
                await asyncio.sleep(UNWRITABLE_SECONDS)

    def _made(self, row: RunRow, teller: Teller) -> BackupRun | RestoreRun | MaintenanceRun:
        if row.kind == "maintenance":
            return MaintenanceRun(self.host, teller, MaintainCommand.model_validate(row.body["maintain"]))
        if row.kind == "restore":
            asked = RestoreCommand.model_validate(row.body["restore"])
            return RestoreRun(self.host, teller, asked)
        job = self.job(row.job)
        return BackupRun(self.host, teller, job, self.place(job))

    def job(self, uuid: UUID | None) -> PolicyJob:
        """A job of the policy. Raises NotFound."""
        jobs = self.policy.jobs if self.policy is not None else []
        found = next((job for job in jobs if job.uuid == uuid), None)
        if found is None:
            raise NotFound("this agent has no such job", subject=str(uuid))
        return found

    def place(self, job: PolicyJob) -> Place:
        """Where the data of a job goes. Raises NotFound."""
        repositories = self.policy.repositories if self.policy is not None else []
        found = next((one for one in repositories if one.uuid == job.repository_uuid), None)
        if found is None:
            raise NotFound("the policy has no such repository", subject=str(job.repository_uuid))
        return place_of(found)

    def _tell_skipped(self, skipped: Skipped) -> None:
        body = {"trigger": "schedule", "scheduled_for": stamp(skipped.due), "attempt": 1}
        row = RunRow(_named(skipped.job, f"skipped {skipped.due}"), skipped.job, "backup", "ended", body)
        teller = self.host.teller(row)
        teller.started()
        teller.log(f"skipped: {_WHY[skipped.why]}", "warn")
        teller.ended("skipped", 0)

    # ---- after a SIGKILL

    async def _recover(self) -> None:
        """Runs that a killed agent left: backups that were not made have failed and are tried again, others go on."""
        for row in self.host.state.runs("running"):
            outlived = await asyncio.to_thread(child.end_orphan, row.pid, row.pid_began)
            log().warning("the agent was stopped while this ran", run=str(row.run), kind=row.kind, outlived=outlived)
            if row.kind != "backup":
                self.host.teller(row).log(f"the agent was stopped while this ran; the {row.kind} goes on", "warn")
                self._start(row)
            else:
                await self._give_up(row)
        self.look()

    async def _give_up(self, row: RunRow) -> None:
        teller = self.host.teller(row)
        made: tuple[str, int, dict[str, Any]] | None = row.body.get("made")
        status, code, summary = made or ("failed", 1, {})
        if row.body.get("post"):
            await self._late_hook(row, {"status": status, "snapshot": summary.get("snapshot") or "", "exit_code": code})
        if made:
            teller.log("the agent was stopped after the backup; retention goes on with the next run of the job", "warn")
            teller.ended(status, code, summary)
        else:
            self._tell_interrupted(row, teller)
        await _settled(teller)
        if self.policy is not None and (job := _found(self.policy, row.job)) is not None:
            failed = row.status == "failed"
            if failed:
                self.host.metrics.failed(lines.label(job, job.uuid))
            ping(job.ping_url, "fail" * failed, row.run, this_host=self.host.config.allow_ping_this_host)

    def _tell_interrupted(self, row: RunRow, teller: Teller) -> None:
        attempt = int(row.body.get("attempt", 1))
        again = attempt <= self.host.config.retry_count
        why = "the agent was killed, or stopped, while it ran"
        error = RunFailed("the run was interrupted", why=why, hint="another run follows" if again else "")
        body = {name: row.body[name] for name in ("mode", "scheduled_for") if row.body.get(name)}
        body |= {"trigger": "retry", "attempt": attempt + 1}
        after = RunRow(_named(row.run, "retry"), row.job, "backup", "waiting", body) if again else None
        teller.ended("failed", 1, error=error, after=after)

    async def _late_hook(self, row: RunRow, outcome: Mapping[str, object]) -> None:
        """The script after a backup that did not get to it."""
        name, seconds = row.body.pop("post")
        teller = self.host.teller(row)
        job = _found(self.policy, row.job) if self.policy is not None else None
        told: Mapping[str, object] = context(job, teller) if job is not None else {"run": str(row.run)}
        try:
            tell_hook(teller, await hooks.run_hook(self.host.config.hooks_dir, name, {**told, **outcome}, seconds))
        except (LoxError, OSError) as error:
            teller.log(f"script {name}: {error}", "error")


_WHY = {
    "missed": "its time passed while the agent did not run, and missed runs are not made up for",
    "running": "the run before it was not over",
    "waiting": "a run of this job waits already",
}


def _row(wanted: Wanted) -> RunRow:
    body = {"trigger": "missed" if wanted.late else "schedule", "attempt": 1, "due": wanted.due}
    if wanted.due is not None:
        body["scheduled_for"] = stamp(wanted.due)
    return RunRow(wanted.run, wanted.job, "backup", "waiting", body)


async def _settled(teller: Teller) -> None:
    """What is to be told of a run stands on disk; where that is full it waits."""
    teller.flush()
    while teller.owing:
        await asyncio.sleep(UNWRITABLE_SECONDS)
        teller.flush()


def _found(policy: Policy, job: UUID | None) -> PolicyJob | None:
    return next((one for one in policy.jobs if one.uuid == job), None)


def _named(uuid: UUID, what: str) -> UUID:
    """Always the same id for the same thing, so that it is there once, whatever is repeated."""
    return uuid5(NAMESPACE_OID, f"{uuid} {what}")
