"""The work of one lane: its copies of a strand's stages, run depth first, every second accounted for."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from time import perf_counter
from typing import Any

from runtime.plan import Measure, Strand
from runtime.stage import Context, Stage, detached
from runtime.trace import LaneMeter

Emit = Callable[[Any], None]

_END = object()


class LaneWork:
    """Opened stages of one strand on one lane. Each output of a stage goes down to the end of the strand before
    the stage is asked for the next one; what leaves the strand is detached and handed to `emit`.
    """

    def __init__(self, strand: Strand, context: Context, measure: Measure, meter: LaneMeter) -> None:
        self._nodes = strand.nodes
        self._context = context
        self._measure = measure
        self._meter = meter
        self._at = 0  # the stage that runs now
        self._opened: list[Stage[Any, Any]] = []

    def open(self) -> None:
        """Open all stages in order; after a failure `close` closes those that are open."""
        for position, node in enumerate(self._nodes):
            stage = copy.copy(node.stage)
            stage.name = node.name
            with self._named(position):
                stage.open(self._context)
            self._opened.append(stage)

    def push(self, item: Any, emit: Emit) -> None:
        """Send one item through all stages."""
        with self._named(0):
            self._enter(0, item, self._measure(item), emit)

    def flush(self, emit: Emit) -> None:
        """Flush every stage in order, each into those after it."""
        for position, stage in enumerate(self._opened):
            with self._named(position):
                self._run(position, stage.flush, (), emit)

    def close(self) -> None:
        """Close all opened stages, in reverse; the first error is raised after all are closed."""
        first: BaseException | None = None
        while self._opened:
            position = len(self._opened) - 1
            try:
                with self._named(position):
                    self._opened.pop().close()
            except Exception as error:
                first = first or error
        if first is not None:
            raise first

    def place(self) -> str:
        """Where the work is just now, for error messages."""
        return f"in stage {self._nodes[self._at].name}, lane {self._context.lane_name}"

    def failed(self) -> None:
        """The call under way raised: it is over."""
        if self._meter.now is not None:
            stage, since = self._meter.now
            self._meter.now = None
            self._meter.busy[stage] += perf_counter() - since

    def _named(self, position: int) -> _Named:
        self._at = position
        return _Named(self)

    def _enter(self, position: int, item: Any, size: int, emit: Emit) -> None:
        self._meter.items_in[position] += 1
        self._meter.bytes_in[position] += size
        self._run(position, self._opened[position].push, (item,), emit)

    def _run(self, position: int, work: Callable[..., Iterable[Any]], given: tuple[Any, ...], emit: Emit) -> None:
        meter, last = self._meter, position + 1 == len(self._nodes)
        busy = meter.busy
        self._at = position
        begin = perf_counter()
        meter.now = position, begin
        outputs: Iterator[Any] = iter(work(*given))
        while True:
            output = next(outputs, _END)
            meter.now = None
            busy[position] += perf_counter() - begin
            if output is _END:
                return
            meter.items_out[position] += 1
            size = self._measure(output)
            meter.bytes_out[position] += size
            if last:
                emit(detached(output))
            else:
                self._enter(position + 1, output, size, emit)
            self._at = position
            begin = perf_counter()
            meter.now = position, begin


class _Named:
    """Adds to an exception in which stage and lane it came up. (A class: entered for every item.)"""

    __slots__ = ("_work",)

    def __init__(self, work: LaneWork) -> None:
        self._work = work

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None:
            self._work.failed()
            error.add_note(self._work.place())
