"""A real `lox-server` in a process of its own, with tenants, tokens and repositories in its vault."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID, uuid4

from sqlalchemy import update

from control.auth.secrets import API, Secret, make_secret, parse_secret
from control.auth.tables import TenantRow, TokenRow
from control.db import everything
from control.db.base import Base, new_id, now
from control.db.engine import make_engine, make_sessions
from control.repositories.tables import RepositoryRow
from control.settings import ServerSettings

ROOT = Path(__file__).parents[3]
VAULT = ("vault:get", "vault:put", "vault:delete")
assert everything.metadata is Base.metadata


@dataclass
class VaultServer:
    """A server on `port`. `tenant` is one that is there; others are made by `add_tenant`."""

    folder: Path
    port: int
    tenant: UUID = field(default_factory=uuid4)
    process: subprocess.Popen[bytes] | None = None

    @property
    def data_dir(self) -> Path:
        return self.folder / "data"

    @property
    def ca_file(self) -> Path:
        return self.data_dir / "tls" / "ca.crt"

    def start(self) -> None:
        """Until it answers."""
        command = [sys.executable, "-m", "control", "--data-dir", os.fspath(self.data_dir), "run"]
        command += ["--listen", f"127.0.0.1:{self.port}", "--public-url", f"https://127.0.0.1:{self.port}"]
        with (self.folder / "log").open("ab") as log:
            environment = {**os.environ, "PYTHONPATH": os.fspath(ROOT), "LOX_SERVER_RATE_LIMITS": "false"}
            self.process = subprocess.Popen(command, cwd=self.folder, env=environment, stdout=log, stderr=log)
        deadline = time.monotonic() + 30
        while not self._answers():
            assert self.process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < deadline, "the server does not answer"
            time.sleep(0.05)

    def stop(self, number: int = signal.SIGTERM) -> None:
        """And waits for its end."""
        assert self.process is not None
        self.process.send_signal(number)
        self.process.wait(30)

    def _answers(self) -> bool:
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
            with urllib.request.urlopen(f"https://127.0.0.1:{self.port}/healthz", context=context, timeout=5):
                return True
        except OSError:
            return False

    def url(self, repository: UUID, port: int | None = None) -> str:
        """Of a repository, as `lox --repo` takes it."""
        return f"lox+https://127.0.0.1:{port or self.port}/{repository}"

    def add_tenant(self) -> UUID:
        """A new tenant."""
        tenant = new_id()
        self._add(TenantRow(uuid=tenant, name=f"tenant {tenant}"))
        return tenant

    def repository(self, quota: int | None = None, maintenance: UUID | None = None, tenant: UUID | None = None) -> UUID:
        """A new repository in the vault."""
        row = RepositoryRow(
            uuid=new_id(), tenant_id=tenant or self.tenant, name=f"repository {uuid4()}", url="", vault=True,
            encryption="required", maintenance_agent_uuid=maintenance, quota_bytes=quota,
        )  # fmt: skip
        self._add(row)
        return row.uuid

    def token(self, scopes: Sequence[str] = VAULT, tenant: UUID | None = None) -> Path:
        """A file with a new API token in it."""
        secret = make_secret(API, new_id())
        self._add(
            TokenRow(
                uuid=secret.uuid, tenant_id=tenant or self.tenant, name=str(secret.uuid), scopes=list(scopes),
                secret_hash=secret.hash, made_by=new_id(),
            )
        )  # fmt: skip
        return self.kept(secret)

    def revoke(self, token: str) -> None:
        """It is good for nothing any more."""
        asyncio.run(self._revoked(token.strip()))

    async def _revoked(self, token: str) -> None:
        secret, engine = parse_secret(token), make_engine(ServerSettings(data_dir=self.data_dir).database)
        assert secret is not None
        async with make_sessions(engine).begin() as db:
            await db.execute(update(TokenRow).where(TokenRow.uuid == secret.uuid).values(revoked_at=now()))
        await engine.dispose()

    def kept(self, secret: Secret) -> Path:
        """A file with a secret in it."""
        path = self.folder / f"token-{secret.uuid}"
        path.write_text(secret.text + "\n")
        return path

    def environment(self, repository: UUID, token: Path, port: int | None = None) -> dict[str, str]:
        """For programs that use a repository."""
        return {
            "LOX_REPOSITORY": self.url(repository, port),
            "LOX_VAULT_TOKEN_FILE": os.fspath(token),
            "LOX_VAULT_CA_FILE": os.fspath(self.ca_file),
        }

    def _add(self, *rows: Base) -> None:
        asyncio.run(self._added(rows))

    async def _added(self, rows: Sequence[Base]) -> None:
        engine = make_engine(ServerSettings(data_dir=self.data_dir).database)
        async with make_sessions(engine).begin() as db:
            db.add_all(rows)
        await engine.dispose()


@contextlib.contextmanager
def vault_server(folder: Path) -> Iterator[VaultServer]:
    """A server with one tenant, on a free port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    server = VaultServer(folder, port)
    server.start()
    try:
        server.tenant = server.add_tenant()
        yield server
    finally:
        if server.process is not None and server.process.poll() is None:
            server.stop()
