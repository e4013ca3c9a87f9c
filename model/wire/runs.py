"""Runs: what an agent reports of one backup or restore, and how the server shows it.

Events of a run are numbered by the agent from 1; the server ignores numbers it has seen, so an agent that lost an
answer sends them again. Numbers may be left out: an agent that was cut off drops all progress but the latest.
"""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

from pydantic import AfterValidator, Field, StringConstraints

from model.wire.base import Answer, Body, Count, SnapshotId, Tally, Utc, without_nul
from model.wire.jobs import Mode

RunKind = Literal["backup", "restore", "maintenance"]
RunStatus = Literal["queued", "running", "success", "partial", "failed", "cancelled", "skipped", "lost"]
FinalStatus = Literal["success", "partial", "failed", "cancelled", "skipped"]
Trigger = Literal["schedule", "api", "agent", "retry", "missed"]
EVENTS_MAX = 1_000  # of one request
Text = Annotated[str, StringConstraints(max_length=4_096), AfterValidator(without_nul)]
Sequence = Annotated[int, Field(ge=1, le=(1 << 53))]
Seconds = Annotated[float, Field(ge=0)]


class Started(Body):
    """The first event of a run; the server learns of runs that an agent's own schedule began from it."""

    event: Literal["started"] = "started"
    sequence: Sequence
    time: Utc
    kind: RunKind
    job_uuid: UUID | None = None  # of a backup
    trigger: Trigger = "schedule"
    scheduled_for: Utc | None = None
    mode: Mode | None = None
    attempt: Annotated[int, Field(ge=1, le=1_000)] = 1


class StageProgress(Body):
    """One stage: what it did and where its time went."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=64), AfterValidator(without_nul)]
    items: Count = 0
    bytes: Count = 0
    busy: Seconds = 0
    starved: Seconds = 0
    blocked: Seconds = 0


class Progress(Body):
    """How far a run is; at most one a second. Totals are None while they are not known."""

    event: Literal["progress"] = "progress"
    sequence: Sequence
    time: Utc
    phase: Annotated[str, StringConstraints(max_length=64), AfterValidator(without_nul)] = ""
    files_done: Count = 0
    files_total: Count | None = None
    bytes_done: Count = 0
    bytes_total: Count | None = None
    bytes_stored: Count = 0
    seconds_left: Seconds | None = None
    stages: Annotated[list[StageProgress], Field(max_length=32)] = []


class LogLine(Body):
    """One line for the log of the run."""

    event: Literal["log"] = "log"
    sequence: Sequence
    time: Utc
    level: Literal["debug", "info", "warn", "error"] = "info"
    text: Text


class Problem(Body):
    """Trouble with one entry: the run goes on. `path` is readable text, `path_b64` a name that is not UTF-8."""

    event: Literal["problem"] = "problem"
    sequence: Sequence
    time: Utc
    path: Text
    path_b64: Annotated[str, StringConstraints(max_length=8_192)] | None = None
    text: Text


class Trouble(Body):
    """Why a run failed: what, on which object, why, and what to do."""

    what: Text
    subject: Text = ""
    why: Text = ""
    hint: Text = ""


class Summary(Body):
    """What a run came to. Bytes: of the source, new after deduplication, stored after compression.

    If it is not `deduplicated`, all that was read counts as new, and there is no ratio.
    """

    snapshot: SnapshotId | None = None
    files: Count = 0
    bytes: Count = 0
    files_new: Count = 0
    bytes_new: Count = 0
    bytes_stored: Count = 0
    deduplicated: bool = True
    dedup_ratio: Annotated[float, Field(ge=0)] | None = None
    problems: Tally = 0
    missing_paths: Annotated[list[Text], Field(max_length=1_000)] = []
    forgotten: Annotated[list[SnapshotId], Field(max_length=10_000)] = []  # snapshots that retention let go in this run
    limited_by: Text | None = None  # the sentence that says which stage limits
    seconds: Seconds = 0


class Finished(Body):
    """The last event of a run."""

    event: Literal["finished"] = "finished"
    sequence: Sequence
    time: Utc
    status: FinalStatus
    exit_code: Annotated[int, Field(ge=-255, le=255)] = 0
    summary: Summary = Summary()
    error: Trouble | None = None


RunEvent = Annotated[Started | Progress | LogLine | Problem | Finished, Field(discriminator="event")]


class EventsIn(Body):
    """POST /api/v1/agent/runs/{run_uuid}/events, in the order of `sequence`."""

    events: Annotated[list[RunEvent], Field(min_length=1, max_length=EVENTS_MAX)]


class EventsOut(Answer):
    """`taken` is the highest number the server has; `cancel` says that somebody asked to cancel the run."""

    taken: int
    cancel: bool = False


class Run(Answer):
    """GET /api/v1/runs/{uuid}."""

    uuid: UUID
    kind: RunKind
    status: RunStatus
    agent_uuid: UUID
    job_uuid: UUID | None = None
    job_name: str | None = None
    trigger: Trigger
    mode: Mode | None = None
    attempt: int = 1
    scheduled_for: Utc | None = None
    created_at: Utc
    started_at: Utc | None = None
    finished_at: Utc | None = None
    cancel_requested: bool = False
    exit_code: int | None = None
    progress: Progress | None = None
    summary: Summary | None = None
    error: Trouble | None = None
    problems: int = 0
    log_lines: int = 0


class RunLogLine(Answer):
    """One line of GET /api/v1/runs/{uuid}/log."""

    sequence: int
    time: Utc
    level: str
    text: str


class RunProblem(Answer):
    """One line of GET /api/v1/runs/{uuid}/problems."""

    sequence: int
    time: Utc
    path: str
    path_b64: str | None = None
    text: str


class MachineBackup(Answer):
    """GET /api/v1/machine-backups/{uuid}: a snapshot that a run made."""

    uuid: UUID
    agent_uuid: UUID
    job_uuid: UUID | None
    run_uuid: UUID
    repository_uuid: UUID
    snapshot: str
    time: Utc
    complete: bool  # false: some entries could not be read
    files: int
    bytes: int
    bytes_stored: int
