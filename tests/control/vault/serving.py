"""A real `lox-server` in a process of its own, with tenants, tokens and repositories in its vault."""

from __future__ import annotations

import asyncio
import contextlib
import os
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
from tests.control.servers import Client, RunningServer
from tests.ports import free_port

VAULT = ("vault:get", "vault:put", "vault:delete")
assert everything.metadata is Base.metadata


@dataclass
class VaultServer(RunningServer):
    """`tenant` is one that is there; others are made by `add_tenant`."""

    tenant: UUID = field(default_factory=uuid4)

    def place(self, repository: UUID, port: int | None = None) -> str:
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

    def agent(self) -> tuple[UUID, Path]:
        """A new agent of the tenant, enrolled, and a file with its credential."""
        ask = Client(self, self.token(["agents:write"]).read_text().strip())
        made = ask.ok("POST", "/api/v1/agents", {"hostname": f"host-{uuid4()}", "os": "linux"})
        told = {"agent_uuid": made["uuid"], "registration_token": made["registration_token"], "os": "linux"}
        told |= {"hostname": made["hostname"], "version": "1.0", "machine_id": uuid4().hex}
        credential = Client(self).ok("POST", "/api/v1/agent/register", told)["credential"]
        path = self.data_dir / f"credential-{made['uuid']}"
        path.write_text(credential)
        return UUID(made["uuid"]), path

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
        path = self.data_dir / f"token-{secret.uuid}"
        path.write_text(secret.text + "\n")
        return path

    def reach(self, repository: UUID, token: Path, port: int | None = None) -> dict[str, str]:
        """For programs that use a repository."""
        return {
            "LOX_REPOSITORY": self.place(repository, port),
            "LOX_VAULT_TOKEN_FILE": os.fspath(token),
            "LOX_VAULT_CA_FILE": os.fspath(self.ca),
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
    folder.mkdir(exist_ok=True)
    server = VaultServer(folder, free_port())
    server.start()
    try:
        server.tenant = server.add_tenant()
        yield server
    finally:
        if server.process is not None and server.process.poll() is None:
            server.stop()
