"""Mail: by an SMTP server that was looked at, over TLS, in a thread that ends in time."""

from __future__ import annotations

import asyncio
import smtplib
import socket
import ssl
from collections.abc import Sequence
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


async def send(guard: Guard, fields: dict[str, Any], kept: dict[str, Any], uuid: UUID, content: dict[str, Any]) -> str:
    """Sends it to all recipients. Returns what the mail server said. Raises NotSent."""
    plain = fields["security"] == "none"
    addresses = await guard.addresses(fields["host"], fields["port"], plain=plain)
    held: list[socket.socket] = []
    mail = _mail(fields, uuid, content)
    work = asyncio.get_running_loop().run_in_executor(POOL, _deliver, held, addresses, fields, kept, mail)
    try:
        done, _ = await asyncio.wait([work], timeout=SECONDS)
    finally:
        if not work.done():
            for connection in held:  # the thread wakes up and ends: nobody holds it by answering slowly
                _shut(connection)
            work.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
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
    held: list[socket.socket], addresses: Sequence[Address], fields: dict[str, Any], kept: dict[str, Any],
    mail: EmailMessage,
) -> str:  # fmt: skip
    host = fields["host"]
    try:
        connection = _connected(held, addresses, fields)
        client = _Client(connection, host, fields["sender"].rpartition("@")[2])
        try:
            client.ehlo()
            if fields["security"] == "starttls":
                client.starttls(context=ssl.create_default_context())
                held.append(client.sock)  # type: ignore[arg-type]
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


def _connected(held: list[socket.socket], addresses: Sequence[Address], fields: dict[str, Any]) -> socket.socket:
    last: OSError | None = None
    for one in addresses[:4]:
        try:
            connection = socket.create_connection((str(one), fields["port"]), CONNECT_SECONDS)
            connection.settimeout(STEP_SECONDS)
        except OSError as error:
            last = error
            continue
        held.append(connection)
        if fields["security"] == "tls":
            connection = ssl.create_default_context().wrap_socket(connection, server_hostname=fields["host"])
            held.append(connection)
        return connection
    assert last is not None
    raise last


def _shut(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass


def _said(text: bytes | str) -> str:
    decoded = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    return "".join(letter if letter.isprintable() else " " for letter in decoded)[:200]


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:200]
