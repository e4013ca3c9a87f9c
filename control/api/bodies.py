"""Bodies of answers, in pieces, and let go once they are sent.

Thousands of agents hold a connection open. For each of them OpenSSL keeps as much room as the largest thing written to
it at once, and aiohttp the last answer until the next request.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import BytesPayload

PIECE = 15 << 10  # bytes: with the head of the answer one record of TLS
SMALL = 2 << 10  # bytes that may stay
TAKE_SECONDS = 300.0  # that a connection stays whose other side takes nothing of what is sent


class _Pieces(BytesPayload):
    """Bytes that are not written at once, and only once."""

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        value, self._value = self._value, b""
        for piece in _pieces(memoryview(value)[:content_length]):
            await writer.write(piece)

    async def write(self, writer: AbstractStreamWriter) -> None:
        await self.write_with_length(writer, None)


def in_pieces(response: web.StreamResponse) -> None:
    """Have the body of an answer that is not sent yet written in pieces."""
    if isinstance(response, web.Response) and isinstance(response.body, bytes) and len(response.body) > SMALL:
        response.body = _Pieces(response.body, content_type=response.headers["Content-Type"])


async def write(response: web.StreamResponse, data: bytes) -> None:
    """Write `data` to a stream that has begun."""
    for piece in _pieces(memoryview(data)):
        await response.write(piece)


async def end_untaken(request: web.Request, response: web.StreamResponse) -> None:
    """The signal ``on_response_prepare``: who asks and does not read the answer does not hold it for ever.

    The system sees to that, where it can (Linux): it alone knows what was taken. Who is slow goes on.
    """
    option = getattr(socket, "TCP_USER_TIMEOUT", None)
    connection = request.get_extra_info("socket")
    if option is not None and connection is not None and connection.family != socket.AF_UNIX:
        connection.setsockopt(socket.IPPROTO_TCP, option, round(TAKE_SECONDS * 1000))


def _pieces(view: memoryview) -> Iterator[memoryview]:
    return (view[at : at + PIECE] for at in range(0, len(view), PIECE))
