"""Ports for servers that tests start."""

from __future__ import annotations

import random
import socket
from pathlib import Path

_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_LOWEST = 10_000
_TRIES = 1000


def free_port() -> int:
    """A port of 127.0.0.1 on which nobody listens, and which the kernel gives to no connection that goes out.

    One of those that the kernel gives may be taken by any connection before the server listens, or while it restarts.
    """
    end = int(_RANGE.read_text().split()[0]) if _RANGE.exists() else 32_768
    for _ in range(_TRIES):
        port = random.SystemRandom().randrange(_LOWEST, end)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise AssertionError("no port is free")
