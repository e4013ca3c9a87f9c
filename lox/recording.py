"""What commands do to leave a record of their run: those that run a plan, and those that take step after step."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lox.escape import safe
from lox.output import Output
from lox.progress import COUNTED_IN_BYTES
from lox.trouble import trouble_of
from pipelines.run_recorder import RunRecorder
from pipelines.run_records import RunStore
from pipelines.run_summary import RunSummary, outcome_of
from pipelines.step_trace import StepTrace

if TYPE_CHECKING:
    from lox.progress import Reporter
    from pipelines.backup import BackupReport
    from pipelines.copy import CopyReport
    from pipelines.options import EngineOptions
    from pipelines.restore import RestoreReport
    from repository.findings import CheckReport, Progress
    from repository.mirror import SyncReport
    from repository.prune_report import PruneReport
    from repository.repair import RepairReport
    from repository.repository import Repository
    from repository.store import Store


class Recording:
    """The record of a command: give it the exit code, and fill in `summary`."""

    def __init__(self, recorder: RunRecorder) -> None:
        self._recorder = recorder
        self._steps = StepTrace(recorder.tick)
        self.code = 0

    @property
    def summary(self) -> RunSummary:
        return self._recorder.summary

    def ended(self, code: int) -> int:
        """The command ends with this code, which is given back."""
        self.code = int(code)
        return code

    def step(self, what: str, done: int) -> None:
        """A command without a plan does this now."""
        self._steps.step(what, done, what in COUNTED_IN_BYTES)

    def stepping(self, step: Progress) -> Progress:
        """`step`, and the record hears of it as well."""

        def heard(what: str, done: int, total: int) -> None:
            self.step(what, done)
            step(what, done, total)

        return heard

    def end_steps(self) -> None:
        """No more steps are to come."""
        self._steps.end()

    def of_backup(self, report: BackupReport) -> None:
        """Takes over what a backup did."""
        self._take(report, "files", "bytes_read", "bytes_new", "bytes_stored")
        self.summary.problems = len(report.problems)
        self.summary.snapshot = report.snapshot.id if report.snapshot is not None else ""

    def of_restore(self, report: RestoreReport, snapshot: str) -> None:
        """Takes over what a restore did: what it brought counts as read."""
        self.summary.files, self.summary.bytes_read = report.files, report.bytes
        self.summary.problems, self.summary.snapshot = len(report.problems), snapshot

    def of_copy(self, report: CopyReport) -> None:
        """Takes over what a copy did: what it brought counts as new."""
        counts = report.counts
        self.summary.bytes_read = self.summary.bytes_new = counts.plain
        self.summary.bytes_stored, self.summary.problems = counts.stored, len(report.failed)
        self.summary.snapshots = len(report.copied)

    def of_check(self, report: CheckReport) -> None:
        """Takes over what a check did: files are those of a sample that were restored to nowhere."""
        self.summary.files, self.summary.problems = report.files_restored, len(report.findings)
        self.summary.bytes_read = report.bytes_read + report.bytes_restored

    def of_prune(self, report: PruneReport) -> None:
        """Takes over what a prune did."""
        self._take(report, "bytes_read", "bytes_deleted")
        self.summary.bytes_stored, self.summary.snapshots = report.bytes_written, len(report.purged)
        self.summary.problems = len(report.damaged)

    def of_repair(self, report: RepairReport) -> None:
        """Takes over what a repair did: problems are what it found damaged."""
        self.summary.bytes_read = report.check.bytes_read
        self.summary.problems = len(report.check.findings)

    def of_sync(self, report: SyncReport) -> None:
        """Takes over what the making of a mirror did."""
        self.summary.bytes_read = self.summary.bytes_stored = report.bytes
        self.summary.snapshots, self.summary.problems = report.snapshots, len(report.findings)

    def _take(self, report: object, *names: str) -> None:
        for name in names:
            setattr(self.summary, name, getattr(report, name))


@contextmanager
def recorded(
    output: Output,
    kind: str,
    repository: Repository,
    engine: EngineOptions,
    reporter: Reporter,
    paths: Sequence[bytes] = (),
    profile: str = "",
    **settings: object,
) -> Iterator[Recording]:
    """Records a run of the engine: how it ends, and what the engine did meanwhile. Empty settings are left out.

    A record that cannot be written costs a note, not the run.
    """
    asked = {"executor": engine.executor, "lanes": engine.lanes, "memory": engine.memory}
    summary = _summary(kind, repository.store, repository.id, asked | settings)
    summary.paths, summary.profile, summary.executor = tuple(paths), profile, engine.executor
    recorder = RunRecorder(RunStore(), summary, lambda: reporter.latest)
    reporter.listeners.append(recorder.tick)
    with _kept(output, recorder) as recording:
        yield recording


@contextmanager
def recorded_steps(
    output: Output, kind: str, store: Store, repository_id: bytes, reporter: Reporter | None = None, **settings: object
) -> Iterator[Recording]:
    """The same for what has no plan; its steps are known as far as `stepping` hears of them."""
    summary = _summary(kind, store, repository_id, settings)
    recorder = RunRecorder(RunStore(), summary, lambda: reporter.latest if reporter is not None else None)
    with _kept(output, recorder) as recording:
        yield recording


def _summary(kind: str, store: Store, repository_id: bytes, settings: Mapping[str, object]) -> RunSummary:
    host = socket.gethostname()
    return RunSummary("", kind, repository_id.hex(), safe(store.url), host, settings=_texts(settings))


@contextmanager
def _kept(output: Output, recorder: RunRecorder) -> Iterator[Recording]:
    """The run begins now, and ends with what comes after it."""
    recording = Recording(recorder)
    recorder.start()
    try:
        yield recording
    except BaseException as error:
        trouble = trouble_of(error)
        recording.end_steps()
        recorder.end(outcome_of(trouble.exit_code), trouble.exit_code, trouble.message)
        raise
    else:
        recording.end_steps()
        recorder.end(outcome_of(recording.code), recording.code)
    finally:
        if recorder.trouble:
            output.note(f"note: there is no record of this run: {safe(recorder.trouble)}")


def _texts(settings: Mapping[str, object]) -> dict[str, str]:
    """Settings as text, without those nobody made."""
    return {name: str(value) for name, value in settings.items() if value not in (None, False, "", ())}
