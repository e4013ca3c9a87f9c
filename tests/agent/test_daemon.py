"""The agent as a whole: registered, asked for runs and restores, killed at bad moments, left alone by its server."""

from __future__ import annotations

import base64
import io
import json
import os
import tarfile
from typing import Any
from uuid import UUID, uuid4

import psutil
import pytest

from tests.agent.conftest import AgentHost, eventually
from tests.agent.small_server import SmallServer


def test_from_registration_to_restore(host: AgentHost, server: SmallServer) -> None:
    job = host.add_job()
    host.start()
    run = host.run_job(job)
    ended = host.ended(run)
    assert (ended.status, ended.exit_code, ended.summary.files) == ("success", 0, 1), host.log
    assert server.told(run, "started")[0].trigger == "api"
    assert host.work.joinpath("credential").stat().st_mode & 0o777 == 0o600


@pytest.mark.slow
def test_a_restore_goes_where_the_host_allows(host: AgentHost, server: SmallServer) -> None:
    job = host.add_job()
    host.start()
    snapshot = host.ended(host.run_job(job)).summary.snapshot
    inside, outside = host.work / "restore", host.folder / "elsewhere"
    asked = {"kind": "restore", "repository": server.repositories[0], "snapshot": snapshot, "restore_type": "file",
             "selected_files": [str(host.data / "a.txt")]}  # fmt: skip
    (host.data / "a.txt").write_text("changed since\n")
    refused = _restore(host, target_path=str(outside), **asked)
    assert (refused.status, refused.error.what) == ("failed", "this host lets nobody restore there"), refused
    refused = _restore(host, target_path=None, **asked)
    assert refused.error.what == "this host lets nobody restore in place"
    (host.work / "restore").mkdir(exist_ok=True)
    (host.work / "restore" / "link").symlink_to(outside)
    assert _restore(host, target_path=str(inside / "link" / "x"), **asked).status == "failed"
    assert _restore(host, target_path=str(inside), **asked).status == "success"
    restored = inside / str(host.data)[1:] / "a.txt"
    assert restored.read_text() == "some content\n"
    assert not outside.exists() and (host.data / "a.txt").read_text() == "changed since\n"
    host.stop()
    host.configure(allow_restore_in_place=True)
    host.start()
    assert _restore(host, target_path=None, overwrite_existing=False, **asked).status == "success"
    assert (host.data / "a.txt").read_text() == "changed since\n"
    assert _restore(host, target_path=None, overwrite_existing=True, **asked).status == "success"
    assert (host.data / "a.txt").read_text() == "some content\n"


def _restore(host: AgentHost, **asked: Any) -> Any:
    run = uuid4()
    host.server.command(restore_uuid=str(run), **asked)
    return host.ended(run)


@pytest.mark.slow
def test_killed_in_mid_run(host: AgentHost, server: SmallServer) -> None:
    """The run has failed, its process is gone, the script after it ran, and a second run makes up for it."""
    hook(host, "after", f'echo "$LOX_STATUS" >> {host.folder}/after')
    host.configure(bandwidth_limit_mbps=8)
    (host.data / "big").write_bytes(os.urandom(16 << 20))
    job = host.add_job(post_script="after")
    host.start()
    run = host.run_job(job)
    eventually(lambda: any(event.bytes_done for event in server.told(run, "progress")))
    child = _lox_of(host)
    host.kill()
    assert child.is_running(), "a killed agent cannot take its run with it"
    host.settings["bandwidth_limit_mbps"] = None
    host.start()
    ended = host.ended(run)
    assert (ended.status, ended.error.what) == ("failed", "the run was interrupted")
    assert not child.is_running()
    again = eventually(lambda: [one for one in server.events if one != run and server.told(one, "finished")])[0]
    assert server.told(again, "finished")[0].status == "success"
    started = server.told(again, "started")[0]
    assert (started.trigger, started.attempt, started.job_uuid) == ("retry", 2, job)
    assert (host.folder / "after").read_text().split() == ["failed", "success"]


@pytest.mark.slow
def test_killed_after_the_backup_was_made(host: AgentHost, server: SmallServer) -> None:
    """It was made, and that is what the server hears: nobody makes it again."""
    wait = f"[ -e {host.folder}/quick ] || sleep 60"
    hook(host, "after", f'echo "$LOX_STATUS $LOX_SNAPSHOT" >> {host.folder}/after; {wait}')
    job = host.add_job(post_script="after")
    host.start()
    run = host.run_job(job)
    eventually((host.folder / "after").exists)
    host.kill()
    (host.folder / "quick").touch()
    host.start()
    ended = host.ended(run)
    (snapshot,) = [path.name for path in (host.folder / "repository" / "snapshots").iterdir()]
    assert (ended.status, ended.exit_code, ended.summary.snapshot) == ("success", 0, snapshot)
    assert (host.folder / "after").read_text().split() == ["success", snapshot] * 2
    assert [one for one in server.events if one != run] == []


@pytest.mark.slow
def test_killed_while_the_server_is_away(host: AgentHost, server: SmallServer) -> None:
    """The schedule goes on without the server; all that happened is told when it is back, each thing once."""
    job = host.add_job(schedule_cron="* * * * *")
    host.start()
    eventually(lambda: any(beat.next_runs.get(job) for beat in server.heartbeats))
    server.stop()
    before = {str(run) for run in server.events}

    def done() -> Any:
        runs = [one for one in host.status()["runs"] if one["uuid"] not in before]
        return [UUID(one["uuid"]) for one in runs if one["status"] == "success"]

    run = eventually(done, 130)[0]
    host.kill()
    assert host.status()["untold_events"] >= 2 and run not in server.events
    host.start()
    server.start()
    eventually(lambda: server.told(run, "finished"))
    assert server.told(run, "started")[0].trigger == "schedule"
    assert server.told(run, "finished")[0].status == "success"
    assert len(server.told(run, "finished")) == 1
    eventually(lambda: host.status()["untold_events"] == 0)


@pytest.mark.slow
def test_a_server_that_comes_back_as_another_is_not_trusted_and_the_log_says_so(
    host: AgentHost, server: SmallServer
) -> None:
    host.start()
    eventually(lambda: server.heartbeats)
    server.stop()
    eventually(lambda: "no heartbeat" in host.log)
    (host.folder / "other").mkdir()
    other = SmallServer(host.folder / "other", server.agent)
    other.port = server.port
    other.start()
    eventually(lambda: "certificate is not trusted" in host.log)
    assert not other.heartbeats and not other.registrations
    other.stop()
    beats = len(server.heartbeats)
    server.start()
    eventually(lambda: len(server.heartbeats) > beats)


@pytest.mark.slow
def test_a_run_at_which_the_server_fails_keeps_no_other_from_being_told(host: AgentHost, server: SmallServer) -> None:
    job = host.add_job()
    host.start()
    run, after = host.run_job(job), host.run_job(job)
    server.fails_at.add(run)
    assert host.ended(after).status == "success"
    assert run not in server.events
    eventually(lambda: any(f"of run {run}" in str(beat.health.warnings) for beat in server.heartbeats))
    assert host.status()["untold_events"] > 0, "what the server could not take is kept for it"


@pytest.mark.slow
def test_an_agent_that_was_revoked_is_let_in_by_a_new_token(
    host: AgentHost, server: SmallServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.start()
    eventually(lambda: server.heartbeats)
    server.credentials, server.tokens = [f"lox_cred_{uuid4().hex}"], {"lox_agt_reissued0123456789"}
    (host.folder / "token").write_text("lox_agt_not_this_one_either\n")
    refused = host.run("register", "--token-file", str(host.folder / "token"))
    assert refused.returncode == 13, "the server does not take it, and nobody is told it did"
    monkeypatch.setenv("LOX_TOKEN", "lox_agt_reissued0123456789")
    done = host.run("register")
    assert done.returncode == 0 and "registered agent" in done.stdout, done.stderr
    asked = len(server.registrations)
    assert "already" in host.run("register").stdout, "an install command that is run again asks for nothing"
    beats = len(server.heartbeats)
    host.stop()
    host.start()  # with the old token in its configuration
    eventually(lambda: len(server.heartbeats) > beats)
    assert len(server.registrations) == asked


def test_killed_while_registering(host: AgentHost, server: SmallServer) -> None:
    """The answer is lost with the agent: the next one repeats the same request, and gets its credential."""
    server.drop_answers = 1
    host.start()
    eventually(lambda: server.registrations)
    host.kill()
    host.start()
    eventually(lambda: server.heartbeats)
    assert len({key for key, _ in server.registrations}) == 1 and len(server.registrations) >= 2


@pytest.mark.slow
def test_a_credential_is_replaced_whether_the_agent_runs_or_not(host: AgentHost, server: SmallServer) -> None:
    credential, first = host.work / "credential", server.credentials[0]
    refused = host.run("rotate-token")
    assert refused.returncode == 2 and "not registered" in refused.stderr
    host.start()
    eventually(lambda: server.heartbeats)
    done = host.run("--json", "rotate-token")
    assert done.returncode == 0 and json.loads(done.stdout)["type"] == "rotation", done.stderr
    assert [credential.read_text().strip()] == server.credentials != [first], "the old one is good for nothing"
    host.stop()
    second = server.credentials[0]
    done = host.run("rotate-token")
    assert done.returncode == 0, done.stderr
    assert [credential.read_text().strip()] == server.credentials != [second]
    assert credential.stat().st_mode & 0o777 == 0o600
    server.stop()
    assert host.run("rotate-token").returncode == 14
    assert [credential.read_text().strip()] == server.credentials
    server.start()
    server.credentials.append(f"lox_cred_{uuid4().hex}")  # as after a SIGKILL before it was written down: both are good
    host.start()
    eventually(lambda: len(server.credentials) == 1)
    assert credential.read_text().strip() == server.credentials[0]
    count = len(server.heartbeats)
    host.kill()
    host.start()
    eventually(lambda: len(server.heartbeats) > count)
    assert server.credentials[0] not in host.log


@pytest.mark.slow
def test_cancelled_run(host: AgentHost, server: SmallServer) -> None:
    hook(host, "before", f"touch {host.folder}/begun; sleep 600")
    hook(host, "after", f'echo "$LOX_STATUS" > {host.folder}/after')
    job = host.add_job(pre_script="before", post_script="after")
    host.start()
    run, waits = host.run_job(job), host.run_job(job)
    eventually((host.folder / "begun").exists)
    server.command(kind="cancel_run", run_uuid=str(waits))
    server.command(kind="cancel_run", run_uuid=str(run))
    assert host.ended(run).status == host.ended(waits).status == "cancelled"
    assert (host.folder / "after").read_text() == "cancelled\n"


@pytest.mark.slow
def test_scripts_around_a_run(host: AgentHost, server: SmallServer) -> None:
    hook(host, "fails", "echo no disk; exit 3")
    hook(host, "after", f"cat > {host.folder}/after")
    good, bad = host.add_job(post_script="after"), host.add_job(name="bad", pre_script="fails", post_script="after")
    unknown = host.add_job(name="unknown", pre_script="missing")
    host.start()
    runs = [host.run_job(job) for job in (bad, unknown)]
    first, second = (host.ended(run) for run in runs)
    assert (first.status, first.error.why) == ("failed", "script fails failed: exit status 3")
    assert "fails: no disk" in [line.text for line in server.told(runs[0], "log")]
    assert json.loads((host.folder / "after").read_text())["status"] == "failed"
    assert second.error.what == "this host has no such script"
    assert host.ended(host.run_job(good)).status == "success"
    assert json.loads((host.folder / "after").read_text())["job"] == "web-files"


@pytest.mark.slow
def test_questions_about_a_snapshot(host: AgentHost, server: SmallServer) -> None:
    odd = os.fsencode(host.data) + b"/\xff.txt"
    with open(odd, "wb") as file:
        file.write(b"odd")
    for folder in ("[ab]*", "a"):
        (host.data / folder).mkdir()
        (host.data / folder / "x.ini").write_text(folder)
    job = host.add_job()
    host.start()
    snapshot = host.ended(host.run_job(job)).summary.snapshot
    repository = server.repositories[0]
    about = {"repository": repository, "snapshot": snapshot}

    kind, data = _asked(server, "browse", path=str(host.data), **about)
    entries = [json.loads(line) for line in data.splitlines()]
    assert kind == "application/x-ndjson"
    assert f"{host.data}/a.txt" in [entry["path"] for entry in entries]
    assert odd in [base64.b64decode(entry.get("path_b64", "")) for entry in entries]
    _, data = _asked(server, "browse", path=f"{host.data}/[ab]*", pattern="*.ini", **about)
    assert [json.loads(line)["path"] for line in data.splitlines()] == [f"{host.data}/[ab]*/x.ini"]
    _, data = _asked(server, "browse", pattern="*.txt", limit=1, **about)
    assert len(data.splitlines()) == 1
    assert _asked(server, "download", paths=[f"{host.data}/a.txt"], format="raw", **about)[1] == b"some content\n"
    _, data = _asked(server, "download", paths=[str(host.data)], format="tar", **about)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        assert len([member for member in archive if member.isfile()]) == 4
    kind, data = _asked(server, "download", paths=["/nowhere"], format="raw", **about)
    assert kind == "application/problem+json" and b"no such path" in data
    _, data = _asked(server, "estimate", job=server.jobs[0], repository=repository)
    assert json.loads(data)["files"] == 4


def _asked(server: SmallServer, kind: str, **fields: Any) -> tuple[str, bytes]:
    exchange = uuid4()
    server.command(kind=kind, exchange_uuid=str(exchange), **fields)
    found = eventually(lambda: server.exchanges.get(exchange))
    assert isinstance(found, tuple)
    return found


def _lox_of(host: AgentHost) -> psutil.Process:
    assert host.daemon is not None
    found = [one for one in psutil.Process(host.daemon.pid).children() if "backup" in one.cmdline()]
    return found[0]


def hook(host: AgentHost, name: str, text: str) -> None:
    """A script of the host."""
    path = host.hooks / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o700)
