"""All tables of all parts: importing this makes `metadata` complete. A module with tables is added here."""

from __future__ import annotations

from importlib import import_module

from control.db.base import Base

MODULES = (
    "control.auth.tables",
    "control.audit",
    "control.api.idempotency",
    "control.fleet.tables",
    "control.repositories.tables",
    "control.jobs.tables",
    "control.runs.tables",
    "control.alerts.tables",
)

for _module in MODULES:
    import_module(_module)

metadata = Base.metadata
