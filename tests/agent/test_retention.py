"""What retention lets go is told to the server, however its run ends; and what a run says that was stopped."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from agent import lines, retention
from agent.backup_run import BackupRun
from agent.config import load
from agent.host import Host, place_of
from agent.maintenance_run import MaintenanceRun
from agent.retention import Retention
from agent.state import RunRow
from model.wire.commands import MaintainCommand
from model.wire.jobs import Keep, RetentionRule
from model.wire.policy import PolicyJob, PolicyRepository
from repository.index import ChunkIndex
from repository.pack import PackKind, pack_name
from repository.store import LocalStore
from tests.agent.conftest import AgentHost, eventually
from tests.agent.small_server import SmallServer
from tests.repository.samples import back_up, new_repository


class Desk:
    """An agent's parts, without its daemon, and a repository with three backups of each of two jobs."""

    def __init__(self, folder: Path) -> None:
        config = folder / "config.yaml"
        settings = f"api_url: https://localhost\nagent_uuid: {uuid4()}\nallow_unencrypted: true\nretry_count: 0\n"
        config.write_text(settings + f"work_dir: {folder}/work\nlog_dir: {folder}/log\nhooks_dir: {folder}/hooks\n")
        config.chmod(0o600)
        self.host = Host.of(load(config))
        self.store = LocalStore(str(folder / "repository"))
        self.repository = new_repository(False, self.store)
        self.jobs = [uuid4(), uuid4()]
        self.made = [[self._back_up(job, number) for number in range(3)] for job in self.jobs]
        self.policy = PolicyRepository.model_validate(
            {"uuid": str(uuid4()), "name": "r", "url": str(folder / "repository"), "vault": False,
             "encryption": "none", "maintenance": True}
        )  # fmt: skip
        self.data = folder / "data"
        self.data.mkdir()

    def _back_up(self, job: UUID, number: int) -> str:
        tree: dict[bytes, bytes | None] = {b"d": None, b"d/f": f"{job} {number}".encode()}
        return back_up(self.repository, tree, tags=(f"job:{job}",), time=number).id

    def maintenance(self, *rules: RetentionRule) -> MaintenanceRun:
        run = uuid4()
        asked = MaintainCommand(run_uuid=run, repository=self.policy, rules=list(rules))
        row = RunRow(run, None, "maintenance", "running", {})
        return MaintenanceRun(self.host, self.host.teller(row), asked)

    def rules(self, **second: Any) -> list[RetentionRule]:
        """One backup of each job stays."""
        first, other = (RetentionRule(job_uuid=job, retention_count=1) for job in self.jobs)
        return [first, other.model_copy(update=second)]

    def backup(self, **fields: Any) -> BackupRun:
        given = {"uuid": self.jobs[0], "name": "web", "job_type": "file", "source_paths": [str(self.data)],
                 "encryption_enabled": False, "repository_uuid": self.policy.uuid, "retention_count": 1}  # fmt: skip
        row = RunRow(uuid4(), self.jobs[0], "backup", "running", {})
        job = PolicyJob.model_validate(given | fields)
        return BackupRun(self.host, self.host.teller(row), job, place_of(self.policy))

    def told(self, run: MaintenanceRun | BackupRun) -> list[dict[str, Any]]:
        """What the server will be told of a run."""
        others: set[UUID] = set()
        while found := self.host.state.untold(10_000, others):
            if found[0] == run.teller.row.run:
                return [{"kind": kind} | body for _, kind, body in found[1]]
            others.add(found[0])
        return []

    def lose_content(self) -> None:
        """What prune cannot go on without."""
        index = ChunkIndex.load(self.repository, None)
        for pack, kind in zip(index.packs, index.pack_table["kind"].tolist(), strict=True):
            if kind == PackKind.DATA:
                self.store.delete(pack_name(pack))

    def end(self, run: MaintenanceRun | BackupRun) -> dict[str, Any]:
        return self.told(run)[-1]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def forgotten(end: dict[str, Any]) -> set[str]:
    return set(end["summary"].get("forgotten", []))


def test_a_later_rule_that_fails(desk: Desk) -> None:
    run = desk.maintenance(*desk.rules(keep=Keep(tags=["nobody-has-this"])))
    asyncio.run(run.run())
    end = desk.end(run)
    assert (end["status"], end["error"]["what"]) == ("failed", "retention failed")
    assert forgotten(end) == set(desk.made[0][:2])


@pytest.mark.slow
def test_a_prune_that_fails(desk: Desk) -> None:
    desk.lose_content()
    run = desk.maintenance(*desk.rules())
    asyncio.run(run.run())
    end = desk.end(run)
    assert (end["status"], end["error"]["what"]) == ("failed", "prune failed")
    assert forgotten(end) == {*desk.made[0][:2], *desk.made[1][:2]}


@pytest.mark.slow
def test_a_run_that_nobody_wants_any_more(desk: Desk) -> None:
    run = desk.maintenance(*desk.rules())

    async def cancelled() -> None:
        running = asyncio.create_task(run.run())
        while len(list(desk.store.list("snapshots/"))) == 6 and not running.done():
            await asyncio.sleep(0.005)
        run.cancel()
        await running

    asyncio.run(cancelled())
    end = desk.end(run)
    left = {name.removeprefix("snapshots/") for name, _ in desk.store.list("snapshots/")}
    assert end["status"] == "cancelled"
    assert forgotten(end) == {*desk.made[0], *desk.made[1]} - left and len(left) < 6


@pytest.mark.slow
def test_retention_that_takes_too_long_says_when_it_goes_on_and_does(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(retention, "FORGET_SECONDS", 0.01)
        desk.host.state.put_note(f"pruned/{desk.policy.uuid}", time.time())  # that is not what this is about
        run = desk.backup()
        asyncio.run(run.run())
    said = [one["text"] for one in desk.told(run) if one["kind"] == "log" and one["level"] == "error"]
    assert said == [
        f"retention took too long: job:{desk.jobs[0]}: it was stopped after 0 s; "
        "the next run of the job, or the next maintenance, lets the rest go"
    ]
    assert desk.end(run)["status"] == "success", "the backup was made"
    run = desk.backup()
    asyncio.run(run.run())
    assert forgotten(desk.end(run)) >= set(desk.made[0][:2])


@pytest.mark.slow
def test_a_prune_that_fails_after_a_backup_says_when_it_is_tried_again(desk: Desk) -> None:
    desk.lose_content()
    run = desk.backup()
    asyncio.run(run.run())
    (said,) = [one["text"] for one in desk.told(run) if one["kind"] == "log" and one["level"] == "error"]
    assert said.startswith("prune failed") and "the first run of a job after 24 hours tries again" in said
    assert forgotten(desk.end(run)) == set(desk.made[0][:2])


@pytest.mark.slow
def test_a_backup_was_made_also_if_retention_cannot_begin(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system starts no process of such a line, as it starts none while it has no memory for one."""
    monkeypatch.setattr(lines, "forget", lambda rule: ["forget", "x" * (1 << 18)])
    run = desk.backup()
    asyncio.run(run.run())
    (said,) = [one["text"] for one in desk.told(run) if one["kind"] == "log" and one["level"] == "error"]
    assert said.endswith("the next run of the job, or the next maintenance, lets the rest go")
    assert (desk.end(run)["status"], forgotten(desk.end(run))) == ("success", set())


@pytest.mark.slow
def test_each_of_two_runs_in_a_repository_tells_what_it_let_go(desk: Desk) -> None:
    """And what one did that was killed is told by the next, though another came to its end meanwhile."""
    rules, row = desk.rules(), RunRow(uuid4(), desk.jobs[1], "backup", "running", {})
    desk.host.state.put_run(row)
    other = Retention(desk.host, desk.host.teller(row), place_of(desk.policy))
    asyncio.run(other.apply(rules[1]))
    desk.host.state.put_note(f"pruned/{desk.policy.uuid}", time.time())  # that is not what this is about
    run = desk.backup()
    asyncio.run(run.run())
    assert forgotten(desk.end(run)) == set(desk.made[0][:2])
    row.state = "ended"  # as that of a run whose agent was killed
    desk.host.state.put_run(row)
    run = desk.backup()
    asyncio.run(run.run())
    assert forgotten(desk.end(run)) >= set(desk.made[1][:2])


@pytest.mark.slow
def test_an_agent_that_is_killed_in_the_middle(host: AgentHost, server: SmallServer) -> None:
    """The run goes on, and tells what went before the kill; also what lay in no event that the killed one sent."""
    job = host.add_job(retention_count=50)
    host.start()
    made = [host.ended(host.run_job(job)).summary.snapshot for _ in range(2)]
    snapshots = host.folder / "repository" / "snapshots"
    run, rule = uuid4(), {"job_uuid": str(job), "retention_count": 1}
    server.command(kind="maintain", run_uuid=str(run), repository=server.repositories[0], rules=[rule])
    eventually(lambda: len(list(snapshots.iterdir())) < 2)
    host.kill()
    host.start()
    assert host.ended(run).summary.forgotten == made[:1]
