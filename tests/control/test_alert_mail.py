"""Mail servers that mean no good."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import threading
import time
from uuid import uuid4

import pytest

from control.alerts import mail
from control.alerts.guard import POOL, Guard, NotSent

CONTENT = {
    "type": "test", "tenant": {"name": "T"}, "server": "https://lox.example.org", "alerts": [], "total": 0,
}  # fmt: skip


def _drip(listener: socket.socket, begin: bytes, ended: threading.Event) -> None:
    """One letter after the other, as long as somebody listens."""
    connection, _ = listener.accept()
    with connection:
        try:
            connection.sendall(begin)
            while True:
                time.sleep(0.1)
                connection.sendall(b"\x00")
        except OSError:
            ended.set()


@pytest.mark.parametrize(
    ("security", "begin"),
    [("tls", b"\x16\x03\x03\x3f\xff\x02\x00\x3f\xfb"), ("none", b"220-"), ("starttls", b"220-")],
    ids=["within a handshake", "within a greeting", "before a handshake"],
)
def test_one_that_answers_a_letter_at_a_time_holds_nobody(
    security: str, begin: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mail, "SECONDS", 3.0)
    monkeypatch.setattr(mail, "STEP_SECONDS", 120.0)  # it is not this that ends it
    guard, ended = Guard([ipaddress.ip_network("127.0.0.1/32")], "lox.example.org"), threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_drip, args=(listener, begin, ended), daemon=True).start()
        fields = {
            "host": "127.0.0.1", "port": listener.getsockname()[1], "security": security, "username": None,
            "sender": "lox@example.org", "recipients": ["ops@example.org"],
        }  # fmt: skip
        with pytest.raises(NotSent, match="did not take the mail"):
            asyncio.run(mail.send(guard, fields, {}, uuid4(), CONTENT))
        assert ended.wait(30), "its connection is closed"


def test_slow_mail_servers_keep_no_name_from_being_found() -> None:
    """One that is not found in time is an attempt that failed, although nothing is wrong with it."""
    answered, guard = threading.Event(), Guard([ipaddress.ip_network("127.0.0.0/8")], "lox.example.org")

    async def crowd() -> None:
        loop = asyncio.get_running_loop()
        slow = [loop.run_in_executor(POOL, answered.wait) for _ in range(20)]
        try:
            assert await guard.addresses("127.0.0.1", 443) == [ipaddress.ip_address("127.0.0.1")]
        finally:
            answered.set()
            await asyncio.gather(*slow)

    asyncio.run(crowd())
