"""What the operator puts around the server: the unit, certificates, the installer's listener, Prometheus."""

from __future__ import annotations

import re
import shutil
import socket
import ssl
import subprocess
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509

from control import tls
from control.db.base import now
from control.settings import ServerSettings
from pipelines.settings_file import load_settings
from tests.control.hosts import add_job, add_repository, back_up, enrolled
from tests.control.servers import Client, RunningServer, Tenant, running
from tests.packaging.project import ROOT
from tests.ports import free_port

UNIT = ROOT / "configs" / "systemd" / "lox-server.service"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="apt-get install systemd")
def test_systemd_understands_the_unit_and_finds_it_hardened(tmp_path: Path) -> None:
    copy = tmp_path / UNIT.name
    text = (
        UNIT.read_text()
        .replace("/opt/lox-server/bin/lox-server", "/bin/true")
        .replace("=lox-server\nGroup=lox-server\n", "=daemon\nGroup=daemon\n")
    )
    copy.write_text(text)
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", copy], capture_output=True, text=True, check=False)
    assert (done.returncode, [line for line in done.stderr.splitlines() if UNIT.name in line]) == (0, [])
    line = ["systemd-analyze", "security", "--offline=true", str(copy)]
    told = subprocess.run(line, capture_output=True, text=True, check=False).stdout
    found = re.search(r"exposure level for .*: ([0-9.]+)", told)
    assert found is not None and float(found[1]) <= 2.0, told[-2000:]


def test_the_example_of_settings_says_the_defaults(tmp_path: Path) -> None:
    """Every setting is in it, and what is commented out is what holds without it."""
    text = (ROOT / "configs" / "server" / "config.yaml").read_text()
    file = tmp_path / "config.yaml"
    names = set(re.findall(r"^#?([a-z_]+):", text, re.M))
    assert names == set(ServerSettings.model_fields)
    without = {"database_url", "tls", "installer_listen", "files_dir", "processes"}
    lines = [line for line in text.splitlines() if line.startswith("#") and line[1:].split(":")[0] in names - without]
    file.write_text("\n".join(line[1:] for line in lines))
    file.chmod(0o600)
    assert load_settings(ServerSettings, file) == ServerSettings()


def _serial(path: Path) -> int:
    return x509.load_pem_x509_certificate(path.read_bytes()).serial_number


def test_a_certificate_is_renewed_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = ServerSettings(data_dir=tmp_path, public_url="https://backup.example.com")
    files = tls.certificates(settings)
    assert files.authority is not None
    first, authority = _serial(files.certificate), _serial(files.authority)
    for days, renewed in ((59, False), (61, True)):
        monkeypatch.setattr(tls, "now", lambda days=days: now() + timedelta(days=days))
        tls.certificates(settings)
        assert (_serial(files.certificate) != first) is renewed
    assert _serial(files.authority) == authority
    chain = x509.verification.PolicyBuilder().store(
        x509.verification.Store([x509.load_pem_x509_certificate(files.authority.read_bytes())])
    )
    verifier = chain.time(now() + timedelta(days=120)).build_server_verifier(x509.DNSName("backup.example.com"))
    verifier.verify(x509.load_pem_x509_certificate(files.certificate.read_bytes()), [])


def test_another_name_gets_another_certificate(tmp_path: Path) -> None:
    for name in ("one.example.com", "two.example.com"):
        files = tls.certificates(ServerSettings(data_dir=tmp_path, public_url=f"https://{name}"))
        made = x509.load_pem_x509_certificate(files.certificate.read_bytes())
        names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert name in names.get_values_for_type(x509.DNSName)


@pytest.mark.slow
def test_the_installer_alone_may_be_fetched_with_tls_1_2(tmp_path: Path) -> None:
    port = free_port()
    with running(tmp_path, LOX_SERVER_INSTALLER_LISTEN=f"127.0.0.1:{port}") as server:
        context = server.context()
        context.maximum_version = ssl.TLSVersion.TLSv1_2

        def get(path: str) -> bytes:
            with (
                socket.create_connection(("127.0.0.1", port), 5) as plain,
                context.wrap_socket(plain, server_hostname="localhost") as secure,
            ):
                assert secure.version() == "TLSv1.2"
                secure.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
                return b"".join(iter(lambda: secure.recv(65536), b""))

        assert get("/agent").startswith(b"HTTP/1.1 200") and b"#!" in get("/agent")
        for path in ("/api/v1/agents", "/healthz", "/api/v1/openapi.json", "/metrics"):
            assert get(path).startswith(b"HTTP/1.1 404"), path


def test_prometheus_gets_numbers_of_the_tenant_alone(tenant: Tenant, other_tenant: Tenant) -> None:
    add_repository(tenant)
    host = enrolled(tenant)
    back_up(host, add_job(tenant, host), "abc")
    host.beat(metrics_port=9100)
    reader = tenant.token("agents:read")
    text = reader.ok("GET", "/metrics")
    assert 'lox_server_agents{status="online"} 1.0' in text
    assert 'lox_server_runs{kind="backup",status="success"} 1.0' in text
    route = 'method="POST",route="/api/v1/agent/runs/{run_uuid}/events",status="2xx"'
    assert re.search(rf"lox_server_request_seconds_count{{{re.escape(route)}}} [1-9]", text)
    assert 'lox_server_agents{status="online"} 0.0' in other_tenant.api.ok("GET", "/metrics")
    (found,) = reader.ok("GET", "/api/v1/prometheus/http_sd")
    assert found["targets"] == ["web-1.example.com:9100"] and found["labels"]["__meta_lox_agent_uuid"] == host.uuid
    assert other_tenant.api.ok("GET", "/api/v1/prometheus/http_sd") == []
    assert Client(tenant.admin.server)("GET", "/metrics").status == 401


@pytest.mark.slow
def test_a_slow_body_does_not_hold_a_connection(server: RunningServer) -> None:
    """Who announces more than they send is told so, and let go."""
    with (
        socket.create_connection(("127.0.0.1", server.port), 5) as plain,
        server.context().wrap_socket(plain, server_hostname="localhost") as secure,
    ):
        secure.settimeout(30)
        head = "POST /api/v1/auth/login HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"
        secure.sendall(head.encode())
        assert secure.recv(65536).startswith(b"HTTP/1.1 408")
