"""Real servers for the stores: S3 from moto and from rclone (which ignores If-None-Match), Azurite, OpenSSH's sftp."""

from __future__ import annotations

import base64
import contextlib
import email.utils
import hmac
import os
import shutil
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.ports import free_port

BUCKET = "backups"
AZURE_ACCOUNT = "devstoreaccount1"  # account and key that every Azurite has; no secret
AZURE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
SSHD = shutil.which("sshd") or "/usr/sbin/sshd"


@contextlib.contextmanager
def s3_server(
    conditional: bool = True,
    delay: float = 0,
    lets: Callable[[dict[str, Any]], bool] = lambda request: True,
    line: float = 0,
) -> Iterator[dict[str, str]]:
    """A server on a free port with one bucket; the environment that reaches it. Not `conditional`: it overwrites.

    It waits `delay` seconds before each answer, and denies access to requests that `lets` is false of. What all
    requests together carry takes as long as on a line of `line` bytes a second.
    """
    pytest.importorskip("moto.server", reason="no S3 server: pip install 'moto[server]'")
    pytest.importorskip("obstore", reason="no S3 client: pip install obstore")
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    application: Any = DomainDispatcherApplication(create_backend_app)
    wire = Wire(line) if line else None

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        if not conditional:
            environ.pop("HTTP_IF_NONE_MATCH", None)
        if environ.get("HTTP_X_AMZ_CHECKSUM_SHA256") or environ.get("HTTP_X_AMZ_COPY_SOURCE"):
            # Enough for Amazon's Object Lock; moto wants it said in words.
            environ["HTTP_X_AMZ_SDK_CHECKSUM_ALGORITHM"] = "SHA256"
        time.sleep(delay + (wire.wait(int(environ.get("CONTENT_LENGTH") or 0)) if wire else 0))
        if not lets(environ):
            start_response("403 Forbidden", [("Content-Type", "application/xml")])
            return [b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"]
        return application(environ, start_response)

    class Handler(WSGIRequestHandler):
        disable_nagle_algorithm = True  # head and body are written apart: the second would wait 40 ms for an answer

    server = make_server("127.0.0.1", 0, answer, threaded=True, request_handler=Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    environment = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
    }
    try:
        make_bucket(environment)
        yield environment
    finally:
        server.shutdown()
        server.server_close()


class Wire:
    """A line that carries one thing after the other."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._free = time.monotonic()
        self._lock = threading.Lock()

    def wait(self, size: int) -> float:
        """Seconds from now until `size` more bytes have gone over the line."""
        with self._lock:
            now = time.monotonic()
            self._free = max(self._free, now) + size / self._rate
            return self._free - now


@contextlib.contextmanager
def rclone_server(folder: Path) -> Iterator[dict[str, str]]:
    """rclone serving `folder` as S3 with one bucket, overwriting whatever is asked; the environment that reaches it."""
    pytest.importorskip("obstore", reason="no S3 client: pip install obstore")
    program = _rclone()
    (folder / BUCKET).mkdir(parents=True)
    port = free_port()
    options = ["--addr", f"127.0.0.1:{port}", "--auth-key", "test,secret-of-the-test"]
    home = {**os.environ, "RCLONE_CONFIG": str(folder / "rclone.conf"), "RCLONE_CACHE_DIR": str(folder / "cache")}
    log = (folder / "rclone.log").open("wb")
    process = subprocess.Popen([program, "serve", "s3", *options, str(folder)], stdout=log, stderr=log, env=home)
    try:
        _await_port(port, process)
        yield {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "secret-of-the-test",
            "AWS_REGION": "us-east-1",
        }
    finally:
        process.terminate()
        process.wait(timeout=60)
        log.close()


def _rclone() -> str:
    for name in ("rclone-s3", "rclone"):
        program = shutil.which(name)
        if (
            program
            and not subprocess.run([program, "serve", "s3", "--help"], capture_output=True, check=False).returncode
        ):
            return program
    pytest.skip("no rclone that serves S3 (1.65 or newer): .ci/rclone-s3 /usr/local/bin builds one")


def make_bucket(environment: dict[str, str]) -> None:
    """Creates `BUCKET`."""
    import boto3

    client = boto3.client(
        "s3",
        endpoint_url=environment["AWS_ENDPOINT_URL"],
        aws_access_key_id="test",
        aws_secret_access_key="test",
        region_name="us-east-1",
    )
    client.create_bucket(Bucket=BUCKET)


@contextlib.contextmanager
def azure_server() -> Iterator[dict[str, str]]:
    """Azurite on a free port with one container; the environment that reaches it."""
    pytest.importorskip("obstore", reason="no Azure client: pip install obstore")
    program = shutil.which("azurite-blob")
    if program is None:
        pytest.skip("no Azure server: npm install --global azurite")
    port = free_port()
    options = ["--silent", "--inMemoryPersistence", "--skipApiVersionCheck", "--blobPort", str(port)]
    process = subprocess.Popen([program, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    environment = {
        "AZURE_STORAGE_ACCOUNT_NAME": AZURE_ACCOUNT,
        "AZURE_STORAGE_ACCOUNT_KEY": AZURE_KEY,
        "AZURE_STORAGE_ENDPOINT": f"http://127.0.0.1:{port}/{AZURE_ACCOUNT}",
    }
    try:
        _await_port(port, process)
        _make_container(environment["AZURE_STORAGE_ENDPOINT"])
        yield environment
    finally:
        process.terminate()
        process.wait(timeout=60)


def _make_container(endpoint: str) -> None:
    """One signed request: https://learn.microsoft.com/rest/api/storageservices/authorize-with-shared-key"""
    date = email.utils.formatdate(usegmt=True)
    headers = f"x-ms-date:{date}\nx-ms-version:2021-08-06"
    text = "PUT" + "\n" * 12 + f"{headers}\n/{AZURE_ACCOUNT}/{AZURE_ACCOUNT}/{BUCKET}\nrestype:container"
    seal = base64.b64encode(hmac.digest(base64.b64decode(AZURE_KEY), text.encode(), "sha256")).decode()
    request = urllib.request.Request(f"{endpoint}/{BUCKET}?restype=container", method="PUT")
    for name, value in (
        ("x-ms-date", date),
        ("x-ms-version", "2021-08-06"),
        ("Authorization", f"SharedKey {AZURE_ACCOUNT}:{seal}"),
        ("Content-Length", "0"),
    ):
        request.add_header(name, value)
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert answer.status == 201


@contextlib.contextmanager
def sftp_server(folder: Path, options: str = "") -> Iterator[tuple[int, dict[str, str]]]:
    """An sshd of our own for the user who runs this: its port, and the environment whose ~/.ssh reaches it.

    `options` are further lines of its configuration.
    """
    pytest.importorskip("asyncssh", reason="no SFTP client: pip install asyncssh")
    if not os.path.exists(SSHD):
        pytest.skip("no SFTP server: apt-get install openssh-server")
    home = folder / "home"
    (home / ".ssh").mkdir(parents=True, mode=0o700)
    for key in (folder / "host_key", home / ".ssh" / "id_ed25519"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    authorized = folder / "authorized_keys"
    shutil.copy(home / ".ssh" / "id_ed25519.pub", authorized)
    port = free_port()
    host_key = (folder / "host_key.pub").read_text()
    (home / ".ssh" / "known_hosts").write_text(f"[127.0.0.1]:{port} {host_key}")
    config = folder / "sshd_config"
    config.write_text(
        f"ListenAddress 127.0.0.1\nPort {port}\nHostKey {folder}/host_key\nAuthorizedKeysFile {authorized}\n"
        f"PidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\nMaxStartups 100\n"
        f"Subsystem sftp internal-sftp\n{options}\n"
    )
    if os.geteuid() == 0:
        os.makedirs("/run/sshd", mode=0o755, exist_ok=True)
    log = (folder / "sshd.log").open("wb")
    process = subprocess.Popen([SSHD, "-D", "-e", "-f", str(config)], stdout=log, stderr=log)
    try:
        _await_port(port, process)
        yield port, {"HOME": str(home)}
    finally:
        process.terminate()
        process.wait(timeout=60)
        log.close()


def _await_port(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(600):  # half a minute: a busy machine
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        assert process.poll() is None, "the server ended at once"
        time.sleep(0.05)
    raise AssertionError("the server does not listen")
