"""The lanes of one run as Ray actors: orders become calls, replies become events, deaths are noticed.

Ray runs an actor's calls in order; so only the oldest call of each lane is waited for.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

from model.errors import RunFailed
from runtime.drive import Drive
from runtime.hands import Died, Event, Failed, Flushed, Opened, Output, Pushed
from runtime.host import HostSetup, Raised, Reply, StrandHost
from runtime.orders import Lane
from runtime.trace import LaneMeter

START_SECONDS = 60.0
CLOSE_SECONDS = 60.0
ABORT_SECONDS = 2.0

_FLUSH = object()  # among items that wait for their call
GROUP = 3  # items, unless they are `apart`, that go in one call to a lane that has others to work on: calls cost

_MORE_ROOM = {"max_restarts": 0, "max_task_retries": 0, "enable_task_events": False}


class Places(Protocol):
    """Where lanes go: `Hosts`, or `OneHost`."""

    def place(self, lane: Lane, name: str, labels: Mapping[str, str]) -> Mapping[str, Any]:
        """Options for the actor of this lane. Raises RunFailed if there is no place for it."""
        ...

    def left(self, lane: Lane) -> None:
        """The lane died."""
        ...


class OneHost:
    """A private Ray has one node."""

    def place(self, lane: Lane, name: str, labels: Mapping[str, str]) -> Mapping[str, Any]:
        """Nothing to choose."""
        return {"scheduling_strategy": "SPREAD"}

    def left(self, lane: Lane) -> None:
        """Nothing to remember."""


@dataclass(frozen=True, slots=True)
class LaneSettings:
    """What lanes get beside their stages; `environment` is that of their processes."""

    services: Mapping[str, Any]
    prepare: Callable[[], None]
    places: Places = field(default_factory=OneHost)
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class _Call:
    """A call under way: its reply, the outputs beside it if they go to another lane, and what its end means."""

    reply: Any
    outputs: Any
    done: Sequence[Event]
    since: float


@dataclass(slots=True)
class _Actor:
    handle: Any
    meter: LaneMeter
    opened: bool = False
    calls: deque[_Call] = field(default_factory=deque)
    gathered: deque[Any] = field(default_factory=deque)  # items for its next calls
    idle: float = 0.0
    held: float = 0.0  # reading of the pressure behind it at the last reply


class RayHands:
    """See `drive.Hands`. What goes to strand 0 are items; what goes on to later strands are references to lists of
    outputs, so that bodies travel from worker to worker and not through the driver.
    """

    def __init__(self, ray: Any, drive: Drive, settings: LaneSettings) -> None:
        self._ray = ray
        self._drive = drive
        self._settings = settings
        self._host = ray.remote(concurrency_groups={"control": 1})(StrandHost)
        self._actors: dict[Lane, _Actor] = {}
        self._events: deque[Event] = deque()
        self._told_to_stop = False
        # Once a worker has died, an item goes out when the one before it has come back: of several that were under way
        # nobody knows which one it was, not even if each had a call of its own; a reply can die with its worker.
        self._alone = False

    def open(self, lane: Lane) -> None:
        drive, settings = self._drive, self._settings
        strand, name = drive.strands[lane.strand], drive.lane_name(lane)
        place = settings.places.place(lane, name, strand.placement)
        setup = HostSetup(
            strand, drive.measure, lane.number, name, settings.services, settings.prepare, settings.environment
        )
        # No CPUs are reserved: the plan says how many lanes there are, and a plan with cuts has more than cores.
        handle = self._host.options(num_cpus=0, **place, **_MORE_ROOM).remote(setup)
        self._actors[lane] = _Actor(handle, drive.meters.new_lane(lane.strand, lane.number), held=self._held(lane))
        self._called(lane, handle.open.remote(), None, [Opened(lane)])

    def push(self, lane: Lane, item: Any) -> None:
        if lane not in self._actors:  # buried: that it died is among the events, and the item will be fed again
            return
        if lane.strand:
            self._push(lane, item, 1)
            return
        actor = self._actors[lane]
        apart = getattr(item, "apart", False) and not self._alone
        if apart:
            self._push_gathered(lane, actor)
        actor.gathered.append(item)
        if apart or not actor.calls or (len(actor.gathered) == GROUP and not self._alone):
            self._push_gathered(lane, actor)

    def flush(self, lane: Lane) -> None:
        if lane not in self._actors:
            return
        actor = self._actors[lane]
        if self._alone and lane.strand == 0:
            actor.gathered.append(_FLUSH)
            if not actor.calls:
                self._push_gathered(lane, actor)
            return
        self._push_gathered(lane, actor)
        self._flush(lane)

    def taken(self, output: Output) -> None:
        pass

    def next(self, timeout: float) -> Event | None:
        if not self._events:
            self._tell_to_stop()
            for lane, actor in self._actors.items():
                if not actor.calls:
                    self._push_gathered(lane, actor)
            self._collect(timeout)
        return self._events.popleft() if self._events else None

    def close(self, failed: bool) -> Failed | None:
        failure = None
        try:
            failure = self._close_stages(ABORT_SECONDS if failed else CLOSE_SECONDS, failed)
        finally:
            for actor in self._actors.values():
                self._kill(actor)
        return failure

    # ---- calls

    def _is_last(self, lane: Lane) -> bool:
        return lane.strand + 1 == len(self._drive.strands)

    def _push_gathered(self, lane: Lane, actor: _Actor) -> None:
        if not self._alone and actor.gathered:
            items = list(actor.gathered)
            actor.gathered.clear()
            self._push(lane, items, len(items))
        elif actor.gathered:
            item = actor.gathered.popleft()
            if item is _FLUSH:
                self._flush(lane)
            else:
                self._push(lane, [item], 1)

    def _flush(self, lane: Lane) -> None:
        if self._is_last(lane):
            self._called(lane, self._actors[lane].handle.flush.remote(), None, [Flushed(lane)])
        else:
            reply, outputs = self._actors[lane].handle.flush_apart.options(num_returns=2).remote()
            self._called(lane, reply, outputs, [Flushed(lane)])

    def _push(self, lane: Lane, items: Any, count: int) -> None:
        handle, done = self._actors[lane].handle, [Pushed(lane)] * count
        if self._is_last(lane):
            self._called(lane, handle.push.remote(items), None, done)
        else:
            reply, outputs = handle.push_apart.options(num_returns=2).remote(items)
            self._called(lane, reply, outputs, done)

    def _called(self, lane: Lane, reply: Any, outputs: Any, done: Sequence[Event]) -> None:
        self._actors[lane].calls.append(_Call(reply, outputs, done, time.monotonic()))

    def _collect(self, timeout: float) -> None:
        """Turn the replies that are there into events; wait for the first one."""
        heads = {actor.calls[0].reply: (lane, actor) for lane, actor in self._actors.items() if actor.calls}
        if not heads:
            return
        refs = list(heads)
        ready, waiting = self._ray.wait(refs, num_returns=1, timeout=timeout, fetch_local=False)
        if ready and waiting:
            ready += self._ray.wait(waiting, num_returns=len(waiting), timeout=0, fetch_local=False)[0]
        for ref in ready:
            self._take(*heads[ref])
        if not ready:
            self._check_starts()

    def _take(self, lane: Lane, actor: _Actor) -> None:
        call = actor.calls.popleft()
        try:
            reply: Reply = self._ray.get(call.reply)
        except lost_errors(self._ray) as error:
            self._bury(lane, actor, first_line(error))
        except Exception as error:  # the call did not get as far as our code: it could not be sent, or unpacked
            self._events.append(Failed(lane, getattr(error, "cause", None) or error))
        else:
            self._account(lane, actor, reply)
            self._events += self._events_of(lane, call, reply)

    def _events_of(self, lane: Lane, call: _Call, reply: Reply) -> list[Event]:
        events: list[Event] = [Output(lane, output) for output in reply.outputs]
        if call.outputs is not None and reply.count:
            events.append(Output(lane, call.outputs, reply.nbytes))
        if isinstance(call.done[0], Opened):
            self._actors[lane].opened = reply.raised is None
        return [*events, *(call.done if reply.raised is None else [Failed(lane, reply.raised.unpack())])]

    def _bury(self, lane: Lane, actor: _Actor, why: str) -> None:
        """A worker is gone, or out of reach: then it is made sure that it is gone."""
        actor.calls.clear()
        self._alone = True
        self._kill(actor)
        self._settings.places.left(lane)
        del self._actors[lane]
        self._events.append(Died(lane, why))

    def _kill(self, actor: _Actor) -> None:
        with suppress(Exception):
            self._ray.kill(actor.handle)

    # ---- watching

    def _account(self, lane: Lane, actor: _Actor, reply: Reply) -> None:
        """Waiting while there was no room behind the lane counts as blocked."""
        actor.meter.update(reply.meter)
        held = self._held(lane)
        actor.meter.blocked += min(reply.idle - actor.idle, held - actor.held)
        actor.idle, actor.held = reply.idle, held

    def _held(self, lane: Lane) -> float:
        return self._drive.pressure[lane.strand].seconds() + self._drive.meters.sinking.seconds()

    def _check_starts(self) -> None:
        for lane, actor in self._actors.items():
            call = actor.calls[0] if actor.calls else None
            if call and isinstance(call.done[0], Opened) and time.monotonic() - call.since > START_SECONDS:
                name = self._drive.lane_name(lane)
                raise RunFailed("a worker did not start", subject=name, why=f"within {START_SECONDS:.0f} seconds")

    def _tell_to_stop(self) -> None:
        if not self._told_to_stop and self._drive.control.stop.is_set():
            self._stop_all()

    def _stop_all(self) -> None:
        self._told_to_stop = True
        for actor in self._actors.values():
            actor.handle.stop.options(concurrency_group="control").remote()

    def _close_stages(self, seconds: float, failed: bool) -> Failed | None:
        if failed and not self._told_to_stop:
            self._stop_all()
        closing = {actor.handle.close.remote(): lane for lane, actor in self._actors.items() if actor.opened}
        ready, late = self._ray.wait(list(closing), num_returns=len(closing), timeout=seconds) if closing else ([], [])
        failures = [Failed(closing[ref], raised) for ref in ready if (raised := self._raised(ref, closing[ref]))]
        if late:
            why = RunFailed("a worker did not end", why=f"within {seconds:.0f} seconds")
            failures.append(Failed(closing[late[0]], why))
        return failures[0] if failures else None

    def _raised(self, ref: Any, lane: Lane) -> BaseException | None:
        """What closing a lane raised. A worker that dies now takes nothing with it: everything is acknowledged."""
        try:
            reply: Reply = self._ray.get(ref)
        except lost_errors(self._ray):
            return None
        self._account(lane, self._actors[lane], reply)
        return reply.raised.unpack() if isinstance(reply.raised, Raised) else None


def lost_errors(ray: Any) -> tuple[type[Exception], ...]:
    """What Ray raises when a worker or its whole node is gone, or may be."""
    errors = ray.exceptions
    return (
        errors.RayActorError,
        errors.WorkerCrashedError,
        errors.ObjectLostError,
        errors.LocalRayletDiedError,
        errors.NodeDiedError,
        errors.ActorUnschedulableError,
        errors.TaskUnschedulableError,
    )


def first_line(error: BaseException) -> str:
    """The gist of one of Ray's long messages."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
