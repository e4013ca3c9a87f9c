"""The gate between hosts: who knows the token is let in, nobody else, and nothing of strangers is unpickled."""

from __future__ import annotations

import contextlib
import os
import pickle
import socket
import ssl
import stat
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.errors import ConfigError, RunFailed, StoreFull
from runtime import gate as gate_module
from runtime.gate import Channel, Door, NetworkGate, read_token, token_of_this_host
from runtime.private import LentSecret, Vault
from runtime.services import ServiceServer
from tests.contracts.executor import Journal

TOKEN = b"0123456789abcdef" * 4


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ServiceServer]:
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN.decode())
    server = ServiceServer(NetworkGate("127.0.0.1", 0, TOKEN, os.fspath(tmp_path)))
    assert list(tmp_path.iterdir()) == [], "the key of the certificate does not stay"
    yield server
    server.close()


def service_of(server: ServiceServer, name: str = "journal") -> Any:
    """A service as another host gets it."""
    return pickle.loads(pickle.dumps(server.remote()[name]))


def door_of(server: ServiceServer) -> Door:
    server.add({"journal": Journal()})
    door = server.remote()["journal"]._way
    assert isinstance(door, Door)
    return door


def test_services_answer_over_the_network(server: ServiceServer) -> None:
    server.add({"journal": Journal()})
    service = service_of(server)
    assert service.note("one") == 1
    values = np.arange(3_000_000, dtype=np.uint8)
    assert service.twice(values).tobytes() == values.tobytes() * 2
    with pytest.raises(StoreFull, match="no room"):
        service.complain()
    answers: list[int] = []
    askers = [threading.Thread(target=lambda: answers.append(service_of(server).note("x"))) for _ in range(8)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    assert sorted(answers) == list(range(2, 10))


def test_what_travels_to_lanes_is_worth_nothing_without_the_token(
    server: ServiceServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal()
    server.add({"journal": journal})
    service = service_of(server)
    assert TOKEN not in pickle.dumps(server.remote()["journal"])
    monkeypatch.setenv("RAY_AUTH_TOKEN", "another token of at least 32 characters")
    with pytest.raises(RunFailed, match="another token"):
        service.note("x")
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    with pytest.raises(RunFailed, match="without a token"):
        service.note("x")
    assert journal.lines() == []


def test_a_stranger_with_the_certificate_is_shut_out_before_anything_is_unpickled(
    server: ServiceServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal()
    server.add({"journal": journal})
    door = door_of(server)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(cadata=door.certificate)
    loaded: list[bytes] = []
    monkeypatch.setattr("runtime.services.pickle.loads", loaded.append)
    with context.wrap_socket(socket.create_connection((door.host, door.port))) as tls:
        stranger = Channel(tls)
        stranger.take(gate_module.CHALLENGE)
        tls.sendall(bytes(32))
        stranger.send_bytes(pickle.dumps(("journal", "note", ("x",), {})))
        with pytest.raises((EOFError, OSError)):
            stranger.recv_bytes()
    assert loaded == []
    assert journal.lines() == []


def test_a_forged_door_is_not_gone_through(server: ServiceServer) -> None:
    door = door_of(server)
    for forged in (replace(door, port=door.port + 1), replace(door, certificate=door.certificate + "\n")):
        with pytest.raises(RunFailed, match="another token"):
            forged.connect()


def test_who_speaks_no_tls_or_says_nothing_hinders_nobody(
    server: ServiceServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate_module, "HANDSHAKE_SECONDS", 0.5)
    door = door_of(server)
    silent = socket.create_connection((door.host, door.port))
    with socket.create_connection((door.host, door.port)) as rude:
        rude.sendall(b"GET / HTTP/1.0\r\n\r\n")
        rude.settimeout(10)
        with contextlib.suppress(ConnectionResetError):
            assert b"HTTP" not in rude.recv(1000)
    assert service_of(server).note("x") == 1
    silent.settimeout(10)
    assert silent.recv(1) == b"", "shut out after a while"
    silent.close()


def test_a_message_that_claims_to_be_huge_ends_the_connection(server: ServiceServer) -> None:
    channel = door_of(server).connect()
    assert isinstance(channel, Channel)
    channel._tls.sendall((1 << 62).to_bytes(8, "big"))
    with pytest.raises((EOFError, OSError)):
        channel.recv_bytes()


def test_a_secret_is_fetched_through_the_gate(server: ServiceServer) -> None:
    vault = Vault()
    server.add({"vault": vault})
    secret = LentSecret(b"xyzzy", vault.keep(b"xyzzy"), server.remote()["vault"])
    data = pickle.dumps(secret)
    assert b"xyzzy" not in data
    arrived: LentSecret = pickle.loads(data)
    assert arrived.name == secret.name
    assert arrived.value == b"xyzzy"
    assert vault.keep(b"xyzzy") != secret.name


def test_an_address_that_is_taken_is_told(server: ServiceServer, tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match="cannot reach this host") as caught:
        NetworkGate("127.0.0.1", door_of(server).port, TOKEN, os.fspath(tmp_path))
    assert "in use" in str(caught.value)


def test_only_a_file_of_our_own_holds_a_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "token"
    with pytest.raises(ConfigError, match="no such file"):
        read_token(os.fspath(file))
    file.write_bytes(TOKEN + b"\n")
    file.chmod(stat.S_IRUSR | stat.S_IRGRP)
    with pytest.raises(ConfigError, match="others can read"):
        read_token(os.fspath(file))
    file.chmod(0o600)
    assert read_token(os.fspath(file)) == TOKEN
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", os.fspath(file))
    assert token_of_this_host() == TOKEN
    file.write_bytes(b"short")
    with pytest.raises(ConfigError, match="not a token"):
        read_token(os.fspath(file))
