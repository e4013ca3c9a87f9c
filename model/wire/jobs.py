"""Jobs: what is backed up, when, how, and how much of it is kept."""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field, StringConstraints, model_validator

from model.wire.base import Answer, Body, Count, Cron, HookName, Mbps, Name, Path, Paths, Tags, Utc, Zone

JobType = Literal["file", "block", "image", "database"]
Mode = Literal["full", "incremental", "differential"]
Patterns = Annotated[
    list[Annotated[str, StringConstraints(min_length=1, max_length=4096, pattern=r"^[^\x00\n]+$")]],
    Field(max_length=1_000),
]
Keeping = Annotated[int, Field(ge=1, le=100_000)]
HookSeconds = Annotated[int, Field(ge=1, le=86_400, description="seconds")]
RunSeconds = Annotated[int, Field(ge=1, le=30 * 86_400, description="seconds")]
Duration = Annotated[str, StringConstraints(max_length=20, pattern=r"^([0-9]+[yMmwdh])+$")]
WebUrl = Annotated[str, StringConstraints(max_length=500, pattern=r"^https?://[^\s@]+$")]
RETENTION_COUNT = 7


class Keep(Body):
    """Which backups to keep besides `retention_count`; what any rule keeps stays."""

    last: Keeping | None = None
    hourly: Keeping | None = None
    daily: Keeping | None = None
    weekly: Keeping | None = None
    monthly: Keeping | None = None
    yearly: Keeping | None = None
    within: Duration | None = None
    tags: Tags = []


class RetentionRule(Body):
    """What is kept of the backups of one job."""

    job_uuid: UUID
    timezone: Zone = "UTC"
    retention_count: Keeping = RETENTION_COUNT
    keep: Keep | None = None


class JobFields(Body):
    """What a job says about its work; the same in requests, in answers and in an agent's policy."""

    name: Name
    job_type: JobType
    backup_mode: Mode = "incremental"
    source_paths: Annotated[Paths, Field(min_length=1)]
    schedule_cron: Cron | None = None  # null: only by hand
    retention_count: Keeping = RETENTION_COUNT
    exclude_patterns: Patterns = []
    include_patterns: Patterns = []
    compression_enabled: bool = True
    encryption_enabled: bool = False
    deduplication_enabled: bool = True
    bandwidth_limit_mbps: Mbps | None = None  # null: no limit
    pre_script: HookName | None = None  # the name of a file in the host's own hooks folder
    post_script: HookName | None = None
    # Beyond the product text:
    repository_uuid: UUID | None = None  # null: the tenant's default
    timezone: Zone = "UTC"
    jitter_seconds: Annotated[int, Field(ge=0, le=86_400)] = 0
    missed_run_policy: Literal["run_once", "skip"] = "run_once"
    overlap_policy: Literal["skip", "queue"] = "skip"
    keep: Keep | None = None
    max_duration_seconds: RunSeconds | None = None  # after which a backup is stopped and has failed; null: no limit
    enabled: bool = True
    tags: Tags = []
    profile: Name | None = None  # a pipeline profile
    pre_script_timeout_seconds: HookSeconds = 600
    post_script_timeout_seconds: HookSeconds = 600
    ping_url: WebUrl | None = None  # told of start, success and failure


class JobIn(JobFields):
    """POST /api/v1/backup-jobs."""

    agent_uuid: UUID


class JobChange(Body):
    """PATCH /api/v1/backup-jobs/{uuid}: fields that are given are changed, null where a job may have none."""

    name: Name | None = None
    job_type: JobType | None = None
    backup_mode: Mode | None = None
    source_paths: Annotated[Paths, Field(min_length=1)] | None = None
    schedule_cron: Cron | None = None
    retention_count: Keeping | None = None
    exclude_patterns: Patterns | None = None
    include_patterns: Patterns | None = None
    compression_enabled: bool | None = None
    encryption_enabled: bool | None = None
    deduplication_enabled: bool | None = None
    bandwidth_limit_mbps: Mbps | None = None
    pre_script: HookName | None = None
    post_script: HookName | None = None
    repository_uuid: UUID | None = None
    timezone: Zone | None = None
    jitter_seconds: Annotated[int, Field(ge=0, le=86_400)] | None = None
    missed_run_policy: Literal["run_once", "skip"] | None = None
    overlap_policy: Literal["skip", "queue"] | None = None
    keep: Keep | None = None
    max_duration_seconds: RunSeconds | None = None
    enabled: bool | None = None
    tags: Tags | None = None
    profile: Name | None = None
    pre_script_timeout_seconds: HookSeconds | None = None
    post_script_timeout_seconds: HookSeconds | None = None
    ping_url: WebUrl | None = None

    @model_validator(mode="after")
    def _null_where_allowed(self) -> JobChange:
        wrong = sorted(name for name in self.model_fields_set - NULLABLE if getattr(self, name) is None)
        if wrong:
            raise ValueError(f"{', '.join(wrong)} cannot be null")
        return self


NULLABLE = frozenset(
    {
        "schedule_cron",
        "bandwidth_limit_mbps",
        "pre_script",
        "post_script",
        "repository_uuid",
        "keep",
        "max_duration_seconds",
        "profile",
        "ping_url",
    }
)


class Job(JobFields):
    """GET /api/v1/backup-jobs/{uuid}. `next_run_at` is without jitter, by the server's clock."""

    uuid: UUID
    agent_uuid: UUID
    created_at: Utc
    updated_at: Utc
    next_run_at: Utc | None = None
    last_run_uuid: UUID | None = None
    last_run_status: str | None = None
    last_run_at: Utc | None = None
    overdue: bool = False


class RunIn(Body):
    """POST /api/v1/backup-jobs/{uuid}/run."""

    mode: Mode | None = None  # null: the job's own


class NextRuns(Answer):
    """GET /api/v1/backup-jobs/{uuid}/next-runs. `explained` is the schedule in words."""

    schedule_cron: str | None
    timezone: str
    explained: str | None
    times: list[Utc]


class Estimate(Answer):
    """What a backup of a job would read now. `bytes_new`: changed since its last one, None if not known."""

    files: Count
    bytes: Count
    files_new: Count | None = None
    bytes_new: Count | None = None
    problems: Count = 0
    missing_paths: list[Path] = []
    seconds: float = 0.0  # that the estimate took
