"""Who is told of alerts, in tests: a web server and a mail server that keep what they get."""

from __future__ import annotations

import asyncio
import queue
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword

PATIENCE = 60.0  # seconds


@dataclass(frozen=True)
class Posted:
    """One request."""

    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """Answers with `statuses`, one after the other, and with 200 when they are used up. `hold` keeps it from that."""

    port: int = 0
    statuses: list[int] = field(default_factory=list)
    location: str = ""
    came: queue.Queue[Posted] = field(default_factory=queue.Queue)
    go: Event = field(default_factory=Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook/s3cret-path"

    def next(self) -> Posted:
        """What comes next. Raises queue.Empty if nothing does."""
        return self.came.get(timeout=PATIENCE)

    def until(self, wanted: Callable[[Posted], bool]) -> Posted:
        """The next that is as `wanted`; others are passed over."""
        while not wanted(found := self.next()):
            pass
        return found


@contextmanager
def web() -> Iterator[Receiver]:
    """A web server on a port of its own."""
    receiver = Receiver()
    receiver.go.set()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status = receiver.statuses.pop(0) if receiver.statuses else 200
            headers = {name.lower(): value for name, value in self.headers.items()}
            receiver.came.put(Posted(self.path, headers, body))
            receiver.go.wait(PATIENCE)
            try:
                self.send_response(status)
                if receiver.location:
                    self.send_header("Location", receiver.location)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")
            except OSError:  # who asked was killed
                pass

        do_GET = do_PUT = do_POST

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    receiver.port = server.server_address[1]
    thread = Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        receiver.go.set()
        server.shutdown()
        server.server_close()


@dataclass
class Mailbox:
    """A mail server that takes mail after STARTTLS from who knows the password. `wrong`: recipients it refuses."""

    port: int = 0
    login: tuple[str, str] = ("alerts", "s3cret-password")
    wrong: tuple[str, ...] = ()
    came: queue.Queue[EmailMessage] = field(default_factory=queue.Queue)

    def next(self) -> EmailMessage:
        """What comes next. Raises queue.Empty if nothing does."""
        return self.came.get(timeout=PATIENCE)

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:
        """As aiosmtpd calls it."""
        if address in self.wrong:
            return "550 nobody of that name"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        """As aiosmtpd calls it."""
        parsed = message_from_bytes(envelope.content, policy=policy.default)
        assert isinstance(parsed, EmailMessage)
        parsed["X-Envelope-To"] = ", ".join(envelope.rcpt_tos)
        self.came.put(parsed)
        return "250 taken"

    def check(self, server: Any, session: Any, envelope: Any, mechanism: str, given: Any) -> AuthResult:
        """As aiosmtpd calls it."""
        known = isinstance(given, LoginPassword) and (given.login.decode(), given.password.decode()) == self.login
        return AuthResult(success=known, handled=False)


@contextmanager
def mail(certificate: Path, key: Path) -> Iterator[Mailbox]:
    """A mail server at 127.0.0.1 on a port of its own."""
    box, context = Mailbox(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    loop = asyncio.new_event_loop()

    def session() -> SMTP:
        return SMTP(
            box, hostname="127.0.0.1", tls_context=context, require_starttls=True, auth_required=True,
            authenticator=box.check, loop=loop,
        )  # fmt: skip

    server = loop.run_until_complete(loop.create_server(session, "127.0.0.1", 0))
    box.port = server.sockets[0].getsockname()[1]
    thread = Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield box
    finally:
        loop.call_soon_threadsafe(server.close)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
