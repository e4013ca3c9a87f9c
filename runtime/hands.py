"""What an executor does for a run, and what it reports of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from runtime.orders import Lane
from runtime.stage import memory_of


@dataclass(frozen=True, slots=True)
class Opened:
    """The lane is ready for items."""

    lane: Lane


@dataclass(frozen=True, slots=True)
class Output:
    """Something left the strand. For the sink: an item. For a later strand: whatever `Hands.push` takes there.

    `nbytes` is the memory it takes, if it is not the item itself that is at hand.
    """

    lane: Lane
    item: Any
    nbytes: int | None = None

    def memory(self) -> int:
        """Bytes of memory it takes, here or on another host."""
        return memory_of(self.item) if self.nbytes is None else self.nbytes


@dataclass(frozen=True, slots=True)
class Pushed:
    """The lane is done with an item; all outputs of it came before."""

    lane: Lane


@dataclass(frozen=True, slots=True)
class Flushed:
    """The lane has given all it held back."""

    lane: Lane


@dataclass(frozen=True, slots=True)
class Died:
    """The worker of the lane is gone, with whatever it had under way."""

    lane: Lane
    why: str


@dataclass(frozen=True, slots=True)
class Failed:
    """A stage raised: the run cannot succeed."""

    lane: Lane
    error: BaseException


Event = Opened | Output | Pushed | Flushed | Died | Failed


class Hands(Protocol):
    """What an executor does for a run. All methods are called in the caller's thread and none waits for work."""

    def open(self, lane: Lane) -> None:
        """Begin to make the lane; `Opened`, `Failed` or `Died` follows."""
        ...

    def push(self, lane: Lane, item: Any) -> None:
        """Give it an item; `Output`s and one `Pushed` follow."""
        ...

    def flush(self, lane: Lane) -> None:
        """Let it flush; `Output`s and one `Flushed` follow."""
        ...

    def taken(self, output: Output) -> None:
        """An output has left the driver: there is room for another."""
        ...

    def next(self, timeout: float) -> Event | None:
        """The next event, waiting up to `timeout` seconds for it."""
        ...

    def close(self, failed: bool) -> Failed | None:
        """Close all lanes. After a failed run they are to drop their work; otherwise returns a failure to close."""
        ...
