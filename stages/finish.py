"""finish: the end of the restore graph, in the driver; what commit is to a backup."""

from __future__ import annotations

from collections.abc import Iterable

from model.orders import Order, Written
from sources.files.target import Target
from sources.files.target_plan import WindowPlan


class Finish:
    """Tells the target what has been written, and ends a window when all of its orders are done."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._plans: dict[int, WindowPlan] = {}
        self._open: dict[int, set[int]] = {}
        self.bytes = 0
        self.files = 0
        self.damaged = False

    def expect(self, number: int, plan: WindowPlan, orders: list[Order]) -> None:
        """The orders of window `number` are about to be fed."""
        if not orders:
            self._target.end_window(plan)
            return
        self._plans[number] = plan
        self._open[number] = {order.seq for order in orders}

    def push(self, output: Written) -> Iterable[int]:
        waiting = self._open.get(output.window)
        if waiting is None or output.seq not in waiting:
            return ()  # written again by a replay
        waiting.remove(output.seq)
        plan = self._plans[output.window]
        self._target.accept(plan, output)
        self.bytes += int(output.written.sum())
        self.files += int(output.finished.sum())
        self.damaged |= output.damaged
        if not waiting:
            self._target.end_window(plan)
            del self._plans[output.window], self._open[output.window]
        return (output.seq,)

    def lost(self, lane_name: str) -> None:
        """A lane died. What it wrote lies in files that do not look finished; the replay writes it again."""
