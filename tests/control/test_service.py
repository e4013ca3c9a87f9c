"""The server as its operator meets it: TLS, health, problems, limits, repetitions, stopping, its commands."""

from __future__ import annotations

import json
import signal
import socket
import sqlite3
import ssl
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from control.api.limits import Limits
from control.api.problems import TooMany
from tests.control.servers import PASSWORD, Client, RunningServer, Tenant, lox_server, make_tenant, running
from tests.packaging import project


def handshake(server: RunningServer, version: ssl.TLSVersion) -> str | None:
    context = server.context()
    context.minimum_version = context.maximum_version = version
    with (
        socket.create_connection(("127.0.0.1", server.port), 5) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as secure,
    ):
        return secure.version()


def test_tls_1_3_only(server: RunningServer) -> None:
    assert handshake(server, ssl.TLSVersion.TLSv1_3) == "TLSv1.3"
    with pytest.raises((ssl.SSLError, ConnectionResetError)):
        handshake(server, ssl.TLSVersion.TLSv1_2)


def test_plain_http_gets_nothing(server: RunningServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port), 5) as plain:
        plain.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        try:
            assert b"200" not in plain.recv(100)
        except ConnectionResetError:
            pass


def test_keys_are_for_the_server_only(server: RunningServer) -> None:
    files = ["tls/ca.key", "tls/server.key", "server.sqlite3"]
    assert [(server.data_dir / file).stat().st_mode & 0o077 for file in files[:2]] == [0, 0]
    assert (server.data_dir / "tls").stat().st_mode & 0o077 == 0


def test_it_says_how_it_is(server: RunningServer) -> None:
    assert Client(server).ok("GET", "/healthz")["status"] == "ok"
    assert Client(server).ok("GET", "/readyz")["status"] == "ok"


@pytest.mark.parametrize(
    "method,path,body,status,said",
    [
        ("GET", "/nowhere", None, 404, "Not Found"),
        ("PUT", "/api/v1/users", None, 405, "Method Not Allowed"),
        ("POST", "/api/v1/users", {"emial": "a@b.c"}, 422, "did you mean email?"),
        ("POST", "/api/v1/users", {"email": "a@b", "role": "king", "password": "x" * 10}, 422, "role"),
        ("GET", "/api/v1/users?limit=0", None, 422, "limit"),
        ("GET", "/api/v1/users?limt=5", None, 422, "did you mean limit?"),
        ("DELETE", "/api/v1/users/not-a-uuid", None, 404, "there is no such user"),
        ("POST", "/api/v1/users", {"email": "a@b.c", "role": "viewer", "password": "short"}, 422, "password"),
    ],
)
def test_what_is_wrong_is_said(tenant: Tenant, method: str, path: str, body: object, status: int, said: str) -> None:
    answer = tenant.api(method, path, body)
    assert (answer.status, answer.body["status"]) == (status, status)
    assert answer.headers["Content-Type"].startswith("application/problem+json")
    assert said in json.dumps(answer.body), answer.body
    assert answer.body["instance"].endswith(answer.headers["Lox-Request"])


def test_a_large_body_is_refused_unread(tenant: Tenant) -> None:
    body = {"name": "x" * (2 << 20), "scopes": ["runs:read"]}
    assert tenant.api("POST", "/api/v1/api-tokens", body).status == 413


def test_a_repetition_is_harmless(tenant: Tenant) -> None:
    body = {"email": "twice@example.org", "role": "viewer", "password": PASSWORD}
    first, second = (tenant.api("POST", "/api/v1/users", body, Idempotency_Key="key 1") for _ in range(2))
    assert (first.status, second.status) == (201, 201)
    assert first.body == second.body and second.headers["Idempotent-Replay"] == "true"
    other = tenant.api("POST", "/api/v1/users", {**body, "role": "admin"}, Idempotency_Key="key 1")
    assert (other.status, other.body["type"]) == (422, "urn:lox:problem:idempotency-key-reused")


def test_a_repetition_does_not_show_a_secret_again(tenant: Tenant) -> None:
    body = {"name": "repeated", "scopes": ["runs:read"]}
    first, second = (tenant.api("POST", "/api/v1/api-tokens", body, Idempotency_Key="key 2") for _ in range(2))
    assert (first.status, second.status) == (201, 409)
    assert "token" not in second.body


def test_lists_come_in_parts(tenant: Tenant) -> None:
    for number in range(5):
        tenant.api.ok("POST", "/api/v1/api-tokens", {"name": f"part {number}", "scopes": ["runs:read"]})
    everything = [token["name"] for token in tenant.api.ok("GET", "/api/v1/api-tokens")["items"]]
    found, cursor = [], ""
    while True:
        part = tenant.api.ok("GET", f"/api/v1/api-tokens?limit=2{cursor}")
        found += [token["name"] for token in part["items"]]
        if part["next"] is None:
            break
        cursor = f"&cursor={part['next']}"
    assert found == everything and len(found) == len(set(found)) >= 6


@pytest.mark.slow
def test_who_guesses_is_slowed_down(tmp_path: Path) -> None:
    with running(tmp_path, LOX_SERVER_RATE_LIMITS="true") as server, ThreadPoolExecutor(20) as pool:
        body = {"email": "nobody@example.org", "password": "guess"}
        answers = list(pool.map(lambda _: Client(server)("POST", "/api/v1/auth/login", body), range(40)))
        assert {answer.status for answer in answers} == {401, 429}
        assert all(int(one.headers["Retry-After"]) >= 1 for one in answers if one.status == 429)


def test_limits_fill_again_and_stay_small() -> None:
    moment = 0.0
    limits = Limits(lambda: moment)
    for _ in range(10):
        limits.take("login", "a")
    with pytest.raises(TooMany):
        limits.take("login", "a")
    limits.take("login", "b")
    moment = 6.0
    limits.take("login", "a")
    with pytest.raises(TooMany):
        limits.take("login", "a")


def test_several_processes_do_not_let_more_guesses_through() -> None:
    limits = [Limits(lambda: 0.0, processes=4) for _ in range(4)]
    passed = 0
    for process in limits:
        for _ in range(100):
            try:
                process.take("login", "a")
                passed += 1
            except TooMany:
                break
        process.take("ordinary", "a")
    assert passed <= 10, "the burst of one process"


def test_it_stops_in_an_orderly_way(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        assert server.stop(signal.SIGTERM) == 0
    assert "stopping" in server.log.read_text()


def test_a_taken_port_is_one_clear_error(server: RunningServer, tmp_path: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError) as failed:
        lox_server(tmp_path, "run", "--listen", f"127.0.0.1:{server.port}")
    assert failed.value.returncode == 78
    assert "cannot listen" in failed.value.stderr and "Hint: set listen to another port" in failed.value.stderr
    assert "Traceback" not in failed.value.stderr


def test_settings_are_read_strictly(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("listen: ':8443'\nprocesess: 2\n")
    file.chmod(0o600)
    with pytest.raises(subprocess.CalledProcessError) as failed:
        lox_server(tmp_path, "--config", str(file), "check")
    assert failed.value.returncode == 2 or f"{file}:2:1" in failed.value.stderr


def test_the_document_of_the_api_is_as_committed(server: RunningServer) -> None:
    """Made anew by ``lox-server openapi > docs/openapi.json``."""
    committed = json.loads((project.ROOT / "docs" / "openapi.json").read_text())
    served = Client(server).ok("GET", "/api/v1/openapi.json")
    assert served["paths"] == committed["paths"] and served["components"] == committed["components"]


def test_the_audit_log_tells_what_was_done(tenant: Tenant) -> None:
    tenant.admin.ok("POST", "/api/v1/api-tokens", {"name": "audited", "scopes": ["runs:read"]})
    newest = tenant.admin.ok("GET", "/api/v1/audit?limit=1")["items"][0]
    assert (newest["action"], newest["actor_name"]) == ("token.create", tenant.email)
    assert newest["details"] == {"name": "audited", "scopes": ["runs:read"]} and newest["remote"] == "127.0.0.1"
    verdict = tenant.admin.ok("GET", "/api/v1/audit/verify")
    assert verdict["intact"] and verdict["rows"] == newest["sequence"]


@pytest.mark.slow
@pytest.mark.parametrize("harm", ["UPDATE audit SET actor_name = 'x'", "DELETE FROM audit"])
def test_a_changed_audit_log_is_found(tmp_path: Path, harm: str) -> None:
    with running(tmp_path) as server:
        tenant = make_tenant(server, "Alpha")
        tenant.admin.ok("POST", "/api/v1/api-tokens", {"name": "more", "scopes": ["runs:read"]})
        server.stop()
        with sqlite3.connect(tmp_path / "server.sqlite3") as database:
            database.execute(harm + " WHERE sequence = 2")
        database.close()
        with pytest.raises(subprocess.CalledProcessError) as failed:
            lox_server(tmp_path, "check")
        assert failed.value.returncode == 15 and "BROKEN at row 2" in failed.value.stdout
        server.start()
        assert tenant.admin.ok("GET", "/api/v1/audit/verify")["broken_at"] == 2


@pytest.mark.slow
def test_a_copy_of_the_database_brings_it_back(tmp_path: Path) -> None:
    with running(tmp_path / "server") as server:
        tenant = make_tenant(server, "Alpha")
        copy = tmp_path / "copy"
        lox_server(server.data_dir, "backup-db", str(copy))
        tenant.admin.ok("POST", "/api/v1/api-tokens", {"name": "after the copy", "scopes": ["runs:read"]})
        with pytest.raises(subprocess.CalledProcessError) as failed:
            lox_server(server.data_dir, "restore-db", "--yes", str(copy))
        assert "stop the server first" in failed.value.stderr
        server.stop()
        lox_server(server.data_dir, "restore-db", "--yes", str(copy))
        server.start()
        names = [token["name"] for token in tenant.admin.ok("GET", "/api/v1/api-tokens")["items"]]
        assert names == ["everything"]


def test_help_is_fast_and_names_every_command() -> None:
    from control.cli import COMMANDS

    text = lox_server(Path("/nowhere"), "--help")
    assert all(name in text for name in COMMANDS)
    found = {path.stem.replace("_", "-") for path in (project.ROOT / "control" / "commands").glob("*.py")}
    assert found - {"--init--"} == set(COMMANDS)


def test_the_first_administrator_may_have_a_token(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        told = lox_server(tmp_path, "--json", "create-admin", "first@example.org", "--token")
        made = json.loads(told)
        bearer = Client(server, made["token"])
        assert bearer.ok("GET", "/api/v1/auth/me")["kind"] == "token"
        first = bearer.ok("POST", "/api/v1/repositories", {"name": "one", "vault": True})
        second = bearer.ok("POST", "/api/v1/repositories", {"name": "two", "vault": True})
        assert (first["default"], second["default"]) == (True, False)
        assert bearer.ok("GET", "/api/v1/audit/verify")["intact"]


def test_a_reader_that_goes_away_is_no_error() -> None:
    command = [sys.executable, "-m", "control", "openapi"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1
