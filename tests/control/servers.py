"""Real servers for tests: a process, TLS 1.3, a data folder of its own, an administrator and a tenant."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import aiohttp

from tests.ports import free_port

PASSWORD = "correct horse battery"
START_SECONDS = 120.0  # on a machine that does much else


def lox_server(data_dir: Path, *arguments: str, stdin: str = "", database: str | None = None) -> str:
    """Runs a command of lox-server to its end, and gives what it printed. Raises CalledProcessError."""
    command = [sys.executable, "-m", "control", "--data-dir", str(data_dir)]
    command += ["--database-url", database] if database else []
    done = subprocess.run([*command, *arguments], input=stdin, capture_output=True, text=True, check=False, timeout=120)
    if done.returncode:
        raise subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr)
    return done.stdout


@dataclass
class RunningServer:
    """A server that runs in a process of its own."""

    data_dir: Path
    port: int
    database: str | None = None
    options: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    superadmin: Client | None = None
    address: str = "127.0.0.1"

    @property
    def url(self) -> str:
        return f"https://{self.address}:{self.port}"

    @property
    def ca(self) -> Path:
        return self.data_dir / "tls" / "ca.crt"

    @property
    def log(self) -> Path:
        return self.data_dir / "server.log"

    def start(self) -> None:
        """Starts it, and waits until it is ready."""
        command = [sys.executable, "-m", "control", "--data-dir", str(self.data_dir)]
        command += ["--database-url", self.database] if self.database else []
        command += ["run", "--listen", f"{self.address}:{self.port}", "--public-url", self.url, *self.options]
        environment = {**os.environ, "LOX_SERVER_RATE_LIMITS": "false", "LOX_SERVER_LOG_LEVEL": "debug"}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stderr=log, stdout=log, env=environment | self.environment)
        self.wait_ready()

    def wait_ready(self) -> None:
        """Returns when it takes connections."""
        assert self.process is not None
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            assert self.process.poll() is None, self.log.read_text()[-3000:]
            if self.ca.exists() and _answers(self.address, self.port):
                return
            time.sleep(0.05)
        raise AssertionError(f"the server does not start: {self.log.read_text()[-3000:]}")

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ends it by a signal; its exit status."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(40)

    def root(self) -> Client:
        """One who makes tenants: made by the command, once."""
        if self.superadmin is None:
            arguments = ("create-admin", "root@example.org", "--superadmin", "--password-stdin")
            lox_server(self.data_dir, *arguments, stdin=PASSWORD + "\n", database=self.database)
            self.superadmin = log_in(self, "root@example.org")
        return self.superadmin

    def context(self) -> ssl.SSLContext:
        """What a client trusts it with."""
        return ssl.create_default_context(cafile=str(self.ca))


def _answers(address: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((address, port)) == 0


@dataclass(frozen=True)
class Answer:
    """What a server said: `body` is parsed JSON, or None."""

    status: int
    body: Any
    headers: dict[str, str]


@dataclass
class Client:
    """Somebody with a token or a cookie, for tests that need no concurrency of their own."""

    server: RunningServer
    token: str | None = None
    cookie: str | None = None
    headers: dict[str, str] = field(default_factory=dict)

    def __call__(self, method: str, path: str, body: object = None, **headers: str) -> Answer:
        """One request, on a connection of its own."""
        return asyncio.run(self._ask(method, path, body, headers))

    async def _ask(self, method: str, path: str, body: object, extra: dict[str, str]) -> Answer:
        headers = {**self.headers, **{name.replace("_", "-"): value for name, value in extra.items()}}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        if self.cookie:
            headers["Cookie"] = f"__Host-lox_session={self.cookie}"
            headers.setdefault("Lox-Csrf", "1")
        connector = aiohttp.TCPConnector(ssl=self.server.context())
        async with (
            aiohttp.ClientSession(self.server.url, connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as session,
            session.request(method, path, json=body, headers=headers) as answer,
        ):
            kind = answer.content_type
            parsed = (
                await answer.json(content_type=None)
                if kind.endswith("json") and "ndjson" not in kind
                else await answer.text()
            )
            return Answer(answer.status, parsed, dict(answer.headers))

    def ok(self, method: str, path: str, body: object = None, **headers: str) -> Any:
        """The body of an answer that is a success."""
        answer = self(method, path, body, **headers)
        assert answer.status < 400, answer.body
        return answer.body


@contextmanager
def running(
    data_dir: Path, *options: str, database: str | None = None, address: str = "127.0.0.1", **environment: str
) -> Iterator[RunningServer]:
    """A server as long as the context is open."""
    data_dir.mkdir(parents=True, exist_ok=True)
    server = RunningServer(data_dir, free_port(), database, options, environment, address=address)
    try:
        server.start()
        yield server
    finally:
        if server.process is not None and server.process.poll() is None:
            server.process.kill()
            server.process.wait()


def log_in(server: RunningServer, email: str, password: str = PASSWORD) -> Client:
    """Somebody with a session."""
    answer = Client(server)("POST", "/api/v1/auth/login", {"email": email, "password": password})
    assert answer.status == 200, answer.body
    cookie = answer.headers["Set-Cookie"].split(";")[0].split("=", 1)[1]
    return Client(server, cookie=cookie)


@dataclass(frozen=True)
class Tenant:
    """A tenant with an administrator: by session, and by a token with all scopes."""

    uuid: UUID
    name: str
    email: str
    admin: Client
    api: Client

    def token(self, *scopes: str) -> Client:
        """A client with a token that holds these scopes."""
        body = {"name": f"token {os.urandom(6).hex()}", "scopes": list(scopes)}
        return Client(self.admin.server, self.admin.ok("POST", "/api/v1/api-tokens", body)["token"])


def make_tenant(server: RunningServer, name: str) -> Tenant:
    """A new tenant; works beside a running server."""
    root, email = server.root(), f"{name.lower()}@example.org"
    uuid = root.ok("POST", "/api/v1/tenants", {"name": name})["uuid"]
    person = {"email": email, "role": "admin", "password": PASSWORD}
    root.ok("POST", "/api/v1/users", person, Lox_Tenant=uuid)
    admin = log_in(server, email)
    scopes = admin.ok("GET", "/api/v1/auth/me")["scopes"]
    token = admin.ok("POST", "/api/v1/api-tokens", {"name": "everything", "scopes": scopes})["token"]
    return Tenant(UUID(uuid), name, email, admin, Client(server, token))
