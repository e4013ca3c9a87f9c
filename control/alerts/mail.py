"""Mail: by an SMTP server that was looked at, over TLS, in a thread that ends in time."""

from __future__ import annotations

import asyncio
import smtplib
import socket
import ssl
import threading
from collections.abc import Sequence
from contextlib import suppress
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from typing import Any
from uuid import UUID

from control.alerts.content import headline, text_of
from control.alerts.guard import POOL, Guard, NotSent
from control.db.base import now
from model.addresses import Address

SECONDS = 30.0  # for all of it
STEP_SECONDS = 15.0  # for one answer
CONNECT_SECONDS = 7.0  # to one address


class _Client(smtplib.SMTP):
    """Talks over a connection that there is already; `host` is the name that certificates must have."""

    def __init__(self, connection: socket.socket, host: str, greeted: str) -> None:
        super().__init__(timeout=STEP_SECONDS, local_hostname=greeted)
        self._host, self.sock, self.file = host, connection, None
        code, message = self.getreply()
        if code != 220:
            raise smtplib.SMTPConnectError(code, message)


class _Held:
    """The connections of one thread, which wakes up and ends when they do: nobody holds it by answering slowly."""

    def __init__(self) -> None:
        self._connections: list[socket.socket] = []
        self._ended = False
        self._lock = threading.Lock()

    def add(self, connection: socket.socket) -> None:
        """One more. Raises TimeoutError if they have ended."""
        with self._lock:
            self._connections.append(connection)
            ended = self._ended
        if ended:
            connection.close()
            raise TimeoutError

    def end(self) -> None:
        """From another thread."""
        with self._lock:
            self._ended = True
        for connection in self._connections:
            with suppress(OSError):  # it has ended, or is within another one
                connection.shutdown(socket.SHUT_RDWR)


class _HeldTls(ssl.SSLContext):
    """The default context; a handshake can be ended, too: `wrap_socket` of others takes the socket away before it."""

    def __new__(cls, held: _Held) -> _HeldTls:
        return super().__new__(cls, ssl.PROTOCOL_TLS_CLIENT)

    def __init__(self, held: _Held) -> None:
        self._held = held
        self.load_default_certs()

    def wrap_socket(self, sock: socket.socket, *, server_hostname: str) -> ssl.SSLSocket:  # type: ignore[override]
        connection = super().wrap_socket(sock, server_hostname=server_hostname, do_handshake_on_connect=False)
        self._held.add(connection)
        connection.do_handshake()
        return connection


async def send(guard: Guard, fields: dict[str, Any], kept: dict[str, Any], uuid: UUID, content: dict[str, Any]) -> str:
    """Sends it to all recipients. Returns what the mail server said. Raises NotSent."""
    plain = fields["security"] == "none"
    addresses = await guard.addresses(fields["host"], fields["port"], plain=plain)
    held = _Held()
    mail = _mail(fields, uuid, content)
    work = asyncio.get_running_loop().run_in_executor(POOL, _deliver, held, addresses, fields, kept, mail)
    try:
        done, _ = await asyncio.wait([work], timeout=SECONDS)
    finally:
        if not work.done():
            held.end()
            work.cancel()
    if not done:
        raise NotSent(f"{fields['host']} did not take the mail in {SECONDS:.0f} s")
    return work.result()


def _mail(fields: dict[str, Any], uuid: UUID, content: dict[str, Any]) -> EmailMessage:
    mail = EmailMessage(policy=SMTP)
    mail["From"], mail["To"] = fields["sender"], ", ".join(fields["recipients"])
    mail["Subject"] = f"[LOX Backup] {headline(content)}"
    mail["Date"] = format_datetime(now())
    mail["Message-ID"] = f"<{uuid}@{fields['sender'].rpartition('@')[2]}>"
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(text_of(content))
    return mail


def _deliver(
    held: _Held, addresses: Sequence[Address], fields: dict[str, Any], kept: dict[str, Any], mail: EmailMessage
) -> str:
    host = fields["host"]
    try:
        connection = _connected(held, addresses, fields)
        client = _Client(connection, host, fields["sender"].rpartition("@")[2])
        try:
            client.ehlo()
            if fields["security"] == "starttls":
                client.starttls(context=_HeldTls(held))
                client.ehlo()
            if fields["username"] is not None:
                client.login(fields["username"], kept["password"])
            refused = client.send_message(mail)
        finally:
            client.close()
    except smtplib.SMTPNotSupportedError as error:
        raise NotSent(f"{host}: {_lower(str(error))}") from None
    except smtplib.SMTPResponseException as error:
        raise NotSent(f"{host} answered {error.smtp_code} {_said(error.smtp_error)}") from None
    except smtplib.SMTPRecipientsRefused as error:
        code, said = next(iter(error.recipients.values()))
        raise NotSent(f"{host} refused all recipients: {code} {_said(said)}") from None
    except ssl.SSLCertVerificationError:
        raise NotSent(f"{host}: its certificate is not trusted") from None
    except TimeoutError:
        raise NotSent(f"{host} did not answer in {STEP_SECONDS:.0f} s") from None
    except (smtplib.SMTPException, OSError, ValueError) as error:
        raise NotSent(f"{host}: {_lower(getattr(error, 'strerror', None) or str(error))}") from None
    left = f", but refused {', '.join(sorted(refused))}" if refused else ""
    return f"{host} took the mail{left}"


def _connected(held: _Held, addresses: Sequence[Address], fields: dict[str, Any]) -> socket.socket:
    last: OSError | None = None
    for one in addresses[:4]:
        try:
            connection = socket.create_connection((str(one), fields["port"]), CONNECT_SECONDS)
            connection.settimeout(STEP_SECONDS)
        except OSError as error:
            last = error
            continue
        held.add(connection)
        if fields["security"] == "tls":
            return _HeldTls(held).wrap_socket(connection, server_hostname=fields["host"])
        return connection
    assert last is not None
    raise last


def _said(text: bytes | str) -> str:
    decoded = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    return "".join(letter if letter.isprintable() else " " for letter in decoded)[:200]


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:200]
