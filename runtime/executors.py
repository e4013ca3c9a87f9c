"""Choosing an executor, opening it, hosting what lanes share, running a plan on it."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from types import MappingProxyType
from typing import Any, Literal, Protocol

from model.errors import PlanError, UsageError
from runtime.drive import Control, Drive
from runtime.hands import Hands
from runtime.inline import InlineHands
from runtime.plan import Plan, fuse
from runtime.stage import NeverStop, Sink, StopSignal
from runtime.threads import ThreadHands
from runtime.trace import Trace

ExecutorName = Literal["inline", "threads", "ray"]
NAMES = ("auto", "inline", "threads", "ray")


class Executor(Protocol):
    """Somewhere to run plans. Made by `open_executor`; services live until it is closed."""

    name: ExecutorName

    @property
    def private_directory(self) -> str | None:
        """A 0700 directory that lives as long as the executor, for secrets that lanes in other processes read by
        path. None if lanes share this process and need no such thing.
        """
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


class LocalExecutor:
    """Lanes in this process: in the caller's thread or on threads."""

    def __init__(self, name: Literal["inline", "threads"]) -> None:
        self.name: ExecutorName = name
        self.private_directory: str | None = None
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
def open_executor(executor: str = "auto") -> Iterator[Executor]:
    """An executor by name; closed, with all it started, at the end."""
    name, _ = choose(executor)
    if name != "ray":
        yield LocalExecutor(name)
        return
    from runtime.cluster import open_ray  # the only module that needs Ray, and slow to import

    opened: AbstractContextManager[Executor] = open_ray()
    with opened as ray:
        yield ray


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
