"""Where a tenant's message may go: the internet, and networks that the operator of the server allows.

A name is resolved once, and what is connected to is the address that was looked at: an answer of DNS that changes in
between gains nothing.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from urllib.parse import urlsplit

import psutil

from control.settings import ServerSettings
from model.addresses import Address, Network, address, is_public, is_within

RESOLVE_SECONDS = 10.0
POOL = ThreadPoolExecutor(12, "mail")  # of our own, as many as are sent and tried at a time
_NAMES = ThreadPoolExecutor(32, "names")  # a name server that does not answer holds a thread on after its time is over


class NotSent(Exception):
    """A message did not get there; its text says why, and holds no secret."""


@dataclass(frozen=True, slots=True)
class Guard:
    """`allowed`: networks of the operator's choice. `server`: the name of the server, which is no target either."""

    allowed: Collection[Network]
    server: str

    @classmethod
    def of(cls, settings: ServerSettings) -> Guard:
        """As the settings say."""
        return cls(settings.alert_networks, (urlsplit(settings.url).hostname or "").lower())

    async def addresses(self, host: str, port: int, *, plain: bool = False) -> list[Address]:
        """Addresses of `host` that may be connected to; `plain`: without TLS. Raises NotSent if there are none."""
        found = await _resolved(host, port)
        good = [one for one in found if self.may(one, host, plain=plain)]
        if not good:
            if plain and any(self.may(one, host) for one in found):
                raise NotSent(f"{host}: without TLS a message goes only to networks of the setting alert_networks")
            raise NotSent(f"{host} has no address in the internet, nor in the setting alert_networks")
        return good

    def may(self, one: Address, host: str = "", *, plain: bool = False) -> bool:
        """Whether `one`, which is of `host`, may be connected to."""
        if is_within(one, self.allowed):
            return True
        is_server = host.lower().rstrip(".") == self.server or one in own_addresses()
        return is_public(one) and not is_server and not plain


def own_addresses() -> set[Address]:
    """Those of this machine."""
    families = (socket.AF_INET, socket.AF_INET6)
    cards = psutil.net_if_addrs().values()
    return {address(one.address) for card in cards for one in card if one.family in families}


async def _resolved(host: str, port: int) -> list[Address]:
    try:
        async with asyncio.timeout(RESOLVE_SECONDS):
            ask = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
            found = await asyncio.get_running_loop().run_in_executor(_NAMES, ask)
    except TimeoutError:
        raise NotSent(f"{host}: its address was not found in {RESOLVE_SECONDS:.0f} s") from None
    except (OSError, UnicodeError) as error:
        raise NotSent(f"{host}: {getattr(error, 'strerror', None) or 'this is no name of a host'}") from None
    return list(dict.fromkeys(address(str(one[4][0])) for one in found))
