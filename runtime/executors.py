"""Choosing an executor, opening it, hosting what lanes share, running a plan on it."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from types import MappingProxyType
from typing import Any, Literal, Protocol

from model.errors import PlanError, UsageError
from runtime.drive import Control, Drive
from runtime.errands import Errand, ErrandControl
from runtime.hands import Hands
from runtime.inline import InlineHands
from runtime.joining import ClusterOptions
from runtime.plan import Plan, fuse
from runtime.private import Secret
from runtime.stage import NeverStop, Sink, StopSignal
from runtime.threads import ThreadHands
from runtime.trace import Trace

ExecutorName = Literal["inline", "threads", "ray"]
NAMES = ("auto", "inline", "threads", "ray")


class Executor(Protocol):
    """Somewhere to run plans. Made by `open_executor`; services live until it is closed."""

    name: ExecutorName

    @property
    def keep(self) -> Callable[[bytes], Secret] | None:
        """Makes a secret that may go to lanes: it lives as long as the executor, and what pickles of it is where to
        find it. None if lanes share this process and need no such thing.
        """
        ...

    @property
    def cpus(self) -> Sequence[int]:
        """The processors of each host of a cluster that may have lanes; empty if all lanes are on this host."""
        ...

    def host(self, services: Mapping[str, Any]) -> None:
        """Let the stages of all lanes call these objects, which stay here and must be safe to share between threads.

        Stages find them in `Context.services`: themselves, or from another process something that looks like them,
        of which each method call waits for its result; arguments and results must pickle.
        """
        ...

    def run(
        self,
        plan: Plan,
        feed: Iterable[Any],
        sink: Sink[Any],
        control: Control | None = None,
    ) -> Trace:
        """Run a plan to its end. Raises RunFailed (cause: what the stage raised), Interrupted, and what feed or sink
        raise.
        """
        ...


class HostsExecutor(Executor, Protocol):
    """An executor on a cluster that can also send each of its hosts on an errand. Made by `open_hosts`."""

    def run_errands(self, errands: Mapping[str, Errand], control: ErrandControl) -> tuple[dict[str, Any], int]:
        """Run the errand of each host there; what came of each, and how many processes died meanwhile.

        Raises RunFailed, which names the host (cause: what its errand raised); Interrupted.
        """
        ...


class LocalExecutor:
    """Lanes in this process: in the caller's thread or on threads."""

    def __init__(self, name: Literal["inline", "threads"]) -> None:
        self.name: ExecutorName = name
        self.keep: Callable[[bytes], Secret] | None = None
        self.cpus: Sequence[int] = ()
        self._services: dict[str, Any] = {}

    def host(self, services: Mapping[str, Any]) -> None:
        self._services.update(services)

    def run(
        self,
        plan: Plan,
        feed: Iterable[Any],
        sink: Sink[Any],
        control: Control | None = None,
    ) -> Trace:
        drive = Drive(plan, fuse(plan), sink, control or Control(), self.name)
        services = MappingProxyType(self._services)
        hands: Hands = InlineHands(drive, services) if self.name == "inline" else ThreadHands(drive, services)
        return drive.run(feed, hands)


def choose(executor: str) -> tuple[ExecutorName, str]:
    """The executor to use for this wish, and why. UsageError for an unknown name, PlanError if Ray is missing."""
    if executor == "auto":
        cores = len(os.sched_getaffinity(0))
        return "threads", f"one host ({cores} core{'s' * (cores != 1)}): threads start at once and share memory"
    if executor == "inline":
        return "inline", "asked for: one step after the other in one thread"
    if executor == "threads":
        return "threads", "asked for"
    if executor == "ray":
        if importlib.util.find_spec("ray") is None:
            raise PlanError("the Ray executor needs Ray", hint="install the ray extra, or use --executor threads")
        return "ray", "asked for: a process per lane, started in about 3 seconds"
    raise UsageError("no such executor", subject=executor, hint=f"one of {', '.join(NAMES)}")


@contextmanager
def open_executor(
    executor: str = "auto", cluster: ClusterOptions | None = None, placements: Sequence[Mapping[str, str]] = ()
) -> Iterator[Executor]:
    """An executor by name; closed, with all it started, at the end.

    With `cluster` Ray is not started but joined there, and hosts that have one of `placements` are let in (none: all).
    Raises UsageError, PlanError, ConfigError; RunFailed if Ray does not start or cannot be joined.
    """
    name, _ = choose(executor)
    if cluster is not None and name != "ray":
        raise UsageError("only Ray runs on many hosts", subject=executor, hint="--executor ray")
    if name != "ray":
        yield LocalExecutor(name)
        return
    from runtime import cluster as ray_module  # the only module that needs Ray, and slow to import

    opened: AbstractContextManager[Executor]
    opened = ray_module.open_ray() if cluster is None else ray_module.open_cluster(cluster, placements)
    with opened as ray:
        yield ray


@contextmanager
def open_hosts(cluster: ClusterOptions, hosts: Sequence[str]) -> Iterator[HostsExecutor]:
    """The executor on these hosts of a cluster, by name. Raises RunFailed if one of them is not there, ConfigError."""
    choose("ray")
    from runtime import cluster as ray_module

    with ray_module.open_cluster(cluster, hosts=hosts) as executor:
        yield executor


def run(
    plan: Plan,
    feed: Iterable[Any],
    sink: Sink[Any],
    *,
    executor: str = "auto",
    services: Mapping[str, Any] = MappingProxyType({}),
    stop: StopSignal | None = None,
    window: int | None = None,
    on_tick: Callable[[Trace], None] | None = None,
) -> Trace:
    """Open an executor, host the services, run the plan, close. For callers that need the services themselves:
    `open_executor`.
    """
    with open_executor(executor) as opened:
        opened.host(services)
        control = Control(stop=stop or NeverStop(), window=window, on_tick=on_tick)
        return opened.run(plan, feed, sink, control)
