"""Restores, and what is looked up and fetched through an agent."""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field, StringConstraints, model_validator

from model.wire.base import Answer, Body, Count, Path, Paths, PathsB64, SnapshotId, Utc
from model.wire.runs import Run

RestoreType = Literal["full", "file", "volume", "instant"]
Format = Literal["tar", "zip", "raw"]


class RestoreFields(Body):
    """What is asked of a restore. `selected_files_b64` are names that are not UTF-8."""

    restore_type: RestoreType
    target_path: Path | None = None  # null: where the files were
    selected_files: Paths = []
    selected_files_b64: PathsB64 = []
    overwrite_existing: bool = False
    preserve_permissions: bool = True


class RestoreIn(RestoreFields):
    """POST /api/v1/machine-backups/{uuid}/restore."""

    agent_uuid: UUID | None = None  # null: the agent that made the backup

    @model_validator(mode="after")
    def _fits(self) -> RestoreIn:
        selected = bool(self.selected_files or self.selected_files_b64)
        if self.restore_type == "file" and not selected:
            raise ValueError("restore_type file needs selected_files")
        if self.restore_type == "full" and selected:
            raise ValueError(
                "restore_type full restores everything: leave selected_files out, or use restore_type file"
            )
        if self.target_path is not None and not self.target_path.startswith("/") and ":" not in self.target_path[:3]:
            raise ValueError("target_path must be absolute")
        return self


class Restore(Run):
    """202 of a restore: a run of kind restore."""

    machine_backup_uuid: UUID
    repository_uuid: UUID
    snapshot: str
    restore_type: RestoreType
    target_path: str | None = None
    selected_files: list[str] = []
    selected_files_b64: list[str] = []
    overwrite_existing: bool = False
    preserve_permissions: bool = True


class Entry(Answer):
    """One line (NDJSON) of GET /api/v1/machine-backups/{uuid}/files. `path_b64` holds a name that is not UTF-8."""

    path: str
    path_b64: str | None = None
    kind: Annotated[str, StringConstraints(max_length=32)]
    bytes: Count = 0
    mode: int | None = None
    user: str | None = None
    group: str | None = None
    modified_at: Utc | None = None
    target: str | None = None  # of a link


class Browse(Body):
    """What to look up in a snapshot: the entries of one folder, or with `pattern` all below it that match."""

    snapshot: SnapshotId
    path: Path = "/"
    pattern: Annotated[str, StringConstraints(max_length=1_024)] | None = None
    limit: Annotated[int, Field(ge=1, le=100_000)] = 1_000


class Download(Body):
    """What to send of a snapshot. `raw` is the content of a single file."""

    snapshot: SnapshotId
    paths: Annotated[Paths, Field(min_length=1, max_length=1_000)]
    format: Format = "tar"
