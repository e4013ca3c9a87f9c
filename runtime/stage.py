"""What a stage is, what it is given, and what stands at both ends of a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

In = TypeVar("In")
Out = TypeVar("Out")
Item = TypeVar("Item", contravariant=True)


class StopSignal(Protocol):
    """The part of `threading.Event` a run needs. Set: the user wants out, or the run has failed."""

    def is_set(self) -> bool: ...


class NeverStop:
    """A `StopSignal` for runs nobody interrupts."""

    def is_set(self) -> bool:
        return False


@dataclass(frozen=True, slots=True)
class Context:
    """What a stage finds on the worker it is opened on.

    `lane_name` is unique in a run, restarts included ("backup-0#2" is the second life of lane 0), so it can own
    claims. A stage that waits for something polls `stop` meanwhile.
    """

    services: Mapping[str, Any]
    lane: int
    lane_name: str
    stop: StopSignal


class Stage(Generic[In, Out]):
    """One verb of a graph. The constructor takes configuration only and pickles; `open` makes the resources.

    Every lane works on a shallow copy of its own. An item is valid until the call that received it returns; an
    output is consumed before the generator that yielded it goes on, so buffers can be reused between outputs.
    """

    name: str = ""  # the name in the plan; set before open

    def open(self, context: Context) -> None:
        """Make what the work needs: codecs, buffers, handles of services."""

    def push(self, item: In) -> Iterable[Out]:
        """Take one item; give any number of outputs."""
        raise NotImplementedError

    def flush(self) -> Iterable[Out]:
        """Give everything held back, in bounded items. Happens at the end and also between pushes."""
        return ()

    def close(self) -> None:
        """Let go of what `open` made. Called once after a successful open, after failures too."""


class Sink(Protocol[Item]):
    """Where the outputs of the last stage arrive, always in the caller's thread.

    Fed items are numbered 0, 1, 2, ... : their tickets. The engine keeps an item until its ticket is acknowledged.
    """

    def push(self, item: Item) -> Iterable[int]:
        """Take one output; return the tickets that are now done for good. Outputs of replayed items may repeat."""
        ...

    def lost(self, lane_name: str) -> None:
        """What this lane had under way is gone; its items are replayed after this call.

        The lane is dead, or what it had handed on died with a lane after it (then it lives on under its name).
        """
        ...


def nbytes_of(item: object) -> int:
    """The default measure of an item for the trace: its `nbytes`, or 0."""
    size = getattr(item, "nbytes", 0)
    return size if isinstance(size, int) else 0


def memory_of(item: object) -> int:
    """Bytes of memory an item takes while it waits between strands: its `memory`, or else what `nbytes_of` says."""
    size = getattr(item, "memory", None)
    return size if isinstance(size, int) else nbytes_of(item)


def detached(item: Any) -> Any:
    """The item, free of buffers that its stage is going to reuse."""
    detach = getattr(item, "detach", None)
    return item if detach is None else detach()
