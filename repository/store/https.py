"""HTTPS to a server of ours: TLS 1.3 and nothing older, connections that are kept, and no surprises.

Only the standard library: it sends what lies in memory as it is, without copying it through an event loop
(docs/decisions/033-vault.md has the measurements). Threads share one `Https`; each request has a connection to itself.
"""

from __future__ import annotations

import http.client
import json
import os
import select
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from model.errors import ConfigError, Refused, StoreError, Transient

PORT = 443
SILENCE = 120.0  # seconds without a byte from the server, or without one that it takes
_CONNECT_SECONDS = 10.0
_IDLE_SECONDS = 30.0  # a kept connection that nobody used for so long is not used again
_SLICE = 256 << 10  # bytes sent in one call, each of which has SILENCE to itself
_PROBLEM_MAX = 64 << 10  # bytes of an answer that says what went wrong
_WHY_MAX = 300  # characters of it that are shown


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server said. `headers` have small letters."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    @property
    def why(self) -> str:
        """The reason in a problem document (RFC 9457), for people; bounded, and without control characters."""
        text = ""
        try:
            found = json.loads(self.body)
            text = str(found.get("detail") or found.get("title") or "")
        except (ValueError, AttributeError, RecursionError):
            pass
        text = "".join(character if character.isprintable() else " " for character in text[:_WHY_MAX])
        return text or f"HTTP {self.status}"

    @property
    def retry_after(self) -> float | None:
        """Seconds the server asks to wait, if it does so in seconds."""
        text = self.headers.get("retry-after", "")
        return float(text) if text.isascii() and text.isdecimal() and len(text) < 6 else None


def tls(ca_file: str | None = None, ca_text: str | None = None) -> ssl.SSLContext:
    """Checks the server's name and certificate, against that of an authority (PEM) or what the host trusts.

    Raises ConfigError if the certificate of the authority cannot be read.
    """
    try:
        context = ssl.create_default_context(cafile=ca_file, cadata=ca_text)
    except (OSError, ssl.SSLError) as error:
        why = getattr(error, "strerror", "") or "it holds no certificate"
        raise ConfigError("cannot read the certificate", subject=ca_file or "", why=why.lower()) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


class Https:
    """Requests to one host. Raises Transient where there was no answer, Refused where the server cannot be trusted."""

    def __init__(self, host: str, port: int | None, context: ssl.SSLContext) -> None:
        self.host, self.port = host, port or PORT
        self._context = context
        self._idle: list[tuple[http.client.HTTPSConnection, float]] = []
        self._lock = threading.Lock()
        self._pid = os.getpid()

    def request(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: Sequence[memoryview] = (),
        limit: int = _PROBLEM_MAX,
    ) -> Answer:
        """One request; the body of the answer has at most `limit` bytes. Raises StoreError if it has more."""
        with self.opened(method, path, headers, body) as response:
            found = {name.lower(): text for name, text in response.getheaders()}
            good = 200 <= response.status < 300
            allowed = limit if good else _PROBLEM_MAX
            data = b"" if method == "HEAD" else response.read(allowed + 1)
            if len(data) > allowed and good:
                raise StoreError("the server sent more than was asked for", subject=self.host)
            if response.length and method != "HEAD" and len(data) <= allowed:
                raise _lost(self.host)
            return Answer(response.status, found, data[:allowed])

    @contextmanager
    def opened(
        self, method: str, path: str, headers: Mapping[str, str], body: Sequence[memoryview] = ()
    ) -> Iterator[http.client.HTTPResponse]:
        """The answer while it comes in. The connection is kept if it was read to its end."""
        connection, kept = None, False
        try:
            connection = self._taken() or self._connected()
            response = _exchanged(connection, method, path, headers, body)
            yield response
            kept = response.isclosed() and not response.will_close
        except (http.client.HTTPException, OSError) as error:
            raise self._translated(error) from error
        finally:
            if connection is not None:
                if kept:
                    self._keep(connection)
                else:
                    connection.close()

    def _connected(self) -> http.client.HTTPSConnection:
        connection = http.client.HTTPSConnection(self.host, self.port, timeout=_CONNECT_SECONDS, context=self._context)
        connection.connect()
        connection.sock.settimeout(SILENCE)
        return connection

    def _taken(self) -> http.client.HTTPSConnection | None:
        """A kept connection of this process that the server has not closed."""
        with self._lock:
            if self._pid != os.getpid():  # a forked child must not talk on what is its parent's
                self._pid, self._idle = os.getpid(), []
            while self._idle:
                connection, since = self._idle.pop()
                if time.monotonic() - since < _IDLE_SECONDS and not _has_word(connection.sock):
                    return connection
                connection.close()
        return None

    def _keep(self, connection: http.client.HTTPSConnection) -> None:
        with self._lock:
            if self._pid == os.getpid():
                self._idle.append((connection, time.monotonic()))

    def _translated(self, error: Exception) -> StoreError:
        if isinstance(error, ssl.SSLCertVerificationError):
            hint = "name the certificate of the authority that signed the server's; see lox help environment"
            return Refused("the server is not trusted", subject=self.host, why=error.verify_message, hint=hint)
        if isinstance(error, ssl.SSLError) and "VERSION" in (error.reason or ""):
            return Refused("the server does not speak TLS 1.3", subject=self.host)
        return _lost(self.host, "timed out" if isinstance(error, TimeoutError) else "no connection")


def _exchanged(
    connection: http.client.HTTPSConnection,
    method: str,
    path: str,
    headers: Mapping[str, str],
    body: Sequence[memoryview],
) -> http.client.HTTPResponse:
    connection.putrequest(method, path, skip_accept_encoding=True)
    for name, text in headers.items():
        connection.putheader(name, text)
    if body or method in ("PUT", "POST", "PATCH"):
        connection.putheader("Content-Length", str(sum(part.nbytes for part in body)))
    connection.endheaders()
    try:
        for part in body:
            for at in range(0, part.nbytes, _SLICE):
                connection.sock.sendall(part[at : at + _SLICE])
    except (ConnectionError, ssl.SSLError):
        # Who refuses without reading may have said why before hanging up.
        try:
            return connection.getresponse()
        except (http.client.HTTPException, OSError):
            pass
        raise
    return connection.getresponse()


def _has_word(sock: socket.socket) -> bool:
    """Whether something came on a connection on which nothing was asked: it can only be the end of it."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


def _lost(host: str, why: str = "the connection broke") -> Transient:
    return Transient("store failed", subject=host, why=why)


def json_of(answer: Answer) -> Any:
    """The JSON of a good answer. Raises StoreError for what is none."""
    try:
        return json.loads(answer.body)
    except (ValueError, RecursionError) as error:
        raise StoreError("the server answered something else than JSON") from error
