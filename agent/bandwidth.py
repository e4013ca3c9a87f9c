"""How fast each run may send: its own limit and its share of that of the host, in a file that it reads again."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from agent.work_dir import write_private
from model.errors import RunFailed

LEAST_MBPS = 0.01  # slower than this no run ends


@dataclass(slots=True)
class Bandwidth:
    """The limit of the host, `total` in megabits a second (None: none), shared by the runs that are on."""

    folder: Path
    total: float | None = None
    _own: dict[UUID, float | None] = field(default_factory=dict)
    _written: dict[UUID, str] = field(default_factory=dict)

    def join(self, run: UUID, limit: float | None) -> str:
        """A run begins, itself limited to so much. Returns what `--limit-upload` is to be given. Raises RunFailed."""
        self._own[run] = limit
        self._share()
        if run not in self._written:
            self.leave(run)
            why = "its file cannot be written; is the disk full?"
            raise RunFailed("a run cannot be told its limit", subject=str(self._file(run)), why=why)
        return f"@{self._file(run)}"

    def leave(self, run: UUID) -> None:
        """A run is over: the others get its part."""
        self._own.pop(run, None)
        self._written.pop(run, None)
        self._file(run).unlink(missing_ok=True)
        self._share()

    def set_total(self, total: float | None) -> None:
        """The limit of the host is this from now on."""
        self.total = total
        self._share()

    def set_own(self, run: UUID, limit: float | None) -> None:
        """The limit of one run is this from now on."""
        if run in self._own:
            self._own[run] = limit
            self._share()

    def rate(self, run: UUID) -> float | None:
        """What a run may send now, in megabits a second.

        Runs that need less than an equal share, by a limit of their own, leave the rest to the others.
        """
        if self.total is None:
            return self._own[run]
        left, others = self.total, sorted(self._own.items(), key=lambda one: (one[1] is None, one[1] or 0.0))
        for position, (one, limit) in enumerate(others):
            share = left / (len(others) - position)
            mine = share if limit is None else min(limit, share)
            if one == run:
                return max(mine, LEAST_MBPS)
            left -= mine
        raise AssertionError("the run has joined")

    def _share(self) -> None:
        for run in self._own:
            rate = self.rate(run)
            text = "unlimited" if rate is None else f"{round(rate * 1_000_000)}bit"
            if self._written.get(run) != text:
                with suppress(OSError):  # the run goes on with the limit it has; the next change tries again
                    write_private(self._file(run), text.encode() + b"\n")
                    self._written[run] = text

    def _file(self, run: UUID) -> Path:
        return self.folder / f"{run}.limit"


def clear(folder: Path) -> None:
    """Forget the limits of runs that a killed agent left behind."""
    for name in os.listdir(folder):
        if name.endswith(".limit"):
            (folder / name).unlink(missing_ok=True)
