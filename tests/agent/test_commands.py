"""What the operator of a host types: status, doctor, backup, browse, restore, metrics; and what systemd hears."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.agent.conftest import AgentHost, eventually
from tests.agent.small_server import SmallServer


@pytest.mark.slow
def test_an_operator_at_work(host: AgentHost, server: SmallServer, tmp_path: Path) -> None:
    idle = host.run("status")
    assert idle.returncode == 1 and "not running, not registered" in idle.stdout
    assert host.run("backup", "web-files").returncode == 2
    host.add_job(schedule_cron="0 2 * * *")
    host.start()
    eventually(lambda: server.heartbeats and host.status()["jobs"])
    found = host.status()
    assert found["running"] and found["registered"] and found["jobs"][0]["next_run"].endswith("02:00:00Z")
    assert host.run("run").returncode == 2, "there is one already"

    unknown = host.run("backup", "web-fils")
    assert unknown.returncode == 1 and "there are: web-files" in unknown.stderr
    done = host.run("backup", "web-files")
    assert done.returncode == 0 and "success" in done.stdout, done.stderr
    run = eventually(lambda: [one for one in server.events if server.told(one, "finished")])[0]
    assert server.told(run, "started")[0].trigger == "agent"

    listed = host.run("browse", "web-files")
    assert "1 files, 13 bytes" in listed.stdout, listed.stderr
    assert f"{host.data}/a.txt" in host.run("browse", "web-files", "latest", str(host.data)).stdout
    back = host.run("restore", "web-files", "latest", "--target", str(tmp_path / "back"))
    assert back.returncode == 0, back.stderr
    assert (tmp_path / "back" / str(host.data)[1:] / "a.txt").read_text() == "some content\n"

    shown = host.run("metrics").stdout
    assert 'lox_agent_backup_total{job="web-files",status="success"} 1.0' in shown
    assert 'lox_agent_backup_files_count{job="web-files"} 1.0' in shown
    assert 'lox_agent_dedup_ratio{job="web-files"} 1.0' in shown

    checks = {line["name"]: line["state"] for line in map(json.loads, host.run("--json", "doctor").stdout.splitlines())}
    assert checks == dict.fromkeys(checks, "ok") and {"server", "clock", "registration", "lox", "job"} <= set(checks)
    os.rename(host.data, tmp_path / "moved")
    (host.folder / "ca.pem").write_bytes(b"nonsense")
    told = host.run("doctor")
    assert told.returncode == 1 and "cannot read the certificate" in told.stdout and "does not exist" in told.stdout


def test_systemd_hears_of_it(host: AgentHost, server: SmallServer, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(host.folder / "notify"))
        listener.settimeout(30)
        monkeypatch.setenv("NOTIFY_SOCKET", str(host.folder / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "1000000")
        host.start()
        heard = [listener.recv(4096).decode() for _ in range(3)]
        assert any(text.startswith("READY=1\nSTATUS=agent") for text in heard) and heard.count("WATCHDOG=1") == 2
        assert host.stop() == 0
        listener.setblocking(False)
        rest = []
        while True:
            try:
                rest.append(listener.recv(4096).decode())
            except BlockingIOError:
                break
        assert "STOPPING=1" in rest


@pytest.mark.slow
def test_why_a_backup_failed_and_that_nobody_is_there_to_make_it(host: AgentHost, server: SmallServer) -> None:
    host.add_job(pre_script="missing")
    host.start()
    eventually(lambda: host.status()["jobs"])
    done = host.run("--json", "backup", "web-files")
    told = json.loads(done.stdout)
    assert done.returncode == 78 and told["status"] == "failed" and "no such script" in told["why"]
    (host.hooks / "missing").write_text("#!/bin/sh\nsleep 300\n")
    (host.hooks / "missing").chmod(0o700)
    waiting = host.begin("backup", "web-files")
    eventually(lambda: any(run["status"] == "running" for run in host.status()["runs"]))
    host.kill()
    _, error = waiting.communicate(timeout=120)
    assert waiting.returncode == 1 and "the agent ended before the run did" in error


@pytest.mark.slow
def test_retention_goes_by_the_job(host: AgentHost, server: SmallServer) -> None:
    """Another job's snapshots, and those of the same job before its paths changed, are told apart by its tag."""
    job, other = host.add_job(retention_count=2), host.add_job(name="other", retention_count=1)
    host.start()
    first = host.ended(host.run_job(job)).summary.snapshot
    host.ended(host.run_job(other))
    host.ended(host.run_job(job))
    (host.folder / "more").mkdir()
    server.jobs[0]["source_paths"].append(str(host.folder / "more"))
    server.revision += 1
    server.command(kind="refresh_policy")
    assert host.ended(host.run_job(job)).summary.forgotten == [first]
    listed = host.run("browse", "web-files").stdout.splitlines()
    assert len(listed) == 2 and len(host.run("browse", "other").stdout.splitlines()) == 1


@pytest.mark.slow
def test_a_missing_path_is_told_and_the_rest_backed_up(host: AgentHost, server: SmallServer) -> None:
    job = host.add_job(source_paths=[str(host.data), "/nowhere/at/all"])
    nothing = host.add_job(name="nothing", source_paths=["/nowhere/at/all"])
    host.start()
    run = host.run_job(job)
    ended = host.ended(run)
    assert (ended.status, ended.exit_code, ended.summary.missing_paths) == ("partial", 3, ["/nowhere/at/all"])
    assert server.told(run, "problem")[0].path == "/nowhere/at/all"
    assert host.ended(host.run_job(nothing)).error.why == "none of its paths exists"


@pytest.mark.slow
def test_a_repository_without_encryption_needs_the_consent_of_the_host(host: AgentHost, server: SmallServer) -> None:
    job = host.add_job(encryption_enabled=False)
    server.repositories[0]["encryption"] = "none"
    host.start()
    assert host.ended(host.run_job(job)).error.what == "this host stores nothing unencrypted"
    host.stop()
    host.configure(allow_unencrypted=True)
    host.start()
    assert host.ended(host.run_job(job)).status == "success"
    demanding = host.add_job(name="secret", encryption_enabled=True)
    server.command(kind="refresh_policy")
    assert host.ended(host.run_job(demanding)).error.what == "the job would be stored unencrypted"


@pytest.mark.slow
def test_a_host_without_the_key_is_told_where_to_put_it(host: AgentHost, server: SmallServer) -> None:
    job = host.add_job()
    host.start()
    host.ended(host.run_job(job))
    (key,) = (host.work / "keys").iterdir()
    kept = key.read_bytes()
    assert key.stat().st_mode & 0o777 == 0o600 and kept.startswith(b"lox-key-file-1:")
    (kit,) = (host.work / "recovery-kits").iterdir()
    assert kit.stat().st_mode & 0o777 == 0o600 and "Recovery code" in kit.read_text()
    host.stop()
    key.unlink()
    host.start()
    ended = host.ended(host.run_job(job))
    assert ended.error.what == "this host has no key of the repository" and str(key) in ended.error.hint
    key.write_bytes(kept)
    key.chmod(0o600)
    assert host.ended(host.run_job(job)).status == "success"
    spoken = host.log + json.dumps([repr(events) for events in server.events.values()])
    assert kept.decode().strip() not in spoken
    code = next(line.strip() for line in kit.read_text().splitlines() if line.startswith("    ") and "-" in line)
    assert code not in spoken


@pytest.mark.slow
def test_a_first_use_that_was_cut_short_is_taken_up(host: AgentHost, server: SmallServer) -> None:
    """The agent was killed when the repository was there and its key had not been found good; or before."""
    job = host.add_job()
    place = server.repositories[0]
    (host.work / "keys").mkdir(parents=True, mode=0o700)
    host.work.chmod(0o700)
    new = host.work / "keys" / f"{place['uuid']}.key.new"
    for url in (str(host.folder / "other"), place["url"]):  # what another one's key opens not, ours does
        new.unlink(missing_ok=True)
        line = [sys.executable, "-m", "lox", "--repo", url, "init", "--key-file", str(new)]
        subprocess.run(line, check=True, capture_output=True)
        if url != place["url"]:
            host.start()
            assert host.ended(host.run_job(job)).status == "success"
            host.stop()
            shutil.rmtree(place["url"])
            shutil.rmtree(host.work / "cache")
            (host.work / "keys" / f"{place['uuid']}.key").unlink()
    host.start()
    assert host.ended(host.run_job(job)).status == "success"
    assert [path.suffix for path in (host.work / "keys").iterdir()] == [".key"]
