"""The share of one host in a backup of many: it scans, reads and stores its own file system, all by itself.

It runs on that host, as an errand: the graph of any backup, on threads. What it shares with the other hosts are
services of the process that started the run: claims, so that a chunk is stored once whichever host has it, and the
intake of receipts. What comes of it are the parts of the manifest with its entries; the snapshot is written by others.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

import kernels
from model.entries import Fresh, Paths
from model.errors import LoxError
from pipelines.backup import BackupRequest, backup_plan
from pipelines.backup_progress import RunProgress
from pipelines.fitting import Fitting
from pipelines.options import BACKUP, EngineOptions, Progress, Watch
from pipelines.runs import unwrapped
from pipelines.scanning import scanner_of
from pipelines.strictness import Strictness
from repository.claims import HostClaims
from repository.host_parts import HostManifest, HostPart, HostRows
from repository.manifest import ChunkLists, fresh_table
from repository.manifest_reader import ManifestReader
from repository.metadata import MetadataStore
from repository.snapshot import Snapshot
from repository.store.measured import REQUESTS
from runtime.drive import Control
from runtime.executors import open_executor
from runtime.stage import StopSignal
from runtime.trace import Trace
from sources.files.scan import Scanner, ScanStats
from stages.access import RepositoryAccess
from stages.commit import Commit, CommitCounts
from stages.ground import GROUND
from stages.ledger import CutLedger

TELLING = "telling"  # the service that hears what hosts tell
ITEMS_MAX = 1000  # told at a time


@dataclass(slots=True)
class Told:
    """What a host tells about five times a second; paths are as on the host."""

    progress: Progress | None = None
    trace: Trace | None = None
    problems: list[tuple[bytes, str]] = field(default_factory=list)
    items: list[tuple[bytes, str, int]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class ShareMade:
    """What a host has done, since it `started` by its own clock, ns since the epoch. Paths of problems are those of the
    manifest."""

    started: int
    rows: HostRows
    scan: ScanStats
    counts: CommitCounts
    trace: Trace


@dataclass(frozen=True, slots=True)
class Share:
    """The errand. `parent` is the snapshot to compare with, in which `host` has a part; None: everything is read."""

    host: str
    number: int
    request: BackupRequest
    engine: EngineOptions
    access: RepositoryAccess
    parent: Snapshot | None
    wants_items: bool

    def __call__(self, services: Mapping[str, Any], stop: StopSignal, life: int) -> ShareMade:
        started = time.time_ns()
        watch = HostWatch(services[TELLING], self.host, self.wants_items)
        request, claims = self.request, HostClaims(services["claims"], self.host, life)
        metadata = MetadataStore(self.access.repository, claims, request.dry_run)
        manifest = HostManifest(metadata.store, self.host, self.number, _top())
        strictness = Strictness(request.unreadable_file, request.changed_while_reading, watch.problem)
        on_item = watch.item if watch.wants_items else None
        commit = Commit(services["intake"], claims, metadata, manifest, strictness.problem, on_item)
        try:
            scanner = self._scanner(services)
            trace = self._run(scanner, commit, claims, services, watch, stop)
            strictness.judge(scanner.stats.problems)
            rows = commit.finish()
        except LoxError:
            commit.write_index()
            raise
        finally:
            watch.send()
            services["requests"].add(REQUESTS.take())
        return ShareMade(started, rows, _scan_of(self.host, scanner.stats), _counts_of(self.host, commit.counts), trace)

    def _run(
        self,
        scanner: Scanner,
        commit: Commit[HostRows],
        claims: HostClaims,
        services: Mapping[str, Any],
        watch: HostWatch,
        stop: StopSignal,
    ) -> Trace:
        progress = RunProgress(watch, commit.counts, scanner.stats, None)
        plan = backup_plan(self.access, self.request, self.engine)
        control = Control(stop, unacked_max=Fitting(self.engine, BACKUP).batches_open, on_tick=progress.tick)
        with open_executor(self.engine.executor) as executor:
            executor.host({"claims": claims, "ledger": CutLedger(), "requests": services["requests"]})
            executor.host({GROUND: services[GROUND]})
            return unwrapped(lambda: executor.run(plan, progress.following(scanner), commit, control))

    def _scanner(self, services: Mapping[str, Any]) -> Scanner:
        def manifest_of(parent: Snapshot) -> HostPart:
            return HostPart(ManifestReader(parent.root, services["manifests"].fetch, parent.name), self.host)

        return scanner_of(self.request, self.engine, self.parent, manifest_of, services["reliance"].contains)


class HostWatch(Watch):
    """Gathers what there is to tell and sends it with the progress."""

    def __init__(self, telling: Any, host: str, wants_items: bool) -> None:
        super().__init__()
        self.wants_items = wants_items
        self._telling = telling
        self._host = host
        self._told = Told()

    def problem(self, path: bytes, text: str) -> None:
        self._told.problems.append((path, text))

    def item(self, path: bytes, action: str, size: int) -> None:
        self._told.items.append((path, action, size))
        if len(self._told.items) >= ITEMS_MAX:
            self.send()

    def traced(self, trace: Trace) -> None:
        self._told.trace = trace

    def progress(self, progress: Progress) -> None:
        self._told.progress = progress
        self.send()

    def send(self) -> None:
        """Tell now; what was gathered is told once."""
        told, self._told = self._told, Told()
        self._telling.tell(self._host, told)


def below(host: str, path: bytes) -> bytes:
    """The path of an entry of a host as it is in the manifest."""
    return os.fsencode(host) + (b"/" + path if path else b"")


def _top() -> pa.Table:
    """The row of ``/`` of this host."""
    root_fd = os.open(b"/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        stat = kernels.stat_paths(root_fd, Paths.of([b""]))
    finally:
        os.close(root_fd)
    nothing = ChunkLists.of_rows(1, np.zeros(0, np.int32), np.zeros((0, 32), np.uint8), np.zeros(0, np.uint32))
    return fresh_table(Fresh(Paths.of([b""]), stat, np.zeros(1, np.uint32), np.zeros(1, np.bool_)), nothing)


def _scan_of(host: str, scan: ScanStats) -> ScanStats:
    scan.problems = [(below(host, path), text) for path, text in scan.problems]
    return scan


def _counts_of(host: str, counts: CommitCounts) -> CommitCounts:
    counts.problems = [(below(host, path), text) for path, text in counts.problems]
    return counts
