"""What runs in a process of its own: one lane. Knows nothing of Ray; `cluster` makes actors of them."""

from __future__ import annotations

import os
import pickle
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

from runtime.lane import LaneWork
from runtime.plan import Measure, Strand
from runtime.stage import Context, memory_of
from runtime.trace import LaneMeter

LANE_NICENESS = 10  # lanes fill every core: the driver, which they wait for, goes first


@dataclass(frozen=True, slots=True)
class HostSetup:
    """All a lane needs to know. `environment` is added to that of its process, and `prepare` is called there first."""

    strand: Strand
    measure: Measure
    lane: int
    lane_name: str
    services: Mapping[str, Any]
    prepare: Callable[[], None]
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Raised:
    """An exception on its way to another process; its notes do not pickle with it."""

    error: BaseException
    notes: tuple[str, ...]

    @classmethod
    def of(cls, error: BaseException) -> Raised:
        """Pack an exception; one that does not pickle becomes a RuntimeError that tells of it."""
        notes = (
            f"on the worker:\n{''.join(traceback.format_tb(error.__traceback__))}",
            *getattr(error, "__notes__", ()),
        )
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:
            error = RuntimeError(f"{type(error).__name__}: {error}")
        return cls(error, notes)

    def unpack(self) -> BaseException:
        """The exception with its notes."""
        self.error.__notes__ = list(self.notes)
        return self.error


@dataclass(frozen=True, slots=True)
class Reply:
    """What came of one call: outputs (or how many and how large, if they go their own way), counters so far, or an
    error.
    """

    outputs: Sequence[Any]
    count: int
    meter: tuple[Any, ...]
    idle: float  # seconds this lane has waited for calls
    raised: Raised | None = None
    nbytes: int = 0  # memory of outputs that go their own way


class StrandHost:
    """One lane in its own process. Calls come one at a time, except `stop`."""

    def __init__(self, setup: HostSetup) -> None:
        os.environ.update(setup.environment)
        setup.prepare()
        os.nice(LANE_NICENESS)
        self._stop = threading.Event()
        self._meter = LaneMeter(len(setup.strand.nodes))
        context = Context(setup.services, setup.lane, setup.lane_name, self._stop)
        self._work = LaneWork(setup.strand, context, setup.measure, self._meter)
        self._idle = 0.0
        self._idle_since = perf_counter()

    def open(self) -> Reply:
        """Open the stages."""
        return self._reply(self._work.open)

    def push(self, items: Sequence[Any]) -> Reply:
        """Push items; the outputs are in the reply."""
        outputs: list[Any] = []
        return self._reply(lambda: self._push_all(items, outputs.append), outputs)

    def push_apart(self, items: Sequence[Any]) -> tuple[Reply, list[Any]]:
        """Push items; the outputs are beside the reply, so that the driver need not fetch them."""
        outputs: list[Any] = []
        reply = self._reply(lambda: self._push_all(items, outputs.append))
        return self._counted(reply, outputs)

    def flush(self) -> Reply:
        """Flush the stages; the outputs are in the reply."""
        outputs: list[Any] = []
        return self._reply(lambda: self._work.flush(outputs.append), outputs)

    def flush_apart(self) -> tuple[Reply, list[Any]]:
        """Flush the stages; the outputs are beside the reply."""
        outputs: list[Any] = []
        reply = self._reply(lambda: self._work.flush(outputs.append))
        return self._counted(reply, outputs)

    def stop(self) -> None:
        """Set `Context.stop`, while another call may be under way."""
        self._stop.set()

    def close(self) -> Reply:
        """Close the stages."""
        return self._reply(self._work.close)

    def _push_all(self, items: Sequence[Any], emit: Callable[[Any], None]) -> None:
        for item in items:
            self._work.push(item, emit)

    def _reply(self, work: Callable[[], None], outputs: Sequence[Any] = ()) -> Reply:
        raised = None
        self._idle += perf_counter() - self._idle_since
        try:
            work()
        except Exception as error:
            raised = Raised.of(error)
        self._idle_since = perf_counter()
        return Reply(outputs, len(outputs), self._meter.state(), self._idle, raised)

    @staticmethod
    def _counted(reply: Reply, outputs: list[Any]) -> tuple[Reply, list[Any]]:
        size = sum(map(memory_of, outputs))
        return Reply((), len(outputs), reply.meter, reply.idle, reply.raised, size), outputs
