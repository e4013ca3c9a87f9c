"""Showing how far a run is: live on a terminal, one line now and then elsewhere.

Everything goes to stderr. `Reporter` is the `Watch` of the command line: the run calls it about five times a second.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from lox.escape import path_fields, shown_path
from lox.eta import Pace, share_done
from lox.output import Output, json_line
from lox.reports import stage_rows
from lox.units import format_clock, format_count, format_rate, format_size, plural
from model.errors import Interrupted
from pipelines.options import Progress, Watch

if TYPE_CHECKING:
    from lox.counting import BackgroundCount
    from lox.live import LiveDisplay
    from runtime.trace import Trace

PROBLEMS_SHOWN = 20  # on the terminal; all of them are in the report and in JSON
INTERVAL = 30.0
COUNT_AFTER = 1.0  # seconds after which it is worth while to count what there is to do
COUNTED_IN_BYTES = ("reading packs", "rewriting packs", "copying objects")
STEP_INTERVAL = 0.2  # seconds between two drawings
PATIENCE = 0.4  # seconds a run may take before a live display appears: shorter ones need none


def interval_from_environment() -> float:
    """Seconds between two lines of progress: ``LOX_PROGRESS_INTERVAL``, 30 if unset or no number."""
    try:
        return max(0.1, float(os.environ.get("LOX_PROGRESS_INTERVAL", INTERVAL)))
    except ValueError:
        return INTERVAL


def amounts(progress: Progress, noun: str) -> list[str]:
    """How many files (or whatever `noun` is) and bytes are done, and of how many."""
    files, size = format_count(progress.files_done), format_size(progress.bytes_done)
    if progress.files_total is not None:
        files += f" of {format_count(max(progress.files_total, progress.files_done))}"
    if progress.bytes_total is not None:
        size += f" of {format_size(max(progress.bytes_total, progress.bytes_done))}"
    parts = [f"{files} {noun}"] if progress.files_done or progress.files_total or noun == "files" else []
    return [*parts, size] if progress.bytes_done or progress.bytes_total or noun == "files" else parts


def progress_text(progress: Progress, pace: Pace, noun: str = "files") -> str:
    """One line that says everything, for logs."""
    parts = amounts(progress, noun)
    if pace.bytes_per_second > 0:
        parts.append(format_rate(pace.bytes_per_second))
    if pace.remaining is not None:
        parts.append(f"{format_clock(pace.remaining)} left")
    if progress.limiting_stage:
        parts.append(f"limited by {progress.limiting_stage}")
    if progress.problems:
        parts.append(plural(progress.problems, "problem"))
    return ", ".join(parts)


def progress_fields(progress: Progress, pace: Pace, seconds: float) -> dict[str, object]:
    """The same for JSON."""
    fields: dict[str, object] = {
        "phase": progress.phase,
        "seconds": round(seconds, 3),
        "files_done": progress.files_done,
        "bytes_done": progress.bytes_done,
        "files_total": progress.files_total,
        "bytes_total": progress.bytes_total,
        "bytes_per_second": round(pace.bytes_per_second),
        "seconds_remaining": pace.remaining,
        "share": share_done(progress.files_done, progress.bytes_done, progress.files_total, progress.bytes_total),
        "problems": progress.problems,
        "limiting_stage": progress.limiting_stage or None,
    }
    return fields | (path_fields(b"/" + progress.current, "current") if progress.current else {})


class Reporter(Watch):
    """Shows progress, problems and, with -v, items of one run. Use as a context manager around the run.

    `ordinary` names the actions that -v leaves out and -vv shows (``unchanged``).
    """

    def __init__(
        self,
        output: Output,
        ordinary: frozenset[str] = frozenset(),
        count: BackgroundCount | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self.wants_items = bool(output.verbose)
        self._count = count
        self.problems_seen = 0
        self.latest: Progress | None = None
        self._output = output
        self._ordinary = ordinary
        self._clock = clock
        self._started = clock()
        self._noun = "files"
        self._trace: Trace | None = None
        self._stepped = 0.0
        self._pace = Pace(self._started)
        self._phase = ""
        self._interval = interval_from_environment()
        self._printed = self._started
        self._live: LiveDisplay | None = None
        wanted = output.settings.progress and not output.quiet
        self._wants_live = wanted and not output.json and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self._wants_lines = wanted and not self._wants_live

    def __enter__(self) -> Reporter:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._live is not None:
            self._live.close()
            self._live = None
        if self._count is not None:
            self._count.close()

    def problem(self, path: bytes, text: str) -> None:
        self.problems_seen += 1
        if self._output.json:
            self._output.event("problem", **path_fields(b"/" + path), message=text)
        elif self._output.quiet < 2 and self.problems_seen <= PROBLEMS_SHOWN:
            self._say(f"lox: {shown_path(path)}: {text}")
        elif self.problems_seen == PROBLEMS_SHOWN + 1 and self._output.quiet < 2:
            self._say("lox: more problems follow; --json lists all of them")

    def item(self, path: bytes, action: str, size: int) -> None:
        if action in self._ordinary and self._output.verbose < 2:
            return
        if self._output.json:
            self._output.event("item", action=action, **path_fields(b"/" + path), size=size)
        elif self._output.verbose:
            self._output.line(f"{action:<9}  {format_size(size):>8}  {shown_path(path)}")

    def progress(self, progress: Progress) -> None:
        now = self._clock()
        self._noun = progress.noun
        self.latest = progress = self._with_totals(progress, now)
        if progress.phase != self._phase:
            # Another phase works at another speed: estimates of the last one say nothing about it.
            self._phase, self._pace = progress.phase, Pace(now)
        self._pace.update(now, progress.files_done, progress.bytes_done, progress.files_total, progress.bytes_total)
        if self._wants_live:
            self._show_live(progress, now)
        elif self._wants_lines and now - self._printed >= self._interval:
            self._printed = now
            self._print_line(progress, now)

    def traced(self, trace: Trace) -> None:
        self._trace = trace
        super().traced(trace)

    def step(self, what: str, done: int, total: int) -> None:
        """Progress of a check: `what` it does now; counts bytes while it reads or copies, else objects.

        Raises Interrupted once the user wants it to stop.
        """
        if self.stop.is_set():
            raise Interrupted("interrupted", hint="nothing was changed")
        now = self._clock()
        if now - self._stepped < STEP_INTERVAL and what == self._phase:
            return
        self._stepped = now
        if what in COUNTED_IN_BYTES:
            self.progress(Progress(what, bytes_done=done, bytes_total=total, noun="objects"))
        else:
            self.progress(Progress(what, files_done=done, files_total=total, noun="objects"))

    def _with_totals(self, progress: Progress, now: float) -> Progress:
        """The run's own totals, else those counted beside it."""
        if self._count is None or progress.bytes_total is not None or not (self._wants_live or self._wants_lines):
            return progress
        if now - self._started >= COUNT_AFTER:
            self._count.start()
        if self._count.totals is None:
            return progress
        files, size = self._count.totals
        return replace(progress, files_total=files, bytes_total=size)

    def _show_live(self, progress: Progress, now: float) -> None:
        if self._live is None:
            if now - self._started < PATIENCE:
                return
            from lox.live import LiveDisplay

            self._live = LiveDisplay(self._output.settings)
        self._live.show(progress, self._pace, self._noun)

    def _print_line(self, progress: Progress, now: float) -> None:
        if self._output.json:
            fields = progress_fields(progress, self._pace, now - self._started)
            text = json_line("progress", fields | {"stages": stage_rows(self._trace)})
        else:
            text = f"{progress.phase}: {progress_text(progress, self._pace, self._noun)}"
        print(text, file=sys.stderr, flush=True)

    def _say(self, text: str) -> None:
        if self._live is not None:
            self._live.say(text)
        else:
            print(text, file=sys.stderr, flush=True)
