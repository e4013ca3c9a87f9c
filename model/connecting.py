"""Connections by aiohttp to addresses that somebody looked at first, whatever DNS says by then."""

from __future__ import annotations

import socket
from collections.abc import Iterable

from aiohttp.abc import AbstractResolver, ResolveResult

from model.addresses import Address


class Only(AbstractResolver):
    """For ``aiohttp.TCPConnector(resolver=...)``: every name has these addresses, and is asked of nobody."""

    def __init__(self, addresses: Iterable[Address]) -> None:
        self._addresses = list(addresses)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """As aiohttp calls it."""
        return [
            ResolveResult(
                hostname=host, host=str(one), port=port, proto=0, flags=socket.AI_NUMERICHOST,
                family=socket.AF_INET if one.version == 4 else socket.AF_INET6,
            )
            for one in self._addresses
        ]  # fmt: skip

    async def close(self) -> None:
        """Nothing is held."""
