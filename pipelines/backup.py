"""backup: scan → read → chunk → hash → dedup → compress → encrypt → upload → commit."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from types import MappingProxyType

from model import __version__
from model.batches import Content, Listing, Receipt
from model.errors import Interrupted, LoxError, UsageError
from pipelines.backup_progress import RunProgress
from pipelines.fitting import Fitting
from pipelines.keeping import selection_of
from pipelines.options import BACKUP, EngineOptions, Watch
from pipelines.runs import unwrapped
from pipelines.scanning import scanner_of
from pipelines.strictness import CHANGED, UNREADABLE, Strictness
from repository.cache_dir import default_cache_dir
from repository.claims import claims_of
from repository.codecs import by_name
from repository.fetch import ChunkFetcher
from repository.host_parts import HOSTS_MAX
from repository.intake import Intake
from repository.manifest import ManifestWriter
from repository.manifest_reader import ManifestReader
from repository.manifest_root import ManifestRoot
from repository.metadata import MetadataStore
from repository.own_history import own_history
from repository.reliance import Reliance
from repository.reliance import commit as commit_safely
from repository.repository import Repository
from repository.sessions import Session, open_session
from repository.snapshot import Snapshot, find_parent, host_name_fault, load_all
from repository.store.measured import REQUESTS
from runtime.drive import Control
from runtime.executors import open_executor
from runtime.plan import Flow, Plan
from runtime.trace import Trace
from sources.files.scan import ScanStats
from stages.access import RepositoryAccess
from stages.chunk import Chunker
from stages.commit import Commit, CommitCounts
from stages.compress import SEGMENT_BYTES, Compressor
from stages.dedup import Deduplicator
from stages.encrypt import Encryptor
from stages.ground import common_ground
from stages.hash import Hasher
from stages.ledger import CutLedger
from stages.read import Reader
from stages.upload import Release, Uploader

MODES = ("incremental", "differential", "full")


@dataclass(frozen=True, slots=True)
class BackupRequest:
    """What to back up and how. Paths are absolute bytes; patterns as in docs/patterns.md."""

    paths: tuple[bytes, ...]
    excludes: tuple[bytes, ...] = ()
    includes: tuple[bytes, ...] = ()
    exclude_caches: bool = False
    one_file_system: bool = False
    exclude_larger_than: int | None = None
    mode: str = "incremental"
    host: str = field(default_factory=socket.gethostname)
    user: str = ""
    tags: tuple[str, ...] = ()
    dry_run: bool = False
    deduplicate: bool = True  # or store again whatever is read
    codec: str = "zstd"
    level: int | None = None
    unreadable_file: str = "warn"
    changed_while_reading: str = "retry"
    hosts: tuple[str, ...] = ()  # of a cluster: each backs up its own file system, and `host` names them all

    def __post_init__(self) -> None:
        if not self.paths:
            raise UsageError("nothing to back up", hint="name at least one path")
        if self.mode not in MODES:
            raise UsageError("unknown backup mode", subject=self.mode, hint="use " + ", ".join(MODES))
        if self.unreadable_file not in UNREADABLE or self.changed_while_reading not in CHANGED:
            wish = f"{self.unreadable_file}, {self.changed_while_reading}"
            raise UsageError("unknown error policy", subject=wish, hint="see on_error in docs/pipelines.md")
        for host in self.hosts:
            if fault := host_name_fault(host):
                raise UsageError("not a name of a host", subject=repr(host), why=fault)
        if len(set(self.hosts)) < len(self.hosts) or len(self.hosts) > HOSTS_MAX:
            raise UsageError("a host is named once, and at most 1,024 are", subject=", ".join(self.hosts))


@dataclass(slots=True)
class BackupReport:
    """What a backup did. `bytes_total` is the content of the snapshot, `bytes_read` what was read of it now,
    `bytes_new` what was not known yet (all that was read, if not `deduplicated`), `bytes_stored` what that takes in the
    store. `hosts`: the same numbers, and `problems`, of each host that backed up files of its own; what is stored is
    theirs together."""

    snapshot: Snapshot | None
    deduplicated: bool
    files: int
    directories: int
    files_new: int
    files_changed: int
    files_unchanged: int
    bytes_total: int
    bytes_read: int
    bytes_new: int
    bytes_stored: int
    problems: list[tuple[bytes, str]]
    seconds: float
    trace: Trace
    bottleneck: str
    hosts: Mapping[str, Mapping[str, int]]


def backup_plan(access: RepositoryAccess, request: BackupRequest, engine: EngineOptions) -> Plan:
    """The graph of a backup. Everything between scan and commit is the work of lanes that share nothing but claims."""
    fitting = Fitting(engine, BACKUP)
    codec, level = by_name(request.codec, request.level)
    in_order = "chunk" not in fitting.begins
    release = Release.AT_ONCE if fitting.begins_after("compress") else Release.STORED
    return fitting.applied(
        Flow[Listing]("scan")
        .then("read", Reader(again=CHANGED[request.changed_while_reading]))
        .then("chunk", Chunker(access, in_order=in_order))
        .then("hash", Hasher(access))
        .then("dedup", Deduplicator(asks=request.deduplicate))
        .then("compress", Compressor(codec, level, engine.segment_bytes or SEGMENT_BYTES))
        .then("encrypt", Encryptor[Content](access, fitting.pack_bytes))
        .then("upload", Uploader[Content](access, request.dry_run, engine.packs_under_way, release))
        .plan("backup", sink="commit")
    )


def backup(repository: Repository, request: BackupRequest, engine: EngineOptions, watch: Watch) -> BackupReport:
    """Back up `request.paths` into a new snapshot.

    Trouble with single entries is in the report; trouble with the repository raises and commits nothing. Raises
    `Interrupted` if `watch.stop` is set: what was stored until then will be found by the next run.
    """
    if request.hosts:
        from pipelines.many_hosts import backup_of_hosts

        return backup_of_hosts(repository, request, engine, watch)
    with session_of(repository, request) as session:
        return _backup(repository, request, engine, watch, session)


def session_of(repository: Repository, request: BackupRequest) -> AbstractContextManager[Session | None]:
    """A dry run stores nothing and relies on nothing."""
    return nullcontext() if request.dry_run else open_session(repository, "backup")


def _backup(
    repository: Repository, request: BackupRequest, engine: EngineOptions, watch: Watch, session: Session | None
) -> BackupReport:
    started, begin = time.time_ns(), time.monotonic()
    access = RepositoryAccess(repository, session.condemned if session else None)
    history = own_history(repository, default_cache_dir())
    snapshots = load_all(repository, default_cache_dir()) if history is None else history.snapshots()
    parent = find_parent(snapshots, request.host, request.paths, request.mode, started, repository.writer)
    with open_executor(engine.executor, engine.cluster, engine.placements) as executor:
        engine = engine.over(executor.cpus)
        access.secure(executor.keep)
        reliance = Reliance(access.index)
        claims = claims_of(reliance, request.deduplicate)
        executor.host({"claims": claims, "ledger": CutLedger(), "requests": REQUESTS})
        executor.host(common_ground(executor.cpus, request.paths, session))
        metadata = MetadataStore(repository, claims, request.dry_run, history)
        strictness = Strictness(request.unreadable_file, request.changed_while_reading, watch.problem)
        intake = Intake(repository, claims, request.dry_run, lambda receipt: note(receipt, reliance, session))
        manifest = ManifestWriter(metadata.store)
        on_item = watch.item if watch.wants_items else None
        commit = Commit(intake, claims, metadata, manifest, strictness.problem, on_item)

        def manifest_of(parent: Snapshot) -> ManifestReader:
            fetch = ChunkFetcher(repository, access.reading_index).fetch if history is None else history.fetch
            return ManifestReader(parent.root, fetch, parent.name)

        scanner = scanner_of(request, engine, parent, manifest_of, reliance.contains)
        plan = backup_plan(access, request, engine)
        report = RunProgress(watch, commit.counts, scanner.stats, parent)
        open_max = Fitting(engine, BACKUP).batches_open
        control = Control(stop=watch.stop, unacked_max=open_max, on_tick=report.tick)
        try:
            trace = unwrapped(lambda: executor.run(plan, report.following(scanner), commit, control))
            strictness.judge(scanner.stats.problems)
            root = commit.finish()
            commit.write_index()
        except Interrupted:
            commit.write_index()
            raise
        except LoxError:
            with contextlib.suppress(Exception):  # what is stored need not be sent again; why we failed is what counts
                commit.write_index()
            raise
    snapshot = None
    if not request.dry_run:
        assert session is not None, "whoever stores something has a session"
        made = snapshot_of(request, parent, root, started, scanner.stats, commit.counts)
        snapshot = commit_safely(session, reliance, repository, lambda: saved(made, repository))
        if history is not None:
            history.commit(snapshot)
    return report_of(request, snapshot, scanner.stats, commit.counts, trace, time.monotonic() - begin)


def note(receipt: Receipt, reliance: Reliance, session: Session | None) -> None:
    """A pack was stored: we rely on it, and should we not finish, the next run will."""
    reliance.add([receipt])
    if session is not None:
        session.has_stored = True


def saved(snapshot: Snapshot, repository: Repository) -> tuple[Snapshot, str]:
    """The snapshot as it is stored now, and its name. Raises StoreError."""
    saved = snapshot.save(repository)
    return saved, saved.name


def snapshot_of(
    request: BackupRequest,
    parent: Snapshot | None,
    root: ManifestRoot,
    started: int,
    scan: ScanStats,
    counts: CommitCounts,
) -> Snapshot:
    """The snapshot to be stored; `started` in nanoseconds since 1970."""
    return Snapshot(
        time=started,
        started=started,
        finished=time.time_ns(),
        host=request.host,
        user=request.user,
        paths=request.paths,
        mode=request.mode,
        root=root,
        parent=parent.id if parent else None,
        tags=request.tags,
        excludes=request.excludes,
        problems=len(problems_of(scan, counts)),
        stats=stats_of(scan, counts),
        program=f"lox {__version__}",
        hosts=request.hosts,
        extra=selection_of(request, [path for path, _ in scan.problems]),
    )


def stats_of(scan: ScanStats, counts: CommitCounts) -> dict[str, int]:
    """The numbers of a snapshot."""
    return {
        "files": scan.files,
        "directories": scan.directories,
        "files_new": scan.files_new,
        "files_changed": scan.files_changed,
        "files_unchanged": scan.files_unchanged,
        "bytes_total": counts.bytes_total,
        "bytes_read": counts.bytes_read,
        "bytes_new": counts.bytes_new,
        "bytes_stored": counts.bytes_stored,
    }


def report_of(
    request: BackupRequest,
    snapshot: Snapshot | None,
    scan: ScanStats,
    counts: CommitCounts,
    trace: Trace,
    seconds: float,
    hosts: Mapping[str, Mapping[str, int]] = MappingProxyType({}),
) -> BackupReport:
    """What the caller is told; `seconds` it took, `hosts` what each of several hosts did."""
    return BackupReport(
        snapshot=snapshot,
        deduplicated=request.deduplicate,
        problems=problems_of(scan, counts),
        seconds=seconds,
        trace=trace,
        bottleneck=trace.bottleneck().text,
        hosts=hosts,
        **stats_of(scan, counts),
    )


def problems_of(scan: ScanStats, counts: CommitCounts) -> list[tuple[bytes, str]]:
    """All trouble once: a directory that could not be listed is known to the scan only."""
    told = {path for path, _ in counts.problems}
    return counts.problems + [problem for problem in scan.problems if problem[0] not in told]
