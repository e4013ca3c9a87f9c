"""Keeps the record of one run while it runs: a status once a second, the record every minute and at the end.

Trouble with the record is never trouble of the run: it is kept in `trouble`, and nothing more is written.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from model import __version__
from pipelines.options import Progress
from pipelines.run_records import RunStore, write_record
from pipelines.run_status import RunStatus, hold, write_private
from pipelines.run_summary import RunSummary, new_run_id
from runtime.bottleneck import bottleneck_of
from runtime.timeline import Timeline
from runtime.trace import Trace

STATUS_SECONDS = 1.0
RECORD_SECONDS = 60.0  # between two records of a run under way: what one that is killed leaves behind


class RunRecorder:
    """Writes the record of a run: `start`, then `tick` with every trace of the engine, then `end`.

    `progress` tells how far the run is, for `lox top`. The caller fills in `summary` as it learns about the run.
    """

    def __init__(
        self,
        store: RunStore,
        summary: RunSummary,
        progress: Callable[[], Progress | None] = lambda: None,
    ) -> None:
        self.summary = summary
        self.trouble = ""
        self._store = store
        self._progress = progress
        self._begin = time.perf_counter()
        self._parts: list[tuple[float, Timeline]] = []  # when each plan began, and what came of it
        self._traces: list[Trace] = []  # the newest of each plan
        self._base: Path | None = None
        self._let_go: Callable[[], None] = lambda: None
        self._next_status = self._next_record = self._begin
        summary.started = summary.started or time.time_ns()
        summary.id = summary.id or new_run_id(summary.started)
        summary.program = f"lox {__version__}"

    def start(self) -> None:
        """From now on others see the run."""
        self._guarded(self._start)

    def tick(self, trace: Trace) -> None:
        """How far the engine is: about five times a second, and once when a plan is done."""
        self._guarded(lambda: self._tick(trace))

    def end(self, outcome: str, exit_code: int, error: str = "") -> None:
        """The run is over: writes its record and takes the status away."""
        summary = self.summary
        summary.outcome, summary.exit_code, summary.error = outcome, exit_code, error
        self._guarded(self._end)
        if self._base is not None:
            with suppress(OSError):  # what is over is not to look as if it had been killed
                self._path(".json").unlink(missing_ok=True)
                self._let_go()

    def _start(self) -> None:
        self._base = self._store.folder(self.summary.repository_id) / self.summary.id
        self._let_go = hold(self._base.with_suffix(".lock"))
        self._publish()
        self._next_record += RECORD_SECONDS

    def _tick(self, trace: Trace) -> None:
        if not self._traces or self._traces[-1].began != trace.began:
            self._close_part()
            self._parts.append((max(0.0, trace.began - self._begin), Timeline()))
            self._traces.append(trace)
        self._traces[-1] = trace
        self._parts[-1][1].tick(trace)
        now = time.perf_counter()
        if now >= self._next_record:
            self._next_record = now + RECORD_SECONDS
            self._learn()
            write_record(self._path(".parquet"), self.summary, self._parts)
        if now >= self._next_status:
            self._publish()

    def _close_part(self) -> None:
        """What the last plan did after its last whole second."""
        if self._parts:
            self._parts[-1][1].tick(self._traces[-1], last=True)

    def _learn(self) -> None:
        """What the traces say, for the summary: of several plans that of the one that took longest."""
        summary = self.summary
        summary.wall = time.perf_counter() - self._begin
        if not self._traces:
            return
        trace = max(self._traces, key=lambda trace: trace.wall)
        limit = bottleneck_of(trace)
        summary.executor, summary.cores = trace.executor, trace.cores
        summary.lanes = max(line.lanes for line in trace.stages)
        summary.bottleneck, summary.limiting, summary.gain = limit.text, limit.stage, limit.gain

    def _publish(self) -> None:
        self._next_status = time.perf_counter() + STATUS_SECONDS
        self._learn()
        status = RunStatus(self.summary)
        if self._traces:
            status.trace, status.latest = self._traces[-1], self._parts[-1][1].latest()
        if (progress := self._progress()) is not None:
            status.phase = progress.phase
            status.done = progress.files_done, progress.bytes_done
            status.total = progress.files_total, progress.bytes_total
        write_private(self._path(".json"), status.encode())

    def _end(self) -> None:
        self._close_part()
        self._learn()
        write_record(self._path(".parquet"), self.summary, self._parts)
        self._store.thin(self.summary.repository_id)

    def _path(self, suffix: str) -> Path:
        assert self._base is not None, "started"
        return self._base.with_suffix(suffix)

    def _guarded(self, work: Callable[[], None]) -> None:
        if self.trouble:
            return
        try:
            work()
        except Exception as error:  # of whatever kind: a backup must not fail because of its record
            self.trouble = str(error) or type(error).__name__
            if isinstance(error, OSError) and error.strerror:
                self.trouble = f"{error.filename or self.summary.id}: {error.strerror.lower()}"
