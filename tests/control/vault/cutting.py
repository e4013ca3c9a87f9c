"""A line between client and server that breaks: it carries bytes as they are, and counts them."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass(slots=True)
class Line:
    """`port` is where to connect. After `carries` more bytes towards the server the connection breaks, once."""

    port: int
    carries: int | None = None
    carried: int = 0
    broken: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def allows(self, size: int) -> bool:
        """Count bytes towards the server; whether the line holds."""
        with self.lock:
            self.carried += size
            if self.carries is None or self.carried < self.carries:
                return True
            self.carries, self.broken = None, self.broken + 1
            return False


@contextlib.contextmanager
def line_to(port: int) -> Iterator[Line]:
    """A line to a port of this host."""
    listener = socket.create_server(("127.0.0.1", 0))
    line = Line(listener.getsockname()[1])

    def accept() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=_serve, args=(client, port, line), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield line
    finally:
        listener.close()


def _serve(client: socket.socket, port: int, line: Line) -> None:
    try:
        server = socket.create_connection(("127.0.0.1", port))
    except OSError:
        client.close()
        return
    back = threading.Thread(target=_carry, args=(server, client, None), daemon=True)
    back.start()
    _carry(client, server, line)
    back.join()
    client.close()
    server.close()


def _carry(source: socket.socket, target: socket.socket, line: Line | None) -> None:
    try:
        while data := source.recv(64 << 10):
            if line is not None and not line.allows(len(data)):
                for each in (source, target):  # a reset, not an orderly end
                    each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    each.shutdown(socket.SHUT_RDWR)
                return
            target.sendall(data)
    except OSError:
        pass
    for each in (source, target):
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
