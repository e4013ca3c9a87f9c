"""A real HTTP proxy before a real server, that loses, cuts, exchanges and refuses as it is told.

with faulty_proxy(upstream_port) as proxy:
    proxy.rules.append(Rule("PUT", "packs/", lose_answer))
"""

from __future__ import annotations

import contextlib
import http.client
import re
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "te", "trailer", "upgrade"}


@dataclass(slots=True)
class Answer:
    """What the server behind says."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


@dataclass(slots=True)
class Request:
    """What the client asks; `forward` hands it on, with other headers if given."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    forward: Callable[[dict[str, str]], Answer]
    handler: BaseHTTPRequestHandler

    def hand_on(self, **headers: str | None) -> Answer:
        """Ask the server behind; a header of None is left out."""
        changed = {name: value for name, value in (self.headers | headers).items() if value is not None}
        return self.forward(changed)


Action = Callable[[Request], Answer | None]
"""Makes the answer; None: the connection ends without one."""


@dataclass(slots=True)
class Rule:
    """Requests of `method` (a pattern) whose path has `path` in it, after the first `skip`, `times` times."""

    method: str
    path: str
    action: Action
    skip: int = 0
    times: int = 1 << 62
    hits: int = 0


@dataclass(slots=True)
class Proxy:
    """The first rule that fits decides; without one a request goes through as it is."""

    port: int
    rules: list[Rule] = field(default_factory=list)
    requests: list[tuple[str, str]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def rule(self, method: str, path: str, action: Action, **more: int) -> Rule:
        """Add a rule before all others."""
        self.rules.insert(0, Rule(method, path, action, **more))
        return self.rules[0]

    def action(self, method: str, path: str) -> Action:
        """What to do with the next such request."""
        with self._lock:
            self.requests.append((method, path))
            for rule in self.rules:
                if not re.fullmatch(rule.method, method) or rule.path not in path or rule.times <= 0:
                    continue
                if rule.skip > 0:
                    rule.skip -= 1
                    continue
                rule.times -= 1
                rule.hits += 1
                return rule.action
        return Request.hand_on


def lose_answer(request: Request) -> None:
    """The server does it, and nobody learns."""
    request.hand_on()


def lose_request(request: Request) -> None:
    """The connection ends before the server hears of it."""


def refuse(status: int, code: str = "", **headers: str) -> Action:
    """An error of S3."""
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>as told</Message></Error>".encode()
    given = [(name.replace("_", "-"), value) for name, value in headers.items()]
    return lambda request: Answer(status, [("Content-Type", "application/xml"), *given], body)


def cut(request: Request) -> None:
    """Half of the body, though the header promises all of it."""
    answer = request.hand_on()
    _send_head(request.handler, answer)
    request.handler.wfile.write(answer.body[: len(answer.body) // 2])


def ignore_range(request: Request) -> Answer:
    """200 with all of the object instead of 206 with what was asked for."""
    return request.hand_on(range=None)


def shift_range(request: Request) -> Answer:
    """The right number of bytes from the wrong place, under the header of the right one."""
    begin, end = (int(part) for part in request.headers["range"].removeprefix("bytes=").split("-"))
    right = request.hand_on()
    wrong = request.hand_on(range=f"bytes={begin + 1}-{end + 1}")
    return Answer(right.status, right.headers, wrong.body.ljust(len(right.body), b"\0")[: len(right.body)])


def flip(request: Request) -> Answer:
    """One bit of the body is another."""
    answer = request.hand_on()
    body = bytearray(answer.body)
    body[len(body) // 2] ^= 1
    return Answer(answer.status, answer.headers, bytes(body))


def stall(release: threading.Event) -> Action:
    """Nothing is said until `release` is set."""

    def wait(request: Request) -> None:
        release.wait(60)

    return wait


@contextlib.contextmanager
def faulty_proxy(upstream: int) -> Iterator[Proxy]:
    """A proxy on a free port of this host before the server at port `upstream`."""
    proxy = Proxy(0)

    class Handler(_Handler):
        pass

    Handler.proxy, Handler.upstream = proxy, upstream
    server = _Server(("127.0.0.1", 0), Handler)
    proxy.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news here."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body are written apart: the second would wait 40 ms for an answer
    proxy: Proxy
    upstream: int

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items() if name.lower() not in HOP_BY_HOP}
        request = Request(self.command, self.path, headers, body, lambda changed: self._ask(body, changed), self)
        answer = self.proxy.action(self.command, self.path)(request)
        if answer is None:
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)
            return
        _send_head(self, answer)
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = _serve

    def _ask(self, body: bytes, headers: dict[str, str]) -> Answer:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.upstream, timeout=60)) as connection:
            connection.request(self.command, self.path, body or None, headers)
            answer = connection.getresponse()
            return Answer(answer.status, answer.getheaders(), answer.read())

    def log_message(self, *_: object) -> None:
        pass


def _send_head(handler: BaseHTTPRequestHandler, answer: Answer) -> None:
    handler.send_response(answer.status)
    length = len(answer.body)
    for name, value in answer.headers:
        if name.lower() == "content-length" and handler.command == "HEAD":
            length = int(value)
        if name.lower() not in HOP_BY_HOP and name.lower() not in ("date", "server"):
            handler.send_header(name, value)
    handler.send_header("Content-Length", str(length))
    handler.end_headers()
