"""What lanes in other processes share: objects that live in the caller's process, called over a socket.

A call through Ray costs three milliseconds of processor time on its two sides, one through a Unix socket a tenth of
that, and lanes ask once per batch. Who is let in by the gate (`runtime.gate`) is us, so that what comes through it may
be unpickled.
"""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from socket import socket
from typing import Any

from model.errors import RunFailed
from runtime.gate import Gate, Messages, Way
from runtime.host import Raised

ACCEPT_AGAIN = 0.1  # seconds


class ServiceServer:
    """Answers calls of `RemoteService`s, those of each lane in a thread of its own.

    What it serves must be safe to share between threads, as in every executor.
    """

    def __init__(self, gate: Gate) -> None:
        self._services: dict[str, Any] = {}
        self._closed = threading.Event()
        self._gate = gate
        threading.Thread(target=self._accept, name="services", daemon=True).start()

    def add(self, services: Mapping[str, Any]) -> None:
        """Serve these, by name."""
        self._services.update(services)

    def remote(self) -> dict[str, RemoteService]:
        """All that are served, as other processes see them."""
        return {name: RemoteService(self._gate.way, name) for name in self._services}

    def close(self) -> None:
        """Take no more calls. Threads end with the lanes they answer."""
        self._closed.set()
        self._gate.close()

    def _accept(self) -> None:
        while True:
            try:
                caller = self._gate.accept()
            except OSError:
                if self._closed.wait(ACCEPT_AGAIN):
                    return
                continue  # no descriptors just now, or the lane is gone again: those behind it still wait
            try:
                threading.Thread(target=self._answer, args=(caller,), name="service", daemon=True).start()
            except RuntimeError:  # no more threads: the lane is told by the end of its connection
                caller.close()

    def _answer(self, caller: socket) -> None:
        with suppress(EOFError, OSError), closing(self._gate.admit(caller)) as connection:
            while True:  # until the lane is gone, and with it whoever waits for an answer
                name, method, args, kwargs = pickle.loads(connection.recv_bytes())
                try:
                    answer = getattr(self._services[name], method)(*args, **kwargs)
                    packed = pickle.dumps(answer, pickle.HIGHEST_PROTOCOL)
                except Exception as error:
                    packed = pickle.dumps(Raised.of(error), pickle.HIGHEST_PROTOCOL)
                connection.send_bytes(packed)


class RemoteService:
    """Looks like the service: a method call goes to its process and waits for the result, or raises its error.

    Raises RunFailed if there is nobody to answer. Safe to share between threads; travels by pickle.
    """

    def __init__(self, way: Way, name: str) -> None:
        self._way = way
        self._name = name
        self._lock = threading.Lock()
        self._connection: Messages | None = None

    def __getattr__(self, method: str) -> Callable[..., Any]:
        if method.startswith("_"):
            raise AttributeError(method)

        def call(*args: Any, **kwargs: Any) -> Any:
            return self._call(method, args, kwargs)

        return call

    def _call(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        question = pickle.dumps((self._name, method, args, kwargs), pickle.HIGHEST_PROTOCOL)
        with self._lock:
            try:
                if self._connection is None:
                    self._connection = self._way.connect()
                self._connection.send_bytes(question)
                answer = pickle.loads(self._connection.recv_bytes())
            except (EOFError, OSError) as error:
                self._connection = None
                raise RunFailed("a service does not answer", subject=self._name, why=str(error)) from error
            except BaseException:  # an answer may still come, and must not be taken for that of the next question
                self._connection = None
                raise
        if isinstance(answer, Raised):
            raise answer.unpack()
        return answer

    def __getstate__(self) -> tuple[Way, str]:
        return self._way, self._name

    def __setstate__(self, state: tuple[Way, str]) -> None:
        self.__init__(*state)  # type: ignore[misc]
