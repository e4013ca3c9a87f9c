"""What connections cost the server that stay open, as those of agents do."""

from __future__ import annotations

import http.client
import os
from pathlib import Path

import psutil
import pytest

from repository.store import open_store
from tests.control.vault.serving import VaultServer, vault_server

CONNECTIONS = 100
OBJECT = "packs/aa/" + "0" * 32


def test_a_connection_keeps_no_room_for_the_largest_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with vault_server(tmp_path / "server") as server:
        token = server.token()
        monkeypatch.setenv("LOX_VAULT_TOKEN_FILE", str(token))
        monkeypatch.setenv("LOX_VAULT_CA_FILE", str(server.ca))
        repository, data = server.repository(), os.urandom(2 << 20)
        open_store(server.place(repository)).put(OBJECT, [data])
        headers = {"Authorization": f"Bearer {token.read_text().strip()}"}
        kept = f"/api/v1/vault/{repository}/objects/{OBJECT}"

        def get(connection: http.client.HTTPSConnection, path: str) -> bytes:
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            body = answer.read()
            assert answer.status == 200 and not answer.will_close
            return body

        connections = [_connection(server) for _ in range(CONNECTIONS)]
        for connection in connections:
            get(connection, "/healthz")
        for _ in range(3):
            get(connections[0], "/api/v1/openapi.json")
            assert get(connections[0], kept) == data
        assert server.process is not None
        memory = psutil.Process(server.process.pid).memory_info
        before = memory().rss
        for connection in connections:
            assert len(get(connection, "/api/v1/openapi.json")) > 100_000
            assert get(connection, kept) == data
        assert memory().rss - before < CONNECTIONS * (120 << 10), "not two MiB each, nor a tenth"
        for connection in connections:
            connection.close()


def _connection(server: VaultServer) -> http.client.HTTPSConnection:
    return http.client.HTTPSConnection("127.0.0.1", server.port, context=server.context(), timeout=60)
