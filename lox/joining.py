"""The options of a run on many hosts: which Ray cluster to join, and how."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

from lox.settings import option, stacked
from model.errors import UsageError

if TYPE_CHECKING:
    from pipelines.options import EngineOptions

CLUSTER_SECTION = "Many hosts (docs/cluster.md)"
NAME_MAX = 200  # characters of the name of a host in a snapshot
CARRIED = ("LOX_LIMIT_UPLOAD", "LOX_LIMIT_DOWNLOAD")  # settings of this process that hold for its lanes elsewhere


def cluster_options(function: Callable[..., Any]) -> Any:
    """Adds --hosts for the command, and --ray-address, --ray-token, --ray-tls and --ray-port for `joined`."""
    return stacked(
        option("--hosts", metavar="NAME,...", default="", section=CLUSTER_SECTION,
               help="Back up PATHs of each of these hosts of the cluster, which have files of their own."),
        option("--ray-address", metavar="HOST:PORT", section=CLUSTER_SECTION,
               help="With --executor ray: join this cluster, of which this host is one. [env: LOX_RAY_ADDRESS]"),
        option("--ray-token", metavar="FILE", section=CLUSTER_SECTION,
               help="The token of the cluster. [env: LOX_RAY_TOKEN]"),
        option("--ray-tls", metavar="DIR|off", section=CLUSTER_SECTION,
               help="ca.crt, node.crt and node.key; off if the network itself is encrypted. [env: LOX_RAY_TLS]"),
        option("--ray-port", type=click.IntRange(0, 65535), default=0, section=CLUSTER_SECTION, metavar="PORT",
               help="Where lanes on other hosts reach this process. [default: any free one]"),
    )(function)  # fmt: skip


def joined(engine: EngineOptions, asked: Mapping[str, Any]) -> EngineOptions:
    """`engine` with the cluster of the options, or of the environment if Ray is asked for. Raises UsageError."""
    from dataclasses import replace

    address = asked["ray_address"]
    if engine.executor != "ray":
        if address:
            raise UsageError("--ray-address is for Ray", subject=engine.executor, hint="add --executor ray")
        return engine
    if not (address := address or os.environ.get("LOX_RAY_ADDRESS", "")):
        return engine
    from runtime.joining import ClusterOptions

    token = asked["ray_token"] or os.environ.get("LOX_RAY_TOKEN", "")
    tls = asked["ray_tls"] or os.environ.get("LOX_RAY_TLS", "")
    return replace(engine, cluster=ClusterOptions(address, token, tls, asked["ray_port"], lane_environment))


def group_of(hosts: str, host: str | None) -> tuple[tuple[str, ...], str]:
    """The hosts of --hosts, sorted, and the name of all of them together: that of --host, or theirs joined.

    Raises UsageError.
    """
    names = tuple(sorted(name.strip() for name in hosts.split(",")))
    if "" in names or len(set(names)) < len(names):
        raise UsageError("--hosts names each host once", subject=hosts, hint="write --hosts nas1,nas2")
    if host in names:
        raise UsageError("several hosts have the name of one of them", subject=host, hint="choose another --host")
    if host is None and len("+".join(names)) > NAME_MAX:
        raise UsageError("so many hosts need a name of their own", hint="write --host NAME")
    return names, host or "+".join(names)


def lane_environment(lanes: int) -> Mapping[str, str]:
    """What lanes on other hosts must know of the environment of this process: the limits, and how many share them."""
    found = {name: os.environ[name] for name in CARRIED if name in os.environ}
    return found | {"LOX_LIMIT_SHARE": str(lanes + 1)} if found else {}
