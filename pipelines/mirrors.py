"""A backup that goes to further stores of the same repository as well."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from model.errors import LoxError, StoreError, UsageError
from pipelines.backup import BackupReport, BackupRequest, backup
from pipelines.options import EngineOptions, Watch
from repository.mirror import Progress, SyncReport, adopt, require_same, sync
from repository.repository import Repository
from repository.store import Store
from repository.store.mirrored import Mirror, MirroredStore

LANES = 2  # objects on their way at once in the end


@dataclass(frozen=True, slots=True)
class MirrorReport:
    """How far a mirror got. `trouble`: why it is behind, empty if it is not."""

    url: str
    sync: SyncReport | None
    trouble: str = ""


def mirrored_backup(
    repository: Repository,
    mirrors: Sequence[Store],
    request: BackupRequest,
    engine: EngineOptions,
    watch: Watch,
    progress: Progress,
) -> tuple[BackupReport, list[MirrorReport]]:
    """As `backup`; what is stored goes to the mirrors at the same time, and they are brought up to it in the end.

    A mirror that fails costs nothing but its copy: its report says so, and the next run brings what it lacks. Raises
    UsageError if something else lies in the place of a mirror, and as `backup`: then nothing is brought up.
    """
    primary = repository.store
    if len({store.url for store in (primary, *mirrors)}) <= len(mirrors):
        raise UsageError("a mirror is another place than the repository and all other mirrors", subject=primary.url)
    states = [_reached(primary, store, request.dry_run) for store in mirrors]
    if request.dry_run or not states:
        return backup(repository, request, engine, watch), []
    repository.store = mirrored = MirroredStore(primary, [state for state in states if state.trouble is None])
    try:
        report = backup(repository, request, engine, watch)
    finally:
        repository.store = primary
        mirrored.close()
    return report, [_brought_up(primary, state, progress) for state in states]


def _reached(primary: Store, store: Store, dry_run: bool) -> Mirror:
    try:
        (require_same if dry_run else adopt)(primary, store)
    except UsageError:  # something else lies there
        raise
    except StoreError as error:  # it does not answer
        return Mirror(store, error)
    except LoxError as error:  # an object that everything needs is damaged, here or there: the mirror is behind
        return Mirror(store, StoreError("the mirror cannot be used", subject=store.url, why=str(error)))
    return Mirror(store)


def _brought_up(primary: Store, mirror: Mirror, progress: Progress) -> MirrorReport:
    try:
        done = sync(primary, mirror.store, lanes=LANES, progress=progress)
    except LoxError as error:  # interrupted, too: the snapshot is made, and that is what counts
        return MirrorReport(mirror.store.url, None, str(error))
    trouble = f"{len(done.findings)} damaged objects were not copied" if done.findings else ""
    return MirrorReport(mirror.store.url, done, trouble)
