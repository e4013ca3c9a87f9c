"""Which addresses of a network are those of everybody, and which lead to places behind the one who connects.

A URL that somebody else wrote must not make a server or a host ask its own services, those of its network, or the one
at 169.254.169.254 that hands out credentials of a cloud.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_TRANSLATED = (IPv6Network("64:ff9b::/96"), IPv6Network("64:ff9b:1::/48"))  # NAT64: the last 32 bits are IPv4
_COMPATIBLE = IPv6Network("::/96")  # IPv4 in IPv6 as it was meant first


def address(text: str) -> Address:
    """The address that `text` writes, without a zone. Raises ValueError."""
    return ip_address(text.partition("%")[0])


def network(text: str) -> Network:
    """``10.0.0.0/8``, or one address. Raises ValueError."""
    return ip_network(text.strip(), strict=False)


def inner(given: Address) -> Address:
    """The IPv4 address that an IPv6 one only wraps; else `given`."""
    if isinstance(given, IPv4Address):
        return given
    wrapped = given.ipv4_mapped or given.sixtofour or (given.teredo[1] if given.teredo else None)
    if wrapped is None and any(given in net for net in (*_TRANSLATED, _COMPATIBLE)) and int(given) > 1:
        wrapped = IPv4Address(int(given) & 0xFFFF_FFFF)
    return wrapped or given


def is_public(given: Address) -> bool:
    """Whether it is an address of the internet, whose owner is somebody else."""
    real = inner(given)
    return real.is_global and not real.is_multicast and not real.is_reserved


def is_own(given: Address) -> bool:
    """Whether it leads to the host itself, to its link, or to nobody in particular; networks of a site do not count."""
    real = inner(given)
    return (
        real.is_loopback or real.is_link_local or real.is_multicast or real.is_unspecified or real.is_reserved
        or real == IPv4Address("168.63.129.16")  # the service of a cloud that looks public
        or real == IPv6Address("fd00:ec2::254")  # and one that looks like a site's
    )  # fmt: skip


def is_within(given: Address, networks: Iterable[Network]) -> bool:
    """Whether one of `networks` holds it, or the IPv4 address that it wraps."""
    return any(one in net for net in networks for one in (given, inner(given)) if one.version == net.version)
