"""Everything in the caller's thread, one step after the other: for tests and debugging."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

from runtime.drive import Drive
from runtime.hands import Event, Failed, Flushed, Opened, Output, Pushed
from runtime.lane import LaneWork
from runtime.orders import Lane
from runtime.stage import Context


class InlineHands:
    """Does each order at once; what came of it waits to be asked for."""

    def __init__(self, drive: Drive, services: Mapping[str, Any]) -> None:
        self._drive = drive
        self._services = services
        self._works: dict[Lane, LaneWork] = {}
        self._events: deque[Event] = deque()

    def open(self, lane: Lane) -> None:
        drive = self._drive
        context = Context(self._services, lane.number, drive.lane_name(lane), drive.control.stop)
        meter = drive.meters.new_lane(lane.strand, lane.number)
        work = LaneWork(drive.strands[lane.strand], context, drive.measure, meter)
        self._works[lane] = work
        self._do(lane, Opened(lane), work.open)

    def push(self, lane: Lane, item: Any) -> None:
        self._do(lane, Pushed(lane), lambda: self._works[lane].push(item, lambda out: self._emit(lane, out)))

    def flush(self, lane: Lane) -> None:
        self._do(lane, Flushed(lane), lambda: self._works[lane].flush(lambda out: self._emit(lane, out)))

    def taken(self, output: Output) -> None:
        pass

    def next(self, timeout: float) -> Event | None:
        return self._events.popleft() if self._events else None

    def close(self, failed: bool) -> Failed | None:
        failures = []
        for lane, work in self._works.items():
            try:
                work.close()
            except Exception as error:
                failures.append(Failed(lane, error))
        return failures[0] if failures else None

    def _emit(self, lane: Lane, item: Any) -> None:
        self._events.append(Output(lane, item))

    def _do(self, lane: Lane, done: Event, work: Any) -> None:
        try:
            work()
        except Exception as error:
            self._events.append(Failed(lane, error))
        else:
            self._events.append(done)
