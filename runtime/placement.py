"""Which hosts of a cluster may run which stages, and how a cluster is reached. Data only: `hosts` does the placing."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from model.errors import PlanError, UsageError
from runtime.plan import Plan, Strand

ALL = "*"  # the stages of which nothing else is said

Labels = Mapping[str, str]  # what a host must be labelled with, all of it
Placement = Mapping[str, Labels]  # by stage name, or `ALL`

NOWHERE_IN_PARTICULAR: Placement = MappingProxyType({})
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


def checked(placement: Placement, plan: Plan) -> Placement:
    """`placement`, if all its stages are in the plan. Raises PlanError."""
    names = [node.name for node in plan.nodes]
    if unknown := sorted(set(placement) - {ALL, *names}):
        raise PlanError("no such stage to place", subject=", ".join(unknown), hint=f"one of {', '.join(names)}")
    return placement


def labels_by_stage(plan: Plan, placement: Placement) -> dict[str, Labels]:
    """What the hosts of each stage must be labelled with: a stage of which nothing is said goes where the one before
    it goes, so that bytes stay on their host."""
    current = placement.get(ALL, {})
    found: dict[str, Labels] = {}
    for node in plan.nodes:
        current = found[node.name] = placement.get(node.name, current)
    return found


def cuts_of(plan: Plan, placement: Placement) -> set[str]:
    """Stages that begin a strand of their own because the one before them may be on another host."""
    labels = labels_by_stage(plan, placement)
    pairs = zip(plan.nodes, plan.nodes[1:], strict=False)
    return {after.name for before, after in pairs if labels[before.name] != labels[after.name]}


def labels_of(strands: Sequence[Strand], plan: Plan, placement: Placement) -> list[Labels]:
    """The labels of each strand, once it is cut by `cuts_of`."""
    labels = labels_by_stage(plan, placement)
    return [labels[strand.nodes[0].name] for strand in strands]


def shown(labels: Labels) -> str:
    """For messages."""
    return ", ".join(f"{key}={value}" for key, value in sorted(labels.items())) or "any host"
