"""What jobs and restores mean as command lines of `lox`. Pure."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Sequence
from uuid import UUID

from agent.timetable import Timetable
from model.errors import ConfigError
from model.wire.jobs import JobFields, Keep, RetentionRule
from model.wire.policy import PolicyJob
from model.wire.restores import RestoreFields

LABEL_MAX = 64  # characters of what metrics call a job
MODES = ("full", "incremental", "differential")


def job_tag(job: UUID) -> str:
    """The tag by which snapshots of a job are known, whatever its paths are later."""
    return f"job:{job}"


def label(job: JobFields, uuid: UUID) -> str:
    """What metrics call a job: its name, shortened if it is too long, told from others by the job's id."""
    name = "".join(letter if letter.isprintable() else " " for letter in job.name).strip()
    if not name:
        return str(uuid)
    if len(name) <= LABEL_MAX:
        return name
    return f"{name[: LABEL_MAX - 9]}-{hashlib.sha256(uuid.bytes).hexdigest()[:8]}"


def timetable(job: PolicyJob) -> Timetable | None:
    """When the job is due; None if only when somebody asks. Raises UsageError."""
    if job.schedule_cron is None or not job.enabled:
        return None
    return Timetable(
        job.uuid,
        job.schedule_cron,
        job.timezone,
        job.jitter_seconds,
        job.missed_run_policy,
        job.overlap_policy,
    )


def refuse_impossible(job: PolicyJob, encrypted: bool) -> None:
    """Raises ConfigError for what this agent cannot do, rather than doing something else."""
    if job.job_type != "file":
        raise ConfigError("this version backs up files", subject=job.name, why=f"the job is of type {job.job_type}")
    if job.encryption_enabled and not encrypted:
        why = "the job asks for encryption, and its repository has none"
        raise ConfigError("the job would be stored unencrypted", subject=job.name, why=why,
                          hint="choose a repository with encryption")  # fmt: skip


def backup(job: PolicyJob, paths: Sequence[str], mode: str | None, limit: str) -> list[str]:
    """`lox backup` for a job; `limit` is for --limit-upload."""
    line = ["--json", "backup", "--mode", mode or job.backup_mode, "--tag", job_tag(job.uuid)]
    line += ["--job", label(job, job.uuid), "--limit-upload", limit]
    for tag in job.tags:
        line += ["--tag", tag]
    for pattern in job.exclude_patterns:
        line += ["--exclude", pattern]
    for pattern in job.include_patterns:
        line += ["--include", pattern]
    if not job.compression_enabled:
        line += ["--compression", "none"]
    if not job.deduplication_enabled:
        line.append("--no-deduplication")
    if job.profile is not None:
        line += ["--profile", job.profile]
    return [*line, "--", *paths]


def estimate(job: PolicyJob, paths: Sequence[str]) -> list[str]:
    """`lox backup --dry-run` for a job."""
    line = backup(job, paths, None, "unlimited")
    line.insert(line.index("backup") + 1, "--dry-run")
    return line


def rule_of(job: PolicyJob) -> RetentionRule:
    """What is kept of a job's backups."""
    return RetentionRule(job_uuid=job.uuid, timezone=job.timezone, retention_count=job.retention_count, keep=job.keep)


def forget(rule: RetentionRule) -> list[str]:
    """`lox forget` with the rules of a job: what any of them keeps stays."""
    keep = rule.keep or Keep()
    line = ["--json", "forget", "--tag", job_tag(rule.job_uuid), "--group-by", "host", "--timezone", rule.timezone]
    line += ["--keep-last", str(max(rule.retention_count, keep.last or 0))]
    for name in ("hourly", "daily", "weekly", "monthly", "yearly", "within"):
        if (wanted := getattr(keep, name)) is not None:
            line += [f"--keep-{name}", str(wanted)]
    for tag in keep.tags:
        line += ["--keep-tag", tag]
    return line


def restore(snapshot: str, asked: RestoreFields, target: str | None) -> list[str]:
    """`lox restore`; `target` None: to where the files were."""
    line = ["--json", "restore", "--overwrite", "always" if asked.overwrite_existing else "never"]
    line += ["--in-place"] if target is None else ["--target", target]
    if not asked.preserve_permissions:
        line.append("--no-permissions")
    paths = [*asked.selected_files, *(os.fsdecode(base64.b64decode(name)) for name in asked.selected_files_b64)]
    return [*line, "--", snapshot, *paths]
