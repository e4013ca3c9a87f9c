"""Metrics over HTTP, for Prometheus to scrape while something runs. There is no password: who may connect may read."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Protocol

from model.errors import UsageError

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

LOOPBACK = "127.0.0.1"
_PLACE = re.compile(r"(?:(?P<host>\[[0-9a-fA-F:.%]+\]|[^\[\]:\s]*):)?(?P<port>\d{1,5})", re.ASCII)


def parse_listen(text: str) -> tuple[str, int]:
    """``HOST:PORT``, ``[::1]:PORT``, or ``PORT`` on this host only; port 0 is any that is free. Raises UsageError."""
    match = _PLACE.fullmatch(text.strip())
    if match is None or int(match["port"]) > 65535:
        hint = "write HOST:PORT, or only PORT for connections from this host"
        raise UsageError("not a place to listen", subject=text, hint=hint)
    return (match["host"] or LOOPBACK).strip("[]"), int(match["port"])


class Served(Protocol):
    """What has metrics."""

    def registry(self) -> CollectorRegistry: ...


class Endpoint:
    """Serves `values` at `url` until it is closed. Raises OSError if the place is taken or not of this host."""

    def __init__(self, values: Served, host: str, port: int) -> None:
        from prometheus_client import start_http_server

        self._server, self._thread = start_http_server(port, host, values.registry())
        self.port: int = self._server.server_port
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{self.port}/metrics"

    def close(self) -> None:
        """Let go of the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
