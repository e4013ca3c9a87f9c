"""A trace of what has no stages: a check, a prune or a repair takes one step after the other, in one thread.

Each step stands where a stage would, so that its record, `lox run show` and `lox top` say where the time went, and the
bottleneck sentence which step it is worth to make faster. A step lasts from when it is first told until another is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter

from pipelines.rates import usable_cores
from runtime.bottleneck import CALLER
from runtime.trace import StageTrace, Trace

TICK_SECONDS = 0.2
STEPS_MOST = 256  # kinds of steps; what more there were would count as part of the one before


@dataclass(slots=True)
class _Step:
    """One kind of step: how much was done of it, and for how many seconds. `at`: how far it was when last told."""

    in_bytes: bool
    amount: int = 0
    seconds: float = 0.0
    at: int = 0


class StepTrace:
    """Tell it every step with `step`; `on_tick` gets a trace about five times a second, and with `end` the last one."""

    def __init__(self, on_tick: Callable[[Trace], None], clock: Callable[[], float] = perf_counter) -> None:
        self._on_tick = on_tick
        self._clock = clock
        self._steps: dict[str, _Step] = {}
        self._now = ""  # the step that lasts
        self._since = self._began = self._ticked = 0.0

    def step(self, what: str, done: int, in_bytes: bool = False) -> None:
        """`what` is being done from now on, and so much of it is done: objects, or bytes."""
        now = self._clock()
        if not self._steps:
            self._began = self._since = self._ticked = now
        self._pass(now)
        if what != self._now and (what in self._steps or len(self._steps) < STEPS_MOST):
            self._now = what
            # One that is taken up again may go on where it was, or begin anew.
            self._steps.setdefault(what, _Step(in_bytes)).at = done
        step = self._steps[self._now]
        step.amount += max(0, done - step.at)
        step.at = done
        if now - self._ticked >= TICK_SECONDS:
            self._tick(now)

    def end(self) -> None:
        """Nothing is done any more."""
        if self._steps:
            now = self._clock()
            self._pass(now)
            self._tick(now)

    def _pass(self, now: float) -> None:
        """The time since the last word of it was that of the step that lasted."""
        if self._now:
            self._steps[self._now].seconds += now - self._since
        self._since = now

    def _tick(self, now: float) -> None:
        self._ticked = now
        wall = now - self._began
        lines = [_line(name, step, wall) for name, step in self._steps.items()]
        self._on_tick(Trace("inline", wall, tuple(lines), began=self._began, cores=usable_cores()))


def _line(name: str, step: _Step, wall: float) -> StageTrace:
    items, size = (0, step.amount) if step.in_bytes else (step.amount, 0)
    waited = max(0.0, wall - step.seconds)
    return StageTrace(name, CALLER, 1, items, items, size, size, busy=step.seconds, starved=waited)
