"""The options of a run on many hosts: which Ray cluster to join, and which of its hosts get which stages."""

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
CARRIED = ("LOX_LIMIT_UPLOAD", "LOX_LIMIT_DOWNLOAD")  # settings of this process that hold for its lanes elsewhere


def cluster_options(function: Callable[..., Any]) -> Any:
    """Adds --ray-address, --ray-token, --ray-tls, --ray-port and --place, for `joined`."""
    return stacked(
        option("--ray-address", metavar="HOST:PORT", section=CLUSTER_SECTION,
               help="With --executor ray: join this cluster, of which this host is one. [env: LOX_RAY_ADDRESS]"),
        option("--ray-token", metavar="FILE", section=CLUSTER_SECTION,
               help="The token of the cluster. [env: LOX_RAY_TOKEN]"),
        option("--ray-tls", metavar="DIR|off", section=CLUSTER_SECTION,
               help="ca.crt, node.crt and node.key; off if the network itself is encrypted. [env: LOX_RAY_TLS]"),
        option("--ray-port", type=click.IntRange(0, 65535), default=0, section=CLUSTER_SECTION, metavar="PORT",
               help="Where lanes on other hosts reach this process. [default: any free one]"),
        option("--place", multiple=True, metavar="[STAGE:]KEY=VALUE", section=CLUSTER_SECTION,
               help="Only on hosts with this label, from this stage on; may be repeated."),
    )(function)  # fmt: skip


def joined(engine: EngineOptions, asked: Mapping[str, Any]) -> EngineOptions:
    """`engine` with the cluster of the options, or of the environment if Ray is asked for. Raises UsageError."""
    from dataclasses import replace

    address, place = asked["ray_address"], asked["place"]
    if engine.executor != "ray":
        if address or place:
            wrong = "--ray-address" if address else "--place"
            raise UsageError(f"{wrong} is for Ray", subject=engine.executor, hint="add --executor ray")
        return engine
    address = address or os.environ.get("LOX_RAY_ADDRESS", "")
    if not address:
        if place:
            raise UsageError("--place chooses hosts of a cluster", hint="--ray-address HOST:PORT names one")
        return engine
    from runtime.placement import ClusterOptions

    cluster = ClusterOptions(
        address,
        asked["ray_token"] or os.environ.get("LOX_RAY_TOKEN", ""),
        asked["ray_tls"] or os.environ.get("LOX_RAY_TLS", ""),
        asked["ray_port"],
        lane_environment,
    )
    placement = dict(engine.placement)
    for stage, labels in placed(place).items():
        placement[stage] = {**placement.get(stage, {}), **labels}
    return replace(engine, cluster=cluster, placement=placement)


def lane_environment(lanes: int) -> Mapping[str, str]:
    """What lanes on other hosts must know of the environment of this process: the limits, and how many share them."""
    found = {name: os.environ[name] for name in CARRIED if name in os.environ}
    return found | {"LOX_LIMIT_SHARE": str(lanes + 1)} if found else {}


def placed(wishes: tuple[str, ...]) -> dict[str, dict[str, str]]:
    """``upload:net=wan`` and ``fs=nas`` as labels by stage. Raises UsageError."""
    from runtime.placement import ALL

    found: dict[str, dict[str, str]] = {}
    for wish in wishes:
        stage, colon, label = wish.rpartition(":")
        key, equals, value = label.partition("=")
        if not key or not equals or not value or (colon and not stage):
            raise UsageError("not a label of hosts", subject=wish, hint="KEY=VALUE, or STAGE:KEY=VALUE")
        if found.setdefault(stage or ALL, {}).setdefault(key, value) != value:
            raise UsageError("two values for one label", subject=wish, hint="a host has one value for each label")
    return found
