"""Whom `lox login` trusts: what a person compared, and what was trusted before; and within which tenant it acts."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lox.remote.servers import Servers
from lox.remote.trust import fingerprint, parse_fingerprint
from model.errors import ConfigError, UsageError
from tests.control.servers import PASSWORD, RunningServer, Tenant, lox_server, make_tenant, running
from tests.lox.running import Shell

OTHER = "sha256:" + 64 * "0"
KNOWN = "sha256:" + "ab12" * 16


@pytest.mark.parametrize("text", [KNOWN, KNOWN.upper(), KNOWN[7:], ":".join(["ab", "12"] * 16), f" {KNOWN}\n"])
def test_fingerprints(text: str) -> None:
    assert parse_fingerprint(text) == KNOWN


@pytest.mark.parametrize("text", ["", "sha256:", KNOWN[:-1], KNOWN + "0", "md5:" + KNOWN[7:], KNOWN.replace("b", "g")])
def test_what_is_no_fingerprint(text: str) -> None:
    with pytest.raises(UsageError, match="not a fingerprint"):
        parse_fingerprint(text)


def test_two_certificates_have_no_fingerprint() -> None:
    with pytest.raises(ConfigError):
        fingerprint("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n" * 2)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with running(tmp_path_factory.mktemp("trusted") / "server") as server:
        yield server


@pytest.fixture(scope="module")
def tenant(server: RunningServer) -> Tenant:
    return make_tenant(server, "Alpha")


@pytest.fixture
def token(tenant: Tenant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LOX_CONFIG_DIR", str(tmp_path / "config"))
    (tmp_path / "token").write_text(f"{tenant.api.token}\n")
    return tmp_path / "token"


@pytest.fixture
def lox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Shell:
    return Shell(tmp_path / "none", monkeypatch, capfd)


@pytest.mark.slow
def test_a_server_is_trusted_by_its_fingerprint_and_from_then_on(
    server: RunningServer, token: Path, lox: Shell
) -> None:
    told = lox_server(server.data_dir, "check")
    shown = next(word for word in told.split() if word.startswith("sha256:"))
    assert shown == fingerprint(server.ca.read_text())
    refused = lox("login", server.url, "--token-file", token, "--fingerprint", OTHER).ok(14)
    assert "not the server that is meant" in refused.err and shown in refused.err
    assert Servers().all() == []
    lox("login", server.url, "--token-file", token, "--fingerprint", shown).ok()
    lox("agent", "list").ok()
    assert Servers().chosen(None).ca == server.ca.read_text()
    lox("login", server.url, "--token-file", token).ok()  # nobody is asked again
    wrong = lox("login", server.url, "--token-file", token, "--ca-file", server.ca, "--fingerprint", OTHER)
    assert "another fingerprint" in wrong.ok(2).err


@pytest.mark.slow
def test_another_server_in_its_place_gets_no_token(
    server: RunningServer, token: Path, lox: Shell, tmp_path: Path
) -> None:
    lox("login", server.url, "--token-file", token, "--fingerprint", fingerprint(server.ca.read_text())).ok()
    with running(tmp_path / "other") as other:
        known = Servers().chosen(None)
        Servers().add(type(known)(other.url, known.token, known.ca))
        assert "not trusted" in lox("login", other.url, "--token-file", token).ok(14).err
        assert "not trusted" in lox("agent", "list").ok(14).err


def asked(server: RunningServer, token: Path, said: bytes) -> tuple[int, str]:
    """`lox login` on a terminal, the token on standard input. Returns its exit code and what it printed."""
    ours, theirs = pty.openpty()
    line = [sys.executable, "-m", "lox", "login", server.url, "--token-file", "-"]
    code = (
        f"import fcntl, os, sys, termios; fcntl.ioctl({theirs}, termios.TIOCSCTTY, 0); os.execv(sys.executable, {line})"
    )
    with token.open("rb") as opened, os.fdopen(ours, "r+b", buffering=0) as terminal:
        process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=opened, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            start_new_session=True, pass_fds=[theirs],
        )  # fmt: skip
        shown = b""
        while b"or the fingerprint: " not in shown:
            shown += terminal.read(4096)
        terminal.write(said + b"\n")
        out, _ = process.communicate(timeout=60)
    os.close(theirs)
    return process.returncode, shown.decode() + out.decode()


@pytest.mark.slow
def test_a_person_is_asked_and_without_one_nothing_is_trusted(server: RunningServer, token: Path) -> None:
    shown = fingerprint(server.ca.read_text())
    line = [sys.executable, "-m", "lox", "login", server.url, "--token-file", str(token)]
    alone = subprocess.run(
        line, stdin=subprocess.DEVNULL, capture_output=True, text=True, start_new_session=True, check=False, timeout=60
    )
    assert alone.returncode == 14 and shown in alone.stderr and "--fingerprint" in alone.stderr
    for said in (b"no", b"", OTHER.encode()):
        code, told = asked(server, token, said)
        assert code == 14 and shown in told and "not trusted" in told
    assert Servers().all() == []
    code, told = asked(server, token, shown.encode())
    assert code == 0 and "logged in" in told
    Servers().remove(server.url)
    assert asked(server, token, b"yes")[0] == 0
    assert token.read_text().strip() == Servers().chosen(None).token, "the answer was not taken for the token"


@pytest.mark.slow
def test_who_stands_above_tenants_names_one(
    server: RunningServer, tenant: Tenant, token: Path, lox: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = make_tenant(server, "Beta")
    tenant.api.ok("POST", "/api/v1/agents", {"hostname": "of-alpha", "os": "linux"})
    other.api.ok("POST", "/api/v1/agents", {"hostname": "of-beta", "os": "linux"})
    (tmp_path / "password").write_text(f"{PASSWORD}\n")
    who: list[str | bytes | Path] = ["--email", "root@example.org", "--password-file", tmp_path / "password"]
    login = ["login", server.url, "--ca-file", server.ca, *who]
    lox(*login).ok()
    refused = lox("agent", "list").ok(13)
    assert "LOX_TENANT" in refused.err and "--tenant" in refused.err
    assert lox(*login, "--tenant", "Nobody").ok(1)
    assert lox(*login, "--tenant", OTHER[7:15] + "-0000-4000-8000-000000000000").ok(1)
    lox(*login, "--tenant", "Alpha").ok()
    assert [one["hostname"] for one in lox.json("agent", "list")] == ["of-alpha"]
    monkeypatch.setenv("LOX_TENANT", "Beta")
    assert [one["hostname"] for one in lox.json("agent", "list")] == ["of-beta"]
    monkeypatch.setenv("LOX_TENANT", str(tenant.uuid))
    assert [one["hostname"] for one in lox.json("agent", "list")] == ["of-alpha"]
    monkeypatch.delenv("LOX_TENANT")
    mine: list[str | bytes | Path] = ["login", server.url, "--token-file", token, "--ca-file", server.ca]
    assert "of one tenant" in lox(*mine, "--tenant", "Beta").ok(2).err
    assert json.loads(lox("--json", *mine, "--tenant", str(tenant.uuid)).ok().out)["tenant_uuid"] == str(tenant.uuid)
