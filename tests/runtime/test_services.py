"""Services called from other processes: real processes, killed and abandoned in the middle of calls."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import resource
import signal
import threading
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.errors import RunFailed, StoreFull
from runtime.gate import UnixGate
from runtime.services import ServiceServer
from tests.contracts.executor import Journal

SPAWN = multiprocessing.get_context("spawn")


class Slow(Journal):
    """Takes its time."""

    def __init__(self) -> None:
        super().__init__()
        self.started = threading.Event()

    def wait(self) -> None:
        self.started.set()
        time.sleep(0.3)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServiceServer]:
    server = ServiceServer(UnixGate(str(tmp_path)))
    yield server
    server.close()


def ask_many(service: Any, name: str, count: int) -> None:
    for number in range(count):
        service.note(f"{name} {number}")


def ask_for_long(service: Any) -> None:
    service.wait()
    service.note("not killed")


def test_many_processes_are_answered(server: ServiceServer) -> None:
    journal = Journal()
    server.add({"journal": journal})
    asking = [
        SPAWN.Process(target=ask_many, args=(server.remote()["journal"], name, 50)) for name in ("one", "two", "three")
    ]
    for process in asking:
        process.start()
    for process in asking:
        process.join()
    assert sorted(journal.lines()) == sorted(f"{name} {n}" for name in ("one", "two", "three") for n in range(50))


def test_threads_of_one_process_share_a_connection(server: ServiceServer) -> None:
    server.add({"journal": Journal()})
    service: Any = pickle.loads(pickle.dumps(server.remote()["journal"]))
    answers: list[bytes] = []

    def ask(value: Any) -> None:
        answers.append(service.twice(value).tobytes())

    values = [np.full(500_000, number, dtype=np.uint8) for number in range(8)]
    threads = [threading.Thread(target=ask, args=(value,)) for value in values]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [bytes([number]) * 1_000_000 for number in range(8)]


def test_errors_come_back_as_they_are(server: ServiceServer) -> None:
    server.add({"journal": Journal()})
    service: Any = server.remote()["journal"]
    with pytest.raises(StoreFull, match="no room") as caught:
        service.complain()
    assert "in complain" in "".join(caught.value.__notes__)
    with pytest.raises(AttributeError):
        service.no_such_method()
    assert service.note("still there") == 1


def test_a_caller_that_is_killed_harms_nobody(server: ServiceServer) -> None:
    slow = Slow()
    server.add({"slow": slow})
    process = SPAWN.Process(target=ask_for_long, args=(server.remote()["slow"],))
    process.start()
    assert slow.started.wait(30)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    service: Any = server.remote()["slow"]
    assert service.note("me") == 1
    assert slow.lines() == ["me"]


def test_nobody_to_answer_is_a_failed_run(tmp_path: Path) -> None:
    server = ServiceServer(UnixGate(str(tmp_path)))
    server.add({"journal": Journal()})
    service: Any = server.remote()["journal"]
    server.close()
    with pytest.raises(RunFailed, match="a service does not answer: journal"):
        service.note("x")


def test_a_moment_without_descriptors_shuts_nobody_out(server: ServiceServer) -> None:
    server.add({"journal": Journal()})
    early: Any = server.remote()["journal"]
    late: Any = server.remote()["journal"]
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    time.sleep(0.2)  # accepting takes its descriptor before it waits
    free = os.open("/dev/null", os.O_RDONLY)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free + 1, limits[1]))  # one for this caller, none for accepting more
    try:
        assert early.note("early") == 1
        time.sleep(0.2)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    answers: list[int] = []
    asking = threading.Thread(target=lambda: answers.append(late.note("late")), daemon=True)
    asking.start()
    asking.join(30)
    assert answers == [2]


def test_an_interrupted_question_does_not_answer_the_next(
    server: ServiceServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.add({"journal": Journal()})
    service: Any = server.remote()["journal"]
    receive = Connection.recv_bytes

    def interrupted(connection: Connection, *limit: int) -> bytes:
        if threading.current_thread() is threading.main_thread():
            raise KeyboardInterrupt
        return receive(connection, *limit)

    with monkeypatch.context() as patch:
        patch.setattr(Connection, "recv_bytes", interrupted)
        with pytest.raises(KeyboardInterrupt):
            service.note("first")
    assert service.twice(np.zeros(2, np.uint8)).tolist() == [0, 0, 0, 0]


def test_an_answer_that_does_not_travel_is_an_error(server: ServiceServer) -> None:
    class Opening:
        def lock(self) -> Any:
            return threading.Lock()

    server.add({"opening": Opening()})
    service: Any = server.remote()["opening"]
    with pytest.raises(TypeError, match="pickle"):
        service.lock()
