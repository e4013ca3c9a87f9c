"""What systemd wants to hear: that a daemon is ready, what it does, and that it still lives."""

from __future__ import annotations

import os
import socket


def notify(*lines: str) -> bool:
    """Send lines as sd_notify(3) does, ``READY=1`` for example; False if nobody asked for them."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.sendto("\n".join(lines).encode(), address)
    except OSError:
        return False
    return True


def watchdog_seconds() -> float | None:
    """How often the watchdog wants to hear of this process: half of what it allows; None if there is no watchdog."""
    try:
        microseconds = int(os.environ.get("WATCHDOG_USEC", ""))
        ours = int(os.environ.get("WATCHDOG_PID", os.getpid())) == os.getpid()
    except ValueError:
        return None
    return microseconds / 2e6 if ours and microseconds > 0 else None
