"""The graphs as data, for those who want to look at one without running it."""

from __future__ import annotations

import pipelines.backup
import pipelines.copy
import pipelines.restore
from pipelines.profile import Profile, engine_of, request_fields
from runtime.plan import Plan
from stages.access import RepositoryAccess

GRAPHS = ("backup", "restore", "copy")


def plan_of(graph: str, profile: Profile) -> Plan:
    """The graph of this name as the profile has it on this host."""
    engine, nowhere = engine_of(profile), RepositoryAccess(None)
    if graph == "backup":
        request = pipelines.backup.BackupRequest((b"/",), **request_fields(profile))
        return pipelines.backup.backup_plan(nowhere, request, engine)
    if graph == "restore":
        return pipelines.restore.restore_plan(nowhere, None, engine)
    pair = pipelines.copy.Pair(nowhere, RepositoryAccess(None), renamed=False)
    return pipelines.copy.copy_plan(pair, pipelines.copy.CopyRequest(()), engine)
