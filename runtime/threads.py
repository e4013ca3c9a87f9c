"""A thread per lane in this process: the work releases the GIL, so this is the fast way on one ordinary host.

The caller's thread decides (drive, schedule); lanes only obey. A lane's inbox holds what the window allows; a
lane may have `OUTBOX` outputs on the way, then it waits until one was taken.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping
from queue import Empty, SimpleQueue
from time import perf_counter
from typing import Any

from runtime.drive import Drive
from runtime.hands import Event, Failed, Flushed, Opened, Output, Pushed
from runtime.lane import LaneWork
from runtime.orders import Lane
from runtime.stage import Context, StopSignal

OUTBOX = 4
SWITCH_SECONDS = 0.001  # after which a thread lets others run Python: lanes want the lock often and only for moments
COUNT_SECONDS = 0.25  # a lane that waits says so as often as this, so that the trace is never far behind
JOIN_SECONDS = 60.0  # after a failure: how long a lane may take to come out of the item it is working on


class ThreadHands:
    """The lanes of one run and the queue on which they report."""

    def __init__(self, drive: Drive, services: Mapping[str, Any]) -> None:
        self._drive = drive
        self._services = services
        self._events: SimpleQueue[Event] = SimpleQueue()
        self._abort = threading.Event()
        self._lanes: dict[Lane, _LaneThread] = {}
        self._switch_before = sys.getswitchinterval()
        sys.setswitchinterval(min(SWITCH_SECONDS, self._switch_before))

    def open(self, lane: Lane) -> None:
        thread = _LaneThread(self._drive, lane, self._services, self._events, self._abort)
        self._lanes[lane] = thread
        thread.start()

    def push(self, lane: Lane, item: Any) -> None:
        self._lanes[lane].inbox.put((_PUSH, item))

    def flush(self, lane: Lane) -> None:
        self._lanes[lane].inbox.put((_FLUSH, None))

    def taken(self, output: Output) -> None:
        self._lanes[output.lane].room.release()

    def next(self, timeout: float) -> Event | None:
        try:
            return self._events.get(timeout=timeout) if timeout else self._events.get_nowait()
        except Empty:
            return None

    def close(self, failed: bool) -> Failed | None:
        if failed:
            self._abort.set()
        for thread in self._lanes.values():
            thread.inbox.put((_END, None))
            if failed:
                thread.room.release()  # it asks once more at the most
        for thread in self._lanes.values():
            thread.join(JOIN_SECONDS if failed else None)
        sys.setswitchinterval(self._switch_before)
        while (event := self.next(0.0)) is not None:
            if isinstance(event, Failed):
                return event
        return None


_PUSH, _FLUSH, _END = range(3)


class _Aborted(BaseException):
    """Ends the work of a lane from inside, past `except Exception` of stages."""


class _AnyStop:
    """Set if the user wants out or the run has failed."""

    def __init__(self, stop: StopSignal, abort: threading.Event) -> None:
        self._stop = stop
        self._abort = abort

    def is_set(self) -> bool:
        return self._abort.is_set() or self._stop.is_set()


class _LaneThread(threading.Thread):
    """One lane. Daemonic: a program that must end now is not held up by a stage that does not return."""

    def __init__(
        self,
        drive: Drive,
        lane: Lane,
        services: Mapping[str, Any],
        events: SimpleQueue[Event],
        abort: threading.Event,
    ) -> None:
        name = drive.lane_name(lane)
        super().__init__(name=name, daemon=True)
        self.inbox: SimpleQueue[tuple[int, Any]] = SimpleQueue()
        self.room = threading.Semaphore(OUTBOX)
        self._lane = lane
        self._events = events
        self._abort = abort
        self._meter = drive.meters.new_lane(lane.strand, lane.number)
        self._held = (drive.pressure[lane.strand], drive.meters.sinking)
        context = Context(services, lane.number, name, _AnyStop(drive.control.stop, abort))
        self._work = LaneWork(drive.strands[lane.strand], context, drive.measure, self._meter)

    def run(self) -> None:
        try:
            try:
                self._obey()
            finally:
                self._work.close()
        except _Aborted:
            pass
        except BaseException as error:
            self._events.put(Failed(self._lane, error))

    def _obey(self) -> None:
        self._work.open()
        self._events.put(Opened(self._lane))
        while not self._abort.is_set():
            verb, item = self._next_job()
            if verb == _END:
                return
            if verb == _PUSH:
                self._work.push(item, self._emit)
                del item  # it may hold a large body, and the next one may be long in coming
                self._events.put(Pushed(self._lane))
            else:
                self._work.flush(self._emit)
                self._events.put(Flushed(self._lane))

    def _next_job(self) -> tuple[int, Any]:
        try:
            return self.inbox.get_nowait()
        except Empty:
            pass
        while True:
            begin, held = perf_counter(), self._held_seconds()
            try:
                return self.inbox.get(timeout=COUNT_SECONDS)
            except Empty:
                pass
            finally:
                self._meter.blocked += min(perf_counter() - begin, self._held_seconds() - held)

    def _held_seconds(self) -> float:
        behind, sinking = self._held
        return behind.seconds() + sinking.seconds()

    def _emit(self, item: Any) -> None:
        if not self.room.acquire(blocking=False):
            has_room = False
            while not has_room:
                begin = perf_counter()
                has_room = self.room.acquire(timeout=COUNT_SECONDS)
                self._meter.blocked += perf_counter() - begin
        if self._abort.is_set():
            raise _Aborted
        self._events.put(Output(self._lane, item))
