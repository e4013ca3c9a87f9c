"""A connection to an SFTP host that is cut after any number of bytes, in either direction: B1 over SFTP.

The host is a real sshd; between us and it a forwarder closes connections. What was stored then may or may not be there:
the next attempt finds out, and nothing is stored half.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import random
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pipelines.options import Watch
from pipelines.restore import RestoreRequest, restore
from repository.check import check
from repository.repository import Repository
from repository.snapshot import load_all
from repository.store import open_store, retrying
from tests.faults.scenarios import CHEAP, CHUNKS, ENGINE, back_up, look
from tests.repository.servers import sftp_server


@dataclass
class Forwarder:
    """Hands bytes on; each connection ends once `room` bytes went through it in all, the last of which arrive."""

    port: int = 0
    room: int = 1 << 62
    cuts: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def carry(self, client: socket.socket, server: socket.socket) -> None:
        left = [self.room]
        for source, target in ((client, server), (server, client)):
            threading.Thread(target=self._pump, args=(source, target, left), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, left: list[int]) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(16 << 10):
                with self._lock:
                    some = data[: max(0, left[0])]
                    left[0] -= len(data)
                target.sendall(some)
                if len(some) < len(data):
                    self.cuts += 1
                    break
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def forwarder(port: int) -> Iterator[Forwarder]:
    """A forwarder on a free port to `port` of this host."""
    listener = socket.create_server(("127.0.0.1", 0))
    forward = Forwarder(listener.getsockname()[1])

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                forward.carry(client, socket.create_connection(("127.0.0.1", port)))

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield forward
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, dict[str, str]]]:
    with sftp_server(tmp_path_factory.mktemp("sshd")) as server:
        yield server


@pytest.fixture
def host(
    sshd: tuple[int, dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[str, Forwarder]]:
    port, environment = sshd
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    monkeypatch.setattr(retrying, "BASE", 0.01)  # seconds
    known = Path(environment["HOME"], ".ssh", "known_hosts")
    key = known.read_text().splitlines()[0].split(" ", 1)[1]
    with forwarder(port) as forward:
        known.write_text(known.read_text() + f"[127.0.0.1]:{forward.port} {key}\n")
        yield f"sftp://{getpass.getuser()}@127.0.0.1:{forward.port}{tmp_path}/repository", forward


HANDSHAKE = 6000  # bytes until the first request, about
CUTS = [HANDSHAKE + step for step in (0, 500, 3000, 20_000, 60_000, 150_000)]


@pytest.mark.slow  # each waits about half a minute
@pytest.mark.parametrize("room", CUTS)
def test_a_connection_that_is_cut_again_and_again(host: tuple[str, Forwarder], tmp_path: Path, room: int) -> None:
    """Each connection carries a little more than the one before, so that in the end everything goes through."""
    url, forward = host
    tree, dice = tmp_path / "tree", random.Random(room)
    tree.mkdir()
    for number in range(6):
        (tree / f"file{number}").write_bytes(dice.randbytes(20_000))
    store = open_store(url)
    forward.room = room
    grow = threading.Event()

    def growing() -> None:
        while not grow.wait(0.2):
            forward.room += room // 3

    thread = threading.Thread(target=growing)
    thread.start()
    try:
        repository, _ = Repository.init(store, "secret", CHUNKS, kdf=CHEAP)
        back_up(repository, tree)
        (tree / "more").write_bytes(dice.randbytes(90_000))
        back_up(repository, tree)
    finally:
        grow.set()
        thread.join()
    print(f"{forward.cuts} connections cut after {room} bytes and more")
    assert forward.cuts > 0 or room > CUTS[2]
    forward.room = 1 << 62
    repository = Repository.open(open_store(url), "secret")
    assert len(load_all(repository)) == 2 and check(repository, "data").findings == []
    report = restore(
        repository, RestoreRequest(load_all(repository)[-1], os.fsencode(tmp_path / "out")), ENGINE, Watch()
    )
    assert report.problems == []
    assert look(tmp_path / "out" / os.fspath(tree)[1:]) == look(tree)
