"""What an operator types: `lox` asks a real server, whose agent backs up into the server's own vault."""

from __future__ import annotations

import json
import os
import signal
import tarfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lox.remote.servers import Servers
from tests.agent.processes import AgentProcess, eventually
from tests.control.servers import PASSWORD, Client, RunningServer, Tenant, make_tenant, running
from tests.lox.running import Shell

pytestmark = pytest.mark.slow


@dataclass
class Site:
    """A server, and a shell that is logged in to it."""

    server: RunningServer
    tenant: Tenant
    lox: Shell
    folder: Path

    def add_host(self, name: str) -> AgentProcess:
        """Registers a host as an operator does, and starts its agent."""
        (made,) = self.lox.json("agent", "add", name, "--tag", "web")
        assert made["registration_token"] in made["install_command"]
        (self.folder / name).mkdir()
        host = AgentProcess(
            self.folder / name, api_url=self.server.url, agent_uuid=made["uuid"], ca_file=str(self.server.ca),
            registration_token=made["registration_token"], restore_paths=[str(self.folder / "restore")],
            allow_restore_in_place=True,
        )  # fmt: skip
        host.start()
        eventually(lambda: self.lox.json("agent", "show", name)[0]["status"] == "online")
        return host


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Site]:
    monkeypatch.setenv("LOX_CONFIG_DIR", str(tmp_path / "config"))
    with running(tmp_path / "server") as server:
        tenant = make_tenant(server, "Alpha")
        lox = Shell(tmp_path / "none", monkeypatch, capfd)
        (tmp_path / "token").write_text(f"{tenant.api.token}\n")
        lox("login", server.url, "--token-file", tmp_path / "token", "--ca-file", server.ca).ok()
        lox("repository", "add", "main", "--vault").ok()
        yield Site(server, tenant, lox, tmp_path)


@pytest.fixture
def host(site: Site) -> Iterator[AgentProcess]:
    made = site.add_host("web-1")
    yield made
    made.end()


def test_from_login_to_files_that_are_back(site: Site, host: AgentProcess, tmp_path: Path) -> None:
    lox = site.lox
    assert lox.json("whoami")[0]["tenant_uuid"] == str(site.tenant.uuid)
    (host.data / "skipped.log").write_text("x")
    (host.data / "index.php").write_text("<?php")
    assert "not UTF-8" in lox("job", "create", "x", "--agent", "web-1", "--path", b"/\xff").ok(2).err
    lox("job", "create", "files", "--agent", "web-1", "--repository", "main", "--path", host.data, "--exclude", "*.log",
        "--schedule", "0 2 * * *", "--timezone", "Europe/Berlin", "--keep-daily", "14",
        "--encryption", "--no-deduplication").ok()  # fmt: skip
    (job,) = lox.json("job", "show", "files")
    assert job["keep"]["daily"] == 14 and job["encryption_enabled"] and job["exclude_patterns"] == ["*.log"]
    assert not job["deduplication_enabled"]
    lox("job", "edit", "files", "--schedule", "none", "--limit", "800").ok()
    (job,) = lox.json("job", "list")
    assert job["schedule_cron"] is None and job["bandwidth_limit_mbps"] == 800 and job["timezone"] == "Europe/Berlin"
    assert lox.json("job", "estimate", "files")[0]["files"] == 2
    lines = lox.json("job", "run", "files", "--wait")
    assert lines[-1]["type"] == "run_end" and lines[-1]["summary"]["files"] == 2
    assert lines[-1]["summary"]["deduplicated"] is False
    run = lines[-1]["uuid"]
    assert run in lox("run", "list", "--job", "files").ok().out
    assert lox.json("run", "show", run)[0]["status"] == "success"
    assert "success" in lox("run", "watch", run).ok().out
    lox("run", "log", run).ok()

    (backup,) = lox.json("restores", "backups", "--agent", "web-1")
    names = [line["path"] for line in lox.json("restores", "files", backup["uuid"][:13], str(host.data))]
    assert any(name.endswith("index.php") for name in names) and not any("skipped" in name for name in names)
    first, more = lox.json("restores", "files", backup["uuid"], str(host.data), "--limit", "1")
    assert first["type"] == "entry" and more == {"type": "more", "schema": 1, "limit": 1}
    target = tmp_path / "restore" / "some"
    lox("restores", "start", backup["uuid"], f"{host.data}/index.php", "--target", target, "--wait").ok()
    assert (target / str(host.data)[1:] / "index.php").read_text() == "<?php"
    assert not (target / str(host.data)[1:] / "a.txt").exists()
    page, archive = f"{host.data}/index.php", tmp_path / "some.tar"
    lox("restores", "download", backup["uuid"], page, host.data / "a.txt", "--output", archive).ok()
    with tarfile.open(archive) as opened:
        assert sorted(map(os.path.basename, opened.getnames())) == ["a.txt", "index.php"]
    assert "there is such a file" in lox("restores", "download", backup["uuid"], page, "-o", archive).ok(2).err
    assert lox("restores", "download", backup["uuid"], page, "--format", "raw", "-o", "-").ok().out == "<?php"
    assert "no such path" in lox("restores", "download", backup["uuid"], "/nope", "-o", tmp_path / "x").ok(13).err
    assert not list(tmp_path.glob("x*"))
    (host.data / "a.txt").write_text("overwritten by a mistake")
    lox("restores", "start", backup["uuid"], "--overwrite", "--wait").ok()
    assert (host.data / "a.txt").read_text() == "some content\n"
    assert len(lox.json("restores", "list")) == 2


def test_jobs_come_from_files_and_are_what_the_files_say(site: Site, tmp_path: Path) -> None:
    lox, file = site.lox, tmp_path / "job.yaml"
    lox("agent", "add", "web-2").ok()
    agent = lox.json("agent", "list", "--status", "registered")[0]["uuid"]
    text = f"agent_uuid: {agent}\nname: etc\njob_type: file\nsource_paths: [/etc/ssl]\nretention_count: 30\n"
    file.write_text(text)
    (made,) = lox.json("job", "apply", "-f", file)
    file.write_text(text.replace("30", "12") + 'schedule_cron: "0 3 * * 1"\n')
    (changed,) = lox.json("job", "apply", "-f", file)
    assert changed["uuid"] == made["uuid"] and changed["retention_count"] == 12
    times = lox.json("job", "next", "etc", "--count", "3")[0]["times"]
    assert len(times) == 3 and all("T03:00:00Z" in time for time in times)
    lox("job", "delete", "etc").ok()
    assert lox.json("job", "list") == []


def test_what_the_server_refuses_and_what_it_cannot_do_have_exit_codes(site: Site, tmp_path: Path) -> None:
    lox = site.lox
    refused = lox("--json", "job", "show", "00000000-0000-0000-0000-000000000000").ok(13)
    assert "no such" in json.loads(refused.err)["message"]
    lox("agent", "show", "nobody").ok(1)
    (agent,) = lox.json("agent", "add", "db-1")
    wrong = lox("job", "create", "x", "--agent", "db-1", "--path", "/srv", "--schedule", "61 * * * *").ok(13)
    assert "schedule_cron" in wrong.err
    assert (
        "not have" in lox("job", "create", "x", "--agent", "db-1", "--path", "/dev/sda", "--type", "image").ok(13).err
    )
    (tmp_path / "viewer").write_text(f"{site.tenant.token('agents:read').token}\n")
    lox("login", site.server.url, "--token-file", tmp_path / "viewer", "--ca-file", site.server.ca).ok()
    assert "agents:write" in lox("agent", "delete", agent["uuid"]).ok(13).err
    assert "agents:read" in str(lox.json("whoami")[0]["scopes"])
    (tmp_path / "viewer").write_text("lox_api_of_nobody\n")
    assert "lox login" in lox("login", site.server.url, "--token-file", tmp_path / "viewer", "--ca-file",
                              site.server.ca).ok(13).err  # fmt: skip
    (tmp_path / "password").write_text(f"{PASSWORD}\n")
    lox("login", site.server.url, "--email", "alpha@example.org", "--password-file", tmp_path / "password",
        "--ca-file", site.server.ca).ok()  # fmt: skip
    session = Servers().chosen(None).token
    assert lox.json("whoami")[0]["name"] == "alpha@example.org"
    lox("logout").ok()
    assert Client(site.server, session)("GET", "/api/v1/auth/me").status == 401
    (tmp_path / "password").write_text("guessed at once\n")
    lox("login", site.server.url, "--email", "alpha@example.org", "--password-file", tmp_path / "password",
        "--ca-file", site.server.ca).ok(13)  # fmt: skip
    lox("login", site.server.url, "--token-file", tmp_path / "token", "--ca-file", site.server.ca).ok()
    site.server.stop()
    assert "cannot be reached" in lox("agent", "list").ok(14).err
    lox("logout").ok()
    assert "lox login" in lox("agent", "list").ok(2).err


def test_a_new_credential_and_a_server_that_is_killed_in_the_middle_of_a_run(site: Site, host: AgentProcess) -> None:
    """Neither keeps a backup into the vault from its end, nor who waits for it from seeing that."""
    lox = site.lox
    for number in range(16):
        (host.data / f"file-{number}").write_bytes(os.urandom(1 << 20))
    lox("job", "create", "slow", "--agent", "web-1", "--path", host.data, "--limit", "16").ok()
    begun: Any = lox.json("job", "run", "slow")[0]
    assert lox.json("agent", "rotate-token", "web-1")[0]["rotation_pending"]
    eventually(lambda: not lox.json("agent", "show", "web-1")[0]["rotation_pending"])
    eventually(lambda: lox.json("run", "show", begun["uuid"])[0]["status"] == "running")

    def kill() -> None:
        time.sleep(1)
        site.server.stop(signal.SIGKILL)
        time.sleep(2)
        site.server.start()

    thread = threading.Thread(target=kill)
    thread.start()
    done = lox("run", "watch", begun["uuid"])
    thread.join()
    done.ok()
    (backup,) = lox.json("restores", "backups", "--job", "slow")
    assert backup["complete"] and backup["files"] == 17
    assert site.tenant.api.ok("GET", "/api/v1/alerts")["items"] == []


def test_repositories_of_the_server(site: Site) -> None:
    lox = site.lox
    (main,) = lox.json("repository", "list")
    assert (main["name"], main["vault"], main["default"]) == ("main", True, True)
    lox("repository", "add", "second", "--url", "s3://bucket/folder", "--default").ok()
    assert {one["name"]: one["default"] for one in lox.json("repository", "list")} == {"main": False, "second": True}
    lox("repository", "change", "main", "--quota", "5GiB", "--default").ok()
    (main,) = lox.json("repository", "show", "main")
    assert (main["quota_bytes"], main["default"], main["used_bytes"]) == (5 << 30, True, 0)
    lox("repository", "change", "main", "--quota", "none").ok()
    assert lox.json("repository", "show", "main")[0]["quota_bytes"] is None
    assert "give --url URL, or --vault" in lox("repository", "add", "third").ok(2).err
    assert "no such repository" in lox("repository", "show", "third").ok(1).err
    lox("repository", "delete", "second").ok()
    assert [one["name"] for one in lox.json("repository", "list")] == ["main"]
