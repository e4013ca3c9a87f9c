"""Commands: what a server asks of an agent, in the answers of the agent's long polls.

Commands of an agent are numbered from 1. The agent asks for those after the last one it took over, and remembers that
number on disk before it acts: a command arrives at least once, and its `id` tells a repetition.
"""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field

from model.wire.base import Answer, Body, Mbps, SnapshotId, Utc
from model.wire.jobs import Mode, RetentionRule
from model.wire.policy import PolicyJob, PolicyRepository
from model.wire.restores import Browse, Download, RestoreFields

WAIT_SECONDS_MAX = 55  # of a long poll


class RunJob(Body):
    """Start a run of a job now, under this id. The agent may have to fetch its policy first."""

    kind: Literal["run_job"] = "run_job"
    job_uuid: UUID
    run_uuid: UUID
    mode: Mode | None = None


class CancelRun(Body):
    """End a run; one that has not begun is not to begin."""

    kind: Literal["cancel_run"] = "cancel_run"
    run_uuid: UUID


class RestoreCommand(RestoreFields):
    """Restore from a snapshot, under the id of a run. The repository comes along: it need not be in the policy."""

    kind: Literal["restore"] = "restore"
    restore_uuid: UUID
    repository: PolicyRepository
    snapshot: SnapshotId


class MaintainCommand(Body):
    """Let the backups go that no rule keeps, of all jobs whose data lies in a repository, and prune it; as a run."""

    kind: Literal["maintain"] = "maintain"
    run_uuid: UUID
    repository: PolicyRepository
    rules: Annotated[list[RetentionRule], Field(max_length=10_000)]


class BrowseCommand(Browse):
    """Send `Entry` lines to the exchange."""

    kind: Literal["browse"] = "browse"
    exchange_uuid: UUID
    repository: PolicyRepository


class DownloadCommand(Download):
    """Send content to the exchange."""

    kind: Literal["download"] = "download"
    exchange_uuid: UUID
    repository: PolicyRepository


class EstimateCommand(Body):
    """Send an `Estimate` to the exchange."""

    kind: Literal["estimate"] = "estimate"
    exchange_uuid: UUID
    job: PolicyJob
    repository: PolicyRepository


class SetLimits(Body):
    """Change limits at once; they are part of the policy too. Null: no limit from the server."""

    kind: Literal["set_limits"] = "set_limits"
    bandwidth_limit_mbps: Mbps | None = None
    job_uuid: UUID | None = None  # null: of the whole agent


class RefreshPolicy(Body):
    """Fetch the policy now."""

    kind: Literal["refresh_policy"] = "refresh_policy"


class RotateCredential(Body):
    """Send a heartbeat now: its answer holds the new credential."""

    kind: Literal["rotate_credential"] = "rotate_credential"


CommandBody = Annotated[
    RunJob
    | CancelRun
    | RestoreCommand
    | MaintainCommand
    | BrowseCommand
    | DownloadCommand
    | EstimateCommand
    | SetLimits
    | RefreshPolicy
    | RotateCredential,
    Field(discriminator="kind"),
]


class Command(Answer):
    """One command. After `expires_at` it is not to be begun."""

    sequence: int
    id: UUID
    created_at: Utc
    expires_at: Utc
    body: CommandBody


class Commands(Answer):
    """GET /api/v1/agent/commands?after=SEQUENCE&wait=SECONDS, in the order of `sequence`; none if the wait is over."""

    commands: list[Command]
