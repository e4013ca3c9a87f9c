"""What one run tells: while it runs from its trace, and in the end from its report."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from pipelines.metrics.catalog import DIRECTIONS, REASONS, STATUSES
from pipelines.metrics.values import Values
from pipelines.options import Progress, Watch
from sources.files import trouble

if TYPE_CHECKING:
    from pipelines.backup import BackupReport
    from pipelines.restore import RestoreReport
    from runtime.trace import StageTrace, Trace

BEAT_SECONDS = 15.0  # how often a run shows at least that it goes on
SENDS = ("backup", "copy")  # what others send to a store is no speed that anybody asks for
_REASONS = (
    ("permission denied", "permission"),
    (trouble.VANISHED, "vanished"),
    (trouble.CHANGED, "changed"),
    (trouble.REPLACED, "changed"),
    ("input/output error", "io"),
    ("damaged", "damaged"),
    ("lost", "damaged"),
)


def reason_of(text: str) -> str:
    """Which of `REASONS` the text of a problem is."""
    return next((reason for part, reason in _REASONS if part in text), REASONS[-1])


class RunMeter:
    """One run of a `job`, from now until `ended`.

    A thread of its own shows every 15 seconds that the process lives; whether the run gets on is another metric. It
    calls `on_beat`, which may write the values somewhere; so do the beginning and, with True, the end.
    """

    def __init__(
        self,
        values: Values,
        job: str,
        operation: str,
        *,
        every: float | None = None,
        on_beat: Callable[[bool], None] = lambda last: None,
    ) -> None:
        self._values = values
        self._job, self._operation = job, operation
        self._labels = (job,) if operation == "backup" else (job, operation)
        self._sends = operation in SENDS
        self._set = "backup" if operation == "backup" else "operation"
        self._on_beat = on_beat
        self._began = time.monotonic()
        self._over = threading.Event()
        self._states: dict[str, object] = {}  # as each of those who tell of progress told it last
        self._told = 0  # problems
        self._traced: dict[tuple[str, tuple[str, ...]], float] = {}  # of the trace that is under way
        self._wall = 0.0
        self._sent_before = values.take_requests()
        self._prepare(every)
        self._thread = threading.Thread(target=self._beat, name="metrics", daemon=True)
        self._thread.start()

    def _prepare(self, every: float | None) -> None:
        """All series at 0: what appears with its first failure is no increase to Prometheus."""
        for status in STATUSES:
            self._values.add(f"{self._set}_total", 0, *self._labels, status)
        for reason in REASONS:
            self._values.add(f"{self._set}_errors_total", 0, *self._labels, reason)
        for name in ("lane_deaths_total", "items_replayed_total"):
            self._values.add(name, 0, self._job)
        if self._operation == "backup":
            for name in ("backup_read_bytes_total", "backup_stored_bytes_total"):
                self._values.add(name, 0, self._job)
            for name in ("dedup_logical_bytes_total", "dedup_unique_bytes_total"):
                self._values.add(name, 0, self._job)
            self._values.touch("backup_run_duration_seconds", self._job)
        if every is not None:
            self._values.put("job_expected_interval_seconds", every, self._job)
        self._values.put("running", 1, self._job, self._operation)
        self._values.put("progress_timestamp_seconds", time.time(), self._job, self._operation)
        self._values.beat(BEAT_SECONDS)
        if not self._sends:
            self._values.say_nothing_of("upload_speed_bytes_per_second")
        self._measure(self._began)
        self._on_beat(False)

    def _measure(self, now: float) -> None:
        if self._sends:
            self._values.measure_speed(now)

    def _beat(self) -> None:
        while not self._over.wait(BEAT_SECONDS):
            self._values.beat(BEAT_SECONDS)
            self._measure(time.monotonic())
            self._on_beat(False)

    # ---- while it runs

    def at(self, teller: str, state: object) -> None:
        """How far the run is, in the words of one who tells: if they are others than last time, it got on."""
        if state != self._states.get(teller):
            self._states[teller] = state
            self._values.put("progress_timestamp_seconds", time.time(), self._job, self._operation)
        self._values.beat(BEAT_SECONDS)
        self._measure(time.monotonic())

    def problem(self, text: str) -> None:
        """Trouble with one item."""
        self._told += 1
        self._values.add(f"{self._set}_errors_total", 1, *self._labels, reason_of(text))

    def traced(self, trace: Trace) -> None:
        """Where the time went up to now; one that begins anew is that of a further plan of the same run."""
        if trace.wall < self._wall or not self._traced:
            self._traced.clear()
            self._values.run_by(trace.executor)
        self._wall = trace.wall
        for line in trace.stages:
            self._stage(line)
        self._count("lane_deaths_total", trace.deaths, self._job)
        self._count("items_replayed_total", trace.replayed, self._job)
        self._values.put("items_under_way", trace.fed - trace.acked, self._job)
        self.at("trace", [(line.items_in, line.items_out) for line in trace.stages])

    def _stage(self, line: StageTrace) -> None:
        labels = (self._job, line.name)
        for direction, items, size in zip(
            DIRECTIONS, (line.items_in, line.items_out), (line.bytes_in, line.bytes_out), strict=True
        ):
            self._count("stage_items_total", items, *labels, direction)
            self._count("stage_bytes_total", size, *labels, direction)
        self._count("stage_busy_seconds_total", line.busy, *labels)
        self._count("stage_starved_seconds_total", line.starved, *labels)
        self._count("stage_blocked_seconds_total", line.blocked, *labels)
        self._values.put("stage_lanes", line.lanes, *labels)

    def _count(self, name: str, value: float, *labels: str) -> None:
        """Count on to `value`. Starved and blocked are taken back a little when a long item is finished: then what was
        counted stays, for a counter that falls would be a restart to Prometheus."""
        before = self._traced.get((name, labels), 0.0)
        self._values.add(name, max(0.0, value - before), *labels)
        self._traced[name, labels] = max(before, value)

    # ---- in the end

    def backed_up(self, report: BackupReport, behind: int = 0) -> None:
        """What the finished backup did, and how many mirrors did not follow; `ended` comes after it."""
        values, job = self._values, self._job
        self.traced(report.trace)
        values.put("backup_duration_seconds", report.seconds, job)
        values.observe("backup_run_duration_seconds", report.seconds, job)
        values.put("backup_size_bytes", report.bytes_total, job)
        values.put("backup_files_count", report.files, job)
        values.put("backup_files", report.files, job)
        values.put("backup_new_bytes", report.bytes_new, job)
        values.put("backup_deduplicated", int(report.deduplicated), job)
        values.put("backup_problems", len(report.problems), job)
        values.put("backup_mirrors_behind", behind, job)
        values.add("backup_read_bytes_total", report.bytes_read, job)
        values.add("backup_stored_bytes_total", report.bytes_stored, job)
        if report.deduplicated:  # a ratio of what nobody deduplicated would say nothing of the data
            values.add("dedup_logical_bytes_total", report.bytes_total, job)
            values.add("dedup_unique_bytes_total", report.bytes_new, job)
        self.problems(report.problems)

    def restored(self, report: RestoreReport) -> None:
        """What the finished restore did."""
        self.traced(report.trace)
        self.problems(report.problems)

    def problems(self, all_of_them: Sequence[tuple[bytes, str]]) -> None:
        """The problems of the report: those that were told while it ran are its first."""
        for _, text in all_of_them[self._told :]:
            self.problem(text)

    def checked(self, findings: int) -> None:
        """What a check found."""
        self._values.put("check_findings", findings, self._job)

    def ended(self, status: str) -> None:
        """The run is over; `status` is one of `STATUSES`."""
        assert status in STATUSES
        self._over.set()
        self._thread.join()
        values, now, seconds = self._values, time.time(), time.monotonic() - self._began
        values.add(f"{self._set}_total", 1, *self._labels, status)
        if self._operation != "backup":
            values.put("operation_duration_seconds", seconds, *self._labels)
        if status != "cancelled":
            values.put(f"{self._set}_last_completion_timestamp_seconds", now, *self._labels)
        # A backup with problems has made its snapshot; any other run with problems is not what was wanted.
        if status == "success" or (status == "partial" and self._operation == "backup"):
            values.put(f"{self._set}_last_success_timestamp_seconds", now, *self._labels)
        values.put("running", 0, self._job, self._operation)
        values.put("items_under_way", 0, self._job)
        sent = values.take_requests() - self._sent_before
        if self._sends:
            values.put("upload_speed_bytes_per_second", sent / max(seconds, 1e-9))
        values.beat(0)
        self._on_beat(True)


class MeteredWatch(Watch):
    """Tells `meter` what it hears, and passes everything on to `inner`."""

    def __init__(self, meter: RunMeter, inner: Watch) -> None:
        super().__init__()
        self.stop = inner.stop
        self.wants_items = inner.wants_items
        self._meter, self._inner = meter, inner

    def problem(self, path: bytes, text: str) -> None:
        self._meter.problem(text)
        self._inner.problem(path, text)

    def item(self, path: bytes, action: str, size: int) -> None:
        self._inner.item(path, action, size)

    def progress(self, progress: Progress) -> None:
        self._meter.at("progress", (progress.phase, progress.files_done, progress.bytes_done))
        self._inner.progress(progress)

    def traced(self, trace: Trace) -> None:
        self._meter.traced(trace)
        self._inner.traced(trace)
