"""How a cluster is reached."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from model.errors import UsageError

NO_TLS = "off"


@dataclass(frozen=True, slots=True)
class ClusterOptions:
    """A Ray cluster to join.

    `address` is HOST:PORT of its head. `token_file` holds the token of the cluster. `tls` is a directory with ca.crt,
    node.crt and node.key; ``off`` says that the network itself is encrypted; empty is enough on the loopback only.
    `port` is where lanes reach this process, 0 for any. `lane_environment` is called with the number of lanes: what it
    returns is in the environment of each of them.
    """

    address: str
    token_file: str
    tls: str = ""
    port: int = 0
    lane_environment: Callable[[int], Mapping[str, str]] = field(default=lambda lanes: {}, repr=False)

    def __post_init__(self) -> None:
        host, port = self.endpoint
        if not host or not 0 < port < 1 << 16:
            raise UsageError("not an address of a cluster", subject=self.address, hint="write HOST:PORT, of its head")
        if not self.token_file:
            raise UsageError(
                "a cluster is joined with its token",
                subject=self.address,
                why="no token file is named",
                hint="--ray-token FILE or LOX_RAY_TOKEN; docs/cluster.md tells how to make one",
            )
        if not self.tls and not self.on_loopback:
            raise UsageError(
                "the cluster would be reached over a network in the clear",
                subject=self.address,
                why="keys and file contents would cross it",
                hint="--ray-tls DIR; or --ray-tls off if the network itself is encrypted, as by WireGuard",
            )

    @property
    def endpoint(self) -> tuple[str, int]:
        """Host and port; port 0 if there is none."""
        host, _, port = self.address.rpartition(":")
        return host.strip("[]"), int(port) if port.isdecimal() and port.isascii() else 0

    @property
    def on_loopback(self) -> bool:
        """Whether nothing leaves this host."""
        return is_loopback(self.endpoint[0])


def is_loopback(host: str) -> bool:
    """Whether this name or address is of this host for certain."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
