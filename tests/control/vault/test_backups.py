"""`lox` with a repository in the vault: two agents of a tenant, maintenance, a full quota, a server that is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from tests.control.vault.serving import VaultServer, vault_server
from tests.lox.running import ROOT, Shell

AGENT = ("vault:get", "vault:put")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VaultServer]:
    with vault_server(tmp_path_factory.mktemp("server")) as server:
        yield server


class Host:
    """A machine with `lox`, a credential, and a state of its own."""

    def __init__(self, server: VaultServer, repository: UUID, token: Path, folder: Path, shell: Shell) -> None:
        folder.mkdir(exist_ok=True)
        self._shell, self._patch = shell, pytest.MonkeyPatch()
        self.environment = server.reach(repository, token) | {
            "LOX_PASSWORD": "of all agents of this tenant",
            "LOX_CACHE_DIR": str(folder / "cache"),
            "LOX_STATE_DIR": str(folder / "state"),
        }

    def __call__(self, *arguments: str | Path, code: int = 0) -> list[dict[str, Any]]:
        """The JSON lines of a command that ends with `code`; of one that failed, what it said."""
        with self._patch.context() as patch:
            for name, text in self.environment.items():
                patch.setenv(name, text)
            done = self._shell("--json", *arguments).ok(code)
        lines = done.out.splitlines() if code == 0 else done.err.splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def background(self, *arguments: str | Path) -> subprocess.Popen[str]:
        """The same in another process, not waited for."""
        command = [sys.executable, "-m", "lox", "--json", *map(str, arguments)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **self.environment}
        return subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd="/"
        )


def last(lines: list[dict[str, Any]]) -> dict[str, Any]:
    return lines[-1]


@pytest.mark.slow
def test_two_agents_share_a_repository_and_only_maintenance_takes_away(
    server: VaultServer, tmp_path: Path, lox: Shell
) -> None:
    repository = server.repository()
    first = Host(server, repository, server.token(AGENT), tmp_path / "first", lox)
    second = Host(server, repository, server.token(AGENT), tmp_path / "second", lox)
    maintenance = Host(server, repository, server.token(), tmp_path / "maintenance", lox)
    source = tmp_path / "source"
    source.mkdir()
    (source / "same").write_bytes(os.urandom(3 << 20))
    (source / "more").write_text("more")

    first("init")
    begun = last(first("backup", source))
    again = last(second("backup", "--host", "second", source))
    assert begun["bytes_stored"] > 3 << 20 > 100_000 > again["bytes_stored"], "the second found all of it there"
    (source / "same").write_bytes(os.urandom(1 << 20))
    first("backup", source)
    for host, snapshot in ((first, again["snapshot"]), (second, begun["snapshot"])):
        target = tmp_path / f"restored-{snapshot[:8]}"
        host("restore", snapshot, "--target", target)
        assert (target / str(source)[1:] / "more").read_text() == "more"
    maintenance("forget", "--keep-last", "1")
    assert last(second("prune", code=1))["exit_code"] == 1
    maintenance("prune", "--trash", "0d")
    maintenance("check", "--read-data")
    assert len([line for line in first("snapshots") if line["type"] == "snapshot"]) == 2


def test_a_quota_that_is_used_up_ends_the_run_and_the_repository_stays_good(
    server: VaultServer, tmp_path: Path, lox: Shell
) -> None:
    host = Host(server, server.repository(quota=4 << 20), server.token(AGENT), tmp_path / "host", lox)
    (tmp_path / "small").write_bytes(os.urandom(100_000))
    (tmp_path / "large").write_bytes(os.urandom(8 << 20))
    host("init")
    host("backup", tmp_path / "small")
    told = last(host("backup", tmp_path / "large", code=16))
    assert "quota" in told["message"] and "raise the quota" in told["hint"]
    host("check", "--read-data")
    assert len([line for line in host("snapshots") if line["type"] == "snapshot"]) == 1


@pytest.mark.slow
def test_a_server_that_is_killed_in_the_middle_is_waited_for(tmp_path: Path, lox: Shell) -> None:
    with vault_server(tmp_path / "server") as server:
        host = Host(server, server.repository(), server.token(AGENT), tmp_path / "host", lox)
        source = tmp_path / "source"
        source.mkdir()
        for number in range(24):
            (source / f"file-{number:02}").write_bytes(os.urandom(2 << 20))
        host("init")
        run = host.background("backup", "--limit-upload", "8MiB", "--set", "stages.encrypt.pack_size=4MiB", source)
        packs = server.data_dir / "vault" / str(server.tenant)
        for _ in range(2):
            count = len(list(packs.rglob("packs/*/*")))
            while len(list(packs.rglob("packs/*/*"))) < count + 2:
                assert run.poll() is None, run.communicate()
                time.sleep(0.05)
            server.stop(signal.SIGKILL)
            time.sleep(1.5)
            server.start()
        _, err = run.communicate(timeout=120)
        assert run.returncode == 0, err
        host("restore", "latest", "--target", tmp_path / "back", "--verify")
        for path in source.iterdir():
            assert (tmp_path / "back" / str(path)[1:]).read_bytes() == path.read_bytes()
        host("check", "--read-data")
