"""The graphs as data, for those who want to look at one without running it."""

from __future__ import annotations

import pipelines.backup
import pipelines.copy
import pipelines.restore
from pipelines.options import EngineOptions
from runtime.plan import Plan
from stages.access import RepositoryAccess


def backup_plan(engine: EngineOptions) -> Plan:
    """The graph of a backup on this host with this engine."""
    return pipelines.backup.backup_plan(RepositoryAccess(None), pipelines.backup.BackupRequest((b"/",)), engine)


def restore_plan(engine: EngineOptions) -> Plan:
    """The graph of a restore on this host with this engine."""
    return pipelines.restore.restore_plan(RepositoryAccess(None), None, engine)


def copy_plan(engine: EngineOptions) -> Plan:
    """The graph of a copy to a repository that names chunks alike, on this host with this engine."""
    pair = pipelines.copy.Pair(RepositoryAccess(None), RepositoryAccess(None), renamed=False)
    return pipelines.copy.copy_plan(pair, pipelines.copy.CopyRequest(()), engine)
