"""What the commands that run a plan do to leave a record of it."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lox.escape import safe
from lox.output import Output
from lox.trouble import trouble_of
from pipelines.run_recorder import RunRecorder
from pipelines.run_records import RunStore
from pipelines.run_summary import RunSummary, outcome_of

if TYPE_CHECKING:
    from lox.progress import Reporter
    from pipelines.backup import BackupReport
    from pipelines.copy import CopyReport
    from pipelines.options import EngineOptions
    from pipelines.restore import RestoreReport
    from repository.repository import Repository


class Recording:
    """The record of a command: give it the exit code, and fill in `summary`."""

    def __init__(self, recorder: RunRecorder) -> None:
        self._recorder = recorder
        self.code = 0

    @property
    def summary(self) -> RunSummary:
        return self._recorder.summary

    def ended(self, code: int) -> int:
        """The command ends with this code, which is given back."""
        self.code = int(code)
        return code

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
    """Records what runs within: how it ends, and what the engine did meanwhile. Empty settings are left out.

    A record that cannot be written costs a note, not the run.
    """
    summary = RunSummary(
        "",
        kind,
        repository.id.hex(),
        safe(repository.store.url),
        socket.gethostname(),
        paths=tuple(paths),
        profile=profile,
        executor=engine.executor,
        settings=_texts({"executor": engine.executor, "lanes": engine.lanes, "memory": engine.memory} | settings),
    )
    recorder = RunRecorder(RunStore(), summary, lambda: reporter.latest)
    recording = Recording(recorder)
    reporter.listeners.append(recorder.tick)
    recorder.start()
    try:
        yield recording
    except BaseException as error:
        trouble = trouble_of(error)
        recorder.end(outcome_of(trouble.exit_code), trouble.exit_code, trouble.message)
        raise
    else:
        recorder.end(outcome_of(recording.code), recording.code)
    finally:
        if recorder.trouble:
            output.note(f"note: there is no record of this run: {safe(recorder.trouble)}")


def _texts(settings: Mapping[str, object]) -> dict[str, str]:
    """Settings as text, without those nobody made."""
    return {name: str(value) for name, value in settings.items() if value not in (None, False, "", ())}
