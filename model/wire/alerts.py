"""Alerts: what an operator should look at."""

from __future__ import annotations

from typing import Literal
from uuid import UUID

from model.wire.base import Answer, Utc

AlertKind = Literal[
    "failed",
    "overdue",
    "offline",
    "lost",
    "token_reuse",
    "clock_skew",
    "size_anomaly",
    "missing_paths",
    "dedup_collapse",
    "undelivered",
]
Severity = Literal["warning", "critical"]


class Alert(Answer):
    """GET /api/v1/alerts/{uuid}. `count`: how often it came since; `resolved_at`: when its cause ended."""

    uuid: UUID
    kind: AlertKind
    severity: Severity
    text: str
    agent_uuid: UUID | None = None
    job_uuid: UUID | None = None
    run_uuid: UUID | None = None
    count: int = 1
    raised_at: Utc
    last_at: Utc
    acknowledged_at: Utc | None = None
    resolved_at: Utc | None = None
