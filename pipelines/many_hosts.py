"""One snapshot of the file systems of many hosts: each host does its share, and what they made is joined and committed.

See docs/cluster.md for what it looks like, and docs/decisions/028-many-hosts.md for why.
"""

from __future__ import annotations

import contextlib
import copy
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

from model.errors import LoxError, RunFailed, UsageError
from pipelines.backup import (
    BackupReport,
    BackupRequest,
    note,
    problems_of,
    report_of,
    saved,
    session_of,
    snapshot_of,
    stats_of,
)
from pipelines.options import EngineOptions, Progress, Watch
from pipelines.shares import TELLING, Share, ShareMade, Told, below
from repository.cache_dir import default_cache_dir
from repository.claims import HostClaims, claims_of
from repository.fetch import ChunkFetcher
from repository.host_parts import join
from repository.intake import Intake
from repository.manifest import ManifestWriter
from repository.manifest_root import ManifestRoot
from repository.metadata import MetadataStore
from repository.reliance import Reliance
from repository.reliance import commit as commit_safely
from repository.repository import Repository
from repository.sessions import Session
from repository.snapshot import Snapshot, find_parent, load_all
from repository.store.measured import REQUESTS
from runtime.errands import ErrandControl
from runtime.executors import HostsExecutor, open_hosts
from runtime.merged import merged
from runtime.trace import Trace
from sources.files.scan import ScanStats
from stages.access import RepositoryAccess
from stages.commit import CommitCounts
from stages.ground import GROUND, Ground

R = TypeVar("R")

WAITING_MAX = 64  # messages of hosts that nobody has looked at


def backup_of_hosts(
    repository: Repository, request: BackupRequest, engine: EngineOptions, watch: Watch
) -> BackupReport:
    """Back up ``request.paths`` of each of ``request.hosts`` into one snapshot.

    Raises as `backup`; RunFailed names the host that is not there, is lost, or could not do its share. Then nothing is
    committed, and what was stored will be found by the next run.
    """
    if engine.cluster is None:
        hint = "--executor ray --ray-address HOST:PORT; docs/cluster.md"
        raise UsageError("hosts are those of a cluster", subject=", ".join(request.hosts), hint=hint)
    if engine.placements:
        raise UsageError("hosts are named, or placed by labels, and not both", hint="leave out placement")
    if repository.write_only:
        hint = "run it on a host that has a key which reads"
        raise UsageError("a write-only machine backs up itself only", hint=hint)
    with open_hosts(engine.cluster, request.hosts) as executor, session_of(repository, request) as session:
        return ManyHosts(repository, request, engine, watch, session).run(executor)


class ManyHosts:
    """One run, in the process that started it."""

    def __init__(
        self,
        repository: Repository,
        request: BackupRequest,
        engine: EngineOptions,
        watch: Watch,
        session: Session | None,
    ) -> None:
        self._repository = repository
        self._request = request
        self._engine = replace(engine, executor="threads", cluster=None)
        self._watch = watch
        self._session = session
        self._started, self._begin = time.time_ns(), time.monotonic()
        snapshots = load_all(repository, default_cache_dir())
        self._parent = find_parent(snapshots, request.host, request.paths, request.mode, self._started, many=True)
        self._access = RepositoryAccess(repository, session.condemned if session else None)
        self._reliance = Reliance(self._access.index)
        self._claims = claims_of(self._reliance, request.deduplicate)
        self._intake = Intake(repository, self._claims, request.dry_run, lambda one: note(one, self._reliance, session))
        self._telling = Telling(watch, self._parent)

    def run(self, executor: HostsExecutor) -> BackupReport:
        self._access.secure(executor.keep)
        executor.host({"claims": self._claims, "intake": self._intake, "reliance": self._reliance})
        executor.host({"manifests": _Manifests(self._access), "requests": REQUESTS})
        executor.host({GROUND: Ground((), self._session), TELLING: self._telling})
        control = ErrandControl(self._watch.stop, self._telling.tick, self._lost)
        try:
            made, deaths = _told_by_host(lambda: executor.run_errands(self._shares(), control))
            root = self._joined(made)
        except BaseException:
            with contextlib.suppress(Exception):  # what is stored need not be sent again; why we failed is what counts
                self._intake.write_index()
            raise
        finally:
            self._telling.close()
        return self._committed(root, made, self._telling.trace(deaths))

    def _shares(self) -> dict[str, Share]:
        request, parent = self._request, self._parent
        known = set(parent.hosts) if parent is not None else set()
        return {
            host: Share(
                host, number, request, self._engine, self._access, parent if host in known else None,
                self._watch.wants_items,
            )
            for number, host in enumerate(request.hosts)
        }  # fmt: skip

    def _lost(self, host: str, life: int) -> None:
        self._claims.release_below(HostClaims.owners(host, life))

    def _joined(self, made: Mapping[str, ShareMade]) -> ManifestRoot:
        """The manifest of all hosts. Raises RunFailed if something of it is not stored."""
        metadata = MetadataStore(self._repository, self._claims, self._request.dry_run)
        writer = ManifestWriter(metadata.store)
        join(writer, {host: share.rows for host, share in made.items()})
        root = writer.finish()
        self._intake.take(metadata.finish())
        broken = self._claims.broken + int((~self._claims.resolved(writer.chunk_ids)).sum())
        if broken:
            raise RunFailed(
                "content that several hosts have is not stored",
                subject=f"{broken} chunks",
                why="the work of a host was begun anew, and it did not find there what it had before",
                hint="run the backup again: what was stored is found",
            )
        self._intake.write_index()
        return root

    def _committed(self, root: ManifestRoot, made: Mapping[str, ShareMade], trace: Trace) -> BackupReport:
        scan, counts = ScanStats(), CommitCounts()
        for share in (made[host] for host in self._request.hosts):
            _add(scan, share.scan)
            _add(counts, share.counts)
        counts.bytes_stored = self._intake.bytes_stored
        snapshot = None
        if self._session is not None:
            whole = snapshot_of(self._request, self._parent, root, self._started, scan, counts)
            # What changed since is told by the clocks of the hosts: the one that is most behind counts.
            whole = whole._replace(started=min(self._started, *(share.started for share in made.values())))
            snapshot = commit_safely(
                self._session, self._reliance, self._repository, lambda: saved(whole, self._repository)
            )
        hosts = {host: _numbers(made[host]) for host in self._request.hosts}
        return report_of(self._request, snapshot, scan, counts, trace, time.monotonic() - self._begin, hosts)


class _Manifests:
    """Gets chunks of the parent's manifest for all hosts, for one after the other."""

    def __init__(self, access: RepositoryAccess) -> None:
        self._access = access
        self._lock = threading.Lock()
        self._fetcher: ChunkFetcher | None = None

    def fetch(self, ids: Sequence[bytes]) -> list[bytes]:
        """See `ChunkFetcher.fetch`."""
        with self._lock:
            if self._fetcher is None:
                self._fetcher = ChunkFetcher(self._access.repository, self._access.reading_index)
            return self._fetcher.fetch(ids)


@dataclass(slots=True)
class _HostState:
    progress: Progress | None = None
    trace: Trace | None = None


class Telling:
    """What hosts tell, as a service; handed on in the thread that started the run, with every tick."""

    def __init__(self, watch: Watch, parent: Snapshot | None) -> None:
        self._watch = watch
        self._stats = parent.stats if parent is not None else {}
        self._queue: queue.Queue[tuple[str, Told]] = queue.Queue(WAITING_MAX)
        self._hosts: dict[str, _HostState] = {}
        self._closed = threading.Event()
        self._began = time.perf_counter()

    def tell(self, host: str, told: Told) -> None:
        """Called by hosts; waits while there is more to hand on than anybody takes."""
        while not self._closed.is_set():
            try:
                self._queue.put((host, told), timeout=1.0)
            except queue.Full:
                continue
            return

    def close(self) -> None:
        """Whoever tells more need not wait."""
        self._closed.set()

    def trace(self, deaths: int = 0) -> Trace:
        """The trace of all hosts together so far."""
        traces = {host: state.trace for host, state in self._hosts.items() if state.trace is not None}
        return merged(traces, "ray", time.perf_counter() - self._began, self._began, deaths)

    def tick(self) -> None:
        """Hand on what was told since the last time, and how far all are."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._hand_on(*self._queue.get_nowait())
        states = [state.progress for state in self._hosts.values() if state.progress is not None]
        if not states:
            return
        trace = self.trace()
        self._watch.traced(trace)
        self._watch.progress(self._together(states, trace))

    def _hand_on(self, host: str, told: Told) -> None:
        state = self._hosts.setdefault(host, _HostState())
        state.trace = told.trace or state.trace
        if told.progress is not None:
            current = told.progress.current
            state.progress = replace(told.progress, current=below(host, current) if current else b"")
        for path, text in told.problems:
            self._watch.problem(below(host, path), text)
        for path, action, size in told.items:
            self._watch.item(below(host, path), action, size)

    def _together(self, states: Sequence[Progress], trace: Trace) -> Progress:
        files, sizes = ([getattr(one, name) for one in states] for name in ("files_total", "bytes_total"))
        return Progress(
            phase="backup",
            files_done=sum(one.files_done for one in states),
            bytes_done=sum(one.bytes_done for one in states),
            files_total=self._stats.get("files") if None in files else sum(files),
            bytes_total=self._stats.get("bytes_total") if None in sizes else sum(sizes),
            problems=sum(one.problems for one in states),
            current=max((one.current for one in states), key=len),
            limiting_stage=trace.limiting().name,
        )


def _numbers(share: ShareMade) -> dict[str, int]:
    """What one host did, without what it stored: packs are shared."""
    numbers = stats_of(share.scan, share.counts) | {"problems": len(problems_of(share.scan, share.counts))}
    return {name: number for name, number in numbers.items() if name != "bytes_stored"}


def _told_by_host(run: Callable[[], R]) -> R:
    """The result of `run`. An error of ours that a host raised is raised itself, with the host before its subject."""
    try:
        return run()
    except RunFailed as failure:
        if not isinstance(cause := failure.__cause__, LoxError):
            raise
        error = copy.copy(cause)
        if not error.subject.startswith(f"{failure.subject}: "):
            error.subject = f"{failure.subject}: {error.subject}" if error.subject else failure.subject
        raise error from failure


def _add(total: Any, part: Any) -> None:
    """Add up what is counted and listed in two of a kind."""
    for name in (field.name for field in fields(total)):
        value = getattr(total, name)
        if isinstance(value, (int, list)) and not isinstance(value, bool):
            setattr(total, name, value + getattr(part, name))
