"""The options that let a command tell Prometheus of its run, and what that takes.

A command decorated with ``@metered("backup")`` gets a `Metering` as `meter`. It counts from before the repository is
opened until the exit code is known, so that a backup which cannot even begin is a failed one. Trouble with metrics is
said once and never ends a run.
"""

from __future__ import annotations

import os
import re
import socket
import sys
from collections.abc import Callable
from contextlib import ExitStack
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

from lox.escape import safe
from lox.output import Output, output_of
from lox.settings import option, stacked
from lox.signals import STOPPER
from lox.types import SpanType
from model.errors import Interrupted, LoxError, UsageError
from model.exits import ExitCode

if TYPE_CHECKING:
    from lox.progress import Reporter
    from pipelines.backup import BackupReport
    from pipelines.metrics.run import RunMeter
    from pipelines.metrics.textfile import TextFile
    from pipelines.options import Watch
    from pipelines.restore import RestoreReport

SECTION = "Metrics for Prometheus"
LISTEN, TEXTFILE, EVERY = "LOX_METRICS_LISTEN", "LOX_METRICS_TEXTFILE", "LOX_METRICS_EVERY"
JOB_MAX = 64  # characters of the name of a job
PATIENCE = 2.0  # seconds to wait for others who write the file, in the beginning and in the end


def metered(operation: str) -> Callable[[Callable[..., Any]], Any]:
    """Adds the options; the function gets `meter`, closed with the exit code it returns or the error it raises."""

    def decorate(function: Callable[..., Any]) -> Any:
        @wraps(function)
        def run(
            ctx: click.Context, /, *, metrics_listen: str | None, metrics_textfile: str | None, job: str | None,
            **asked: Any,
        ) -> Any:  # fmt: skip
            every = _every(asked.pop("metrics_every", None)) if operation == "backup" else None
            listen, file = _asked(metrics_listen, LISTEN), _asked(metrics_textfile, TEXTFILE)
            wanted = None if asked.get("dry_run") else _Wanted(listen, file, job, every)
            with Metering(output_of(ctx, needed=False), operation, wanted, asked) as meter:
                code = function(ctx, meter=meter, **asked)
                meter.code = ExitCode(code or 0)
            return code

        return _options(operation)(run)

    return decorate


def _options(operation: str) -> Callable[[Callable[..., Any]], Any]:
    default = "host and paths" if operation == "backup" else operation
    options = [
        option("--metrics-listen", metavar="[HOST:]PORT", section=SECTION,
               help=f"Serve metrics there while this runs; without HOST to this host only. [env: {LISTEN}]"),
        option("--metrics-textfile", metavar="FILE", section=SECTION,
               help=f"Keep metrics in this file, for node_exporter. [env: {TEXTFILE}]"),
        option("--job", metavar="NAME", section=SECTION, help=f"What metrics call this job. [default: {default}]"),
    ]  # fmt: skip
    if operation == "backup":
        text = f"How often this job is to succeed, for an alert when it does not. [env: {EVERY}]"
        options.append(option("--metrics-every", type=SpanType(), metavar="SPAN", section=SECTION, help=text))
    return stacked(*options)


def _asked(given: str | None, variable: str) -> str:
    return os.environ.get(variable, "") if given is None else given


def _every(given: int | None) -> float | None:
    """Seconds. Raises UsageError for an environment that makes no sense."""
    text = os.environ.get(EVERY, "")
    if given is None and text:
        try:
            given = SpanType().convert(text, None, None)
        except click.BadParameter as error:
            raise UsageError(EVERY, subject=text, why=error.message) from error
    return None if given is None else given / 1e9


class _Wanted:
    """What the options ask for; raises UsageError for what makes no sense, whatever else they ask for."""

    def __init__(self, listen: str, textfile: str, job: str | None, every: float | None) -> None:
        from pipelines.metrics.endpoint import parse_listen

        self.place = parse_listen(listen) if listen else None
        self.textfile, self.every = textfile, every
        self.job = None if job is None else checked_job(job)


class Metering:
    """The metrics of one command; without --metrics-listen and --metrics-textfile nothing is counted."""

    def __init__(self, output: Output, operation: str, wanted: _Wanted | None, asked: dict[str, Any]) -> None:
        self.code: ExitCode | None = None
        self.on = wanted is not None and bool(wanted.place or wanted.textfile)
        self._output, self._operation, self._wanted, self._asked = output, operation, wanted, asked
        self._stack = ExitStack()
        self._run: RunMeter | None = None
        self._file: TextFile | None = None
        self._silent = False

    def __enter__(self) -> Metering:
        if not self.on:
            return self
        wanted = self._wanted
        assert wanted is not None
        from pipelines.metrics.run import RunMeter
        from pipelines.metrics.textfile import TextFile
        from pipelines.metrics.values import Values

        values = Values()
        values.run_by(self._asked.get("executor") or "none")
        if wanted.place is not None:
            self._serve(values, *wanted.place)
        if wanted.textfile:
            self._file = TextFile(wanted.textfile, values)
        job = wanted.job or default_job(self._operation, self._asked)
        self._run = RunMeter(values, job, self._operation, every=wanted.every, on_beat=self._beat)
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        with self._stack:
            if self._run is not None:
                self._run.ended(status_of(self.code, error))

    def watching(self, reporter: Reporter) -> Watch:
        """What a run is to be given as its watch."""
        if self._run is None:
            return reporter
        from pipelines.metrics.run import MeteredWatch

        return MeteredWatch(self._run, reporter)

    def stepping(self, reporter: Reporter) -> Callable[[str, int, int], None]:
        """The same for what counts its steps."""
        run = self._run
        if run is None:
            return reporter.step

        def step(what: str, done: int, total: int) -> None:
            run.at("step", (what, done))
            reporter.step(what, done, total)

        return step

    def backed_up(self, report: BackupReport, behind: int) -> None:
        """A backup is finished; this many mirrors are behind."""
        if self._run is not None:
            self._run.backed_up(report, behind)

    def restored(self, report: RestoreReport) -> None:
        """A restore is finished."""
        if self._run is not None:
            self._run.restored(report)

    def checked(self, findings: int) -> None:
        """A check is finished."""
        if self._run is not None:
            self._run.checked(findings)

    def _serve(self, values: Any, host: str, port: int) -> None:
        from pipelines.metrics.endpoint import Endpoint

        try:
            endpoint = Endpoint(values, host, port)
        except OSError as error:
            self._warn(f"no metrics at {host}:{port}: {(error.strerror or str(error)).lower()}; the run goes on")
            return
        self._stack.callback(endpoint.close)
        self._output.event("metrics", url=endpoint.url)
        if port == 0 or self._output.verbose:
            self._output.note(f"metrics at {endpoint.url}")

    def _beat(self, last: bool) -> None:
        if self._file is None:
            return
        first = not self._file.ever_written
        try:
            self._file.write(PATIENCE if first or last else 0.0)
        except LoxError as error:
            self._warn(f"{error}; the run goes on" + (f" ({error.hint})" if error.hint else ""))

    def _warn(self, text: str) -> None:
        """Once: a full disk would be told every few seconds."""
        if not self._silent:
            self._silent = True
            if self._output.json:
                self._output.event("warning", message=safe(text))
            elif self._output.quiet < 2:
                print(f"lox: {safe(text)}", file=sys.stderr, flush=True)


def status_of(code: ExitCode | None, error: BaseException | None) -> str:
    """How a run ended, in the words of the metrics."""
    if isinstance(error, Interrupted | KeyboardInterrupt | click.Abort) or (error is not None and STOPPER.aborted):
        return "cancelled"
    if error is not None or code not in (ExitCode.OK, ExitCode.PARTIAL):
        return "failed"
    return "success" if code is ExitCode.OK else "partial"


def checked_job(name: str) -> str:
    """A name for a job. Raises UsageError."""
    if not name.strip() or not name.isprintable() or len(name) > JOB_MAX:
        raise UsageError("not a usable name of a job", subject=name, hint=f"use up to {JOB_MAX} printable characters")
    return name


def default_job(operation: str, asked: dict[str, Any]) -> str:
    """The name of a job that was given none: of a backup, its host and paths, ``web01-var-www-etc-nginx``."""
    if operation != "backup":
        return operation
    paths = sorted({os.path.abspath(path) for path in asked["paths"]})
    host = asked["host"] or asked["hosts"] or socket.gethostname()
    text = "-".join([host, *(os.fsdecode(path) for path in paths)])
    name = re.sub(r"[^A-Za-z0-9._]+", "-", text).strip("-")
    if len(name) <= JOB_MAX:
        return name or operation
    import hashlib

    digest = hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:8]
    return f"{name[: JOB_MAX - 9]}-{digest}"
