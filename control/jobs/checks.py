"""What a job cannot be: checked when it is saved, and said in the words of the field that is wrong."""

from __future__ import annotations

from control.api.problems import Invalid
from control.jobs.schedule import InvalidSchedule, check_schedule, zone_of
from control.repositories.tables import RepositoryRow
from model.wire.jobs import JobFields

LATER = {
    "block": "block-level backups need changed-block tracking, which this version does not have",
    "image": "images of whole disks need block-level backups, which this version does not have",
    "database": "backups of running databases need drivers for them, which this version does not have",
}


def check_job(job: JobFields, repository: RepositoryRow | None) -> None:
    """Raise Invalid for the first thing that `job` cannot be. `repository` is where its data would go."""
    if job.job_type in LATER:
        raise Invalid("job_type", LATER[job.job_type], "use file")
    _check_repository(job, repository)
    _check_time(job)
    _check_paths(job)


def _check_repository(job: JobFields, repository: RepositoryRow | None) -> None:
    if repository is None:
        hint = "add one by POST /api/v1/repositories with default: true, or name one"
        raise Invalid("repository_uuid", "the job names no repository, and there is no default one", hint)
    if job.encryption_enabled and repository.encryption != "required":
        hint = "choose a repository with encryption: required"
        raise Invalid("encryption_enabled", f"the repository {repository.name} is not encrypted", hint)


def _check_time(job: JobFields) -> None:
    try:
        zone_of(job.timezone)
    except InvalidSchedule as error:
        raise Invalid("timezone", str(error)) from None
    if job.schedule_cron is None:
        return
    try:
        check_schedule(job.schedule_cron, job.timezone)
    except InvalidSchedule as error:
        raise Invalid("schedule_cron", str(error)) from None


def _check_paths(job: JobFields) -> None:
    for number, path in enumerate(job.source_paths):
        if not path.startswith("/") and path[1:3] not in (":\\", ":/"):
            raise Invalid(f"source_paths/{number}", f"{path} is not an absolute path")
