"""The loop of a run in the caller's thread: pull the feed, obey the scheduler, serve the sink.

What differs between executors is behind `Hands`: they do what the scheduler orders and report what happened.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from model.errors import Interrupted, PlanError, RunFailed
from runtime.hands import Died, Event, Failed, Flushed, Hands, Opened, Output, Pushed
from runtime.orders import Flush, Lane, Lost, Open, Push
from runtime.plan import Plan, Strand
from runtime.schedule import ATTEMPTS, UNACKED_MAX, WINDOW, Scheduler
from runtime.stage import NeverStop, Sink, StopSignal, memory_of
from runtime.trace import Meters, Pressure, Trace

TICK_SECONDS = 0.2
POLL_SECONDS = 0.1  # how long a stop signal may go unnoticed


@dataclass(frozen=True, slots=True)
class Control:
    """How a run is limited, stopped and watched. `on_tick` is called about 5 times a second in the caller's thread, and
    once more when the run is over, however it ended.
    """

    stop: StopSignal = field(default_factory=NeverStop)
    window: int | None = None  # items under way per lane; None: as many as suit the executor
    unacked_max: int = UNACKED_MAX  # items fed and not acknowledged
    attempts: int = ATTEMPTS
    on_tick: Callable[[Trace], None] | None = None


class Drive:
    """One run. `pressure[s]` grows while strand s is kept from working by what is behind it."""

    def __init__(
        self,
        plan: Plan,
        strands: Sequence[Strand],
        sink: Sink[Any],
        control: Control,
        executor: str,
        window: int = WINDOW,
    ) -> None:
        self.strands = strands
        self.control = control
        self.meters = Meters(
            executor,
            plan.source,
            plan.sink,
            [(strand.name, [node.name for node in strand.nodes], strand.lanes) for strand in strands],
        )
        self.pressure = [Pressure() for _ in strands]
        self.measure = plan.measure
        self._sink = sink
        self._scheduler = Scheduler(
            [strand.lanes for strand in strands],
            control.window or window,
            control.unacked_max,
            control.attempts,
            [strand.queue for strand in strands],
        )
        self._items: dict[int, Any] = {}  # fed and not acknowledged, by ticket
        self._outputs: dict[int, Output] = {}  # waiting between strands, by number
        self._numbers = 0
        self._acked = 0
        self._stopped = False
        self._why_died = ""
        self._next_tick = 0.0

    def lane_name(self, lane: Lane) -> str:
        """The name stages and claims know the lane by."""
        return f"{self.strands[lane.strand].name}-{lane.number}#{lane.generation}"

    def snapshot(self) -> Trace:
        """The trace so far."""
        return self.meters.snapshot(self._acked, self._scheduler.deaths, self._scheduler.replayed)

    def run(self, feed: Iterable[Any], hands: Hands) -> Trace:
        """Run to the end. Raises RunFailed, Interrupted, or whatever the feed or the sink raise."""
        try:
            self._loop(iter(feed), hands)
        except BaseException:
            hands.close(failed=True)
            self.meters.finish()
            with suppress(Exception):  # why the run failed is what counts
                self._tick()
            raise
        failure = hands.close(failed=False)
        self.meters.finish()
        self._tick()
        if failure is not None:
            raise failure_of(failure.error, self.lane_name(failure.lane)) from failure.error
        if self._stopped:
            raise Interrupted("interrupted", subject=self.meters.executor, hint="what was finished is kept")
        return self.snapshot()

    # ---- the loop

    def _loop(self, feed: Any, hands: Hands) -> None:
        scheduler = self._scheduler
        self._obey(hands)
        while not scheduler.finished:
            self._look_around()
            wants = scheduler.wants_item()
            if wants and not self._stopped:
                self._pull(feed)
                self._obey(hands)
            event = hands.next(0.0 if wants else POLL_SECONDS)
            if event is not None:
                self._handle(event, hands)
                self._obey(hands)
        if scheduler.failure:
            raise RunFailed("the run gave up", why=f"{scheduler.failure}{self._why_died}")

    def _look_around(self) -> None:
        if not self._stopped and self.control.stop.is_set():
            self._stopped = True
            self._scheduler.stop()
        if monotonic() >= self._next_tick:
            self._tick()
        if len(self.strands) > 1:
            for strand, pressure in enumerate(self.pressure):
                pressure.set(self._scheduler.held(strand))

    def _tick(self) -> None:
        self._next_tick = monotonic() + TICK_SECONDS
        if self.control.on_tick is not None:
            self.control.on_tick(self.snapshot())

    def _pull(self, feed: Any) -> None:
        meters = self.meters
        feeding = Pressure()
        feeding.set(True)
        try:
            item = next(feed, _END)
        finally:
            meters.feeding += feeding.seconds()
        if item is _END:
            self._scheduler.exhausted()
            return
        ticket = meters.fed
        seq = getattr(item, "seq", ticket)
        if seq != ticket:
            raise PlanError("the feed is out of order", subject=f"item {ticket}", why=f"it says it is item {seq}")
        meters.fed += 1
        meters.fed_bytes += self.measure(item)
        self._items[ticket] = item
        self._scheduler.fed(ticket, memory_of(item))

    def _obey(self, hands: Hands) -> None:
        for order in self._scheduler.take():
            match order:
                case Push(lane, number) if lane.strand == 0:
                    hands.push(lane, self._items[number])
                case Push(lane, number):
                    output = self._outputs.pop(number)
                    hands.push(lane, output.item)
                    hands.taken(output)
                case Flush(lane):
                    hands.flush(lane)
                case Open(lane):
                    hands.open(lane)
                case Lost(lane):
                    self._sink.lost(self.lane_name(lane))

    def _handle(self, event: Event, hands: Hands) -> None:
        match event:
            case Output(lane) if lane.strand + 1 == len(self.strands):
                self._deliver(event)
                hands.taken(event)
            case Output(lane):
                self._numbers += 1
                self._outputs[self._numbers] = event
                self._scheduler.output(lane, self._numbers, event.memory())
            case Pushed(lane):
                self._scheduler.pushed(lane)
            case Flushed(lane):
                self._scheduler.flushed(lane)
            case Opened(lane):
                self._scheduler.opened(lane)
            case Died(lane, why):
                self._why_died = f": {why}" if why else ""
                self._scheduler.died(lane)
            case Failed(lane, error):
                raise failure_of(error, self.lane_name(lane)) from error

    def _deliver(self, output: Output) -> None:
        meters = self.meters
        meters.delivered += 1
        meters.delivered_bytes += self.measure(output.item)
        meters.sinking.set(True)
        try:
            tickets = list(self._sink.push(output.item))
        finally:
            meters.sinking.set(False)
        for ticket in tickets:
            if self._items.pop(ticket, None) is not None:
                self._acked += 1
        self._scheduler.acked(tickets)


_END = object()


def failure_of(error: BaseException, lane_name: str) -> RunFailed:
    """The error of a run that a stage ended; its own error becomes the cause."""
    notes = getattr(error, "__notes__", [])
    place = notes[-1] if notes else f"lane {lane_name}"
    failure = RunFailed("a stage failed", subject=place.removeprefix("in "), why=str(error) or type(error).__name__)
    if notes:
        failure.add_note(place)
    return failure
