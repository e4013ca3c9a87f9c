"""restore: locate → download → decrypt → decompress → verify → join → write → finish."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

import kernels
from model.entries import I32, order_key
from model.errors import Damaged, NotFound
from model.orders import Joined, Order
from pipelines.fitting import Fitting
from pipelines.keeping import keeper, of_host
from pipelines.options import RESTORE, EngineOptions, Progress, Watch
from pipelines.runs import unwrapped
from repository.cache_dir import default_cache_dir
from repository.entry_table import ChunkLists
from repository.fetch import ChunkFetcher
from repository.host_parts import HostPart, Manifest
from repository.manifest_reader import ManifestReader, OnLost
from repository.part_codec import PartRef
from repository.reading_index import ReadingIndex
from repository.repository import Repository
from repository.sessions import reading_session
from repository.snapshot import Snapshot
from repository.store.measured import REQUESTS
from runtime.drive import Control
from runtime.executors import open_executor
from runtime.plan import Flow, Plan
from runtime.trace import Trace
from sources.files.target import RestoreOptions, Target
from sources.files.target_folders import complete_below
from sources.files.target_plan import WindowPlan
from sources.files.target_verify import Check
from sources.files.target_writer import TargetWriter, is_simple
from stages.access import RepositoryAccess
from stages.chunk import Joiner
from stages.compress import Expander
from stages.encrypt import Decryptor
from stages.finish import Finish
from stages.hash import Verifier
from stages.locate import Wanted, locate, missing_files
from stages.upload import Downloader
from stages.write import Writer

WINDOW_FIRST = 1 << 12  # entries planned before the lanes have something to do; every further window is twice as large,
WINDOW_ROWS = 1 << 16  # up to this: it bounds the memory of a restore, whatever the size of the snapshot
LOST = "a chunk of it is in no index: lox check lists what is lost"
UNREADABLE = "the list of its chunks is damaged: lox check lists what is lost"


@dataclass(frozen=True, slots=True)
class RestoreRequest:
    """What to restore where. `target` is a folder, or ``/`` for in place; paths are as in the manifest, () is all."""

    snapshot: Snapshot
    target: bytes
    paths: tuple[bytes, ...] = ()
    overwrite: str = "if-changed"
    delete: bool = False
    dry_run: bool = False
    verify: bool = False
    permissions: bool = True
    of_host: str = ""  # of a snapshot of many hosts only the part of this one; its paths are those it has there


Problem = tuple[bytes, str]  # path, what is wrong


@dataclass(slots=True)
class RestoreReport:
    """What a restore did. `files` were written now, `skipped` were there already; `damaged`: the repository is."""

    files: int
    bytes: int
    skipped: int
    deleted: int
    problems: list[Problem]
    notes: dict[str, int]
    seconds: float
    trace: Trace
    bottleneck: str
    damaged: bool = False


def reading_flow(access: RepositoryAccess) -> Flow[Joined]:
    """From orders to proved content: that of a backup, backwards, up to where something is done with it."""
    return (
        Flow[Order]("locate")
        .then("download", Downloader(access))
        .then("decrypt", Decryptor(access))
        .then("decompress", Expander())
        .then("verify", Verifier(access))
        .then("join", Joiner())
    )


def restore_plan(access: RepositoryAccess, writer: TargetWriter | None, engine: EngineOptions) -> Plan:
    """The graph of a restore."""
    return Fitting(engine, RESTORE).applied(
        reading_flow(access).then("write", Writer(writer)).plan("restore", sink="finish")
    )


def restore(repository: Repository, request: RestoreRequest, engine: EngineOptions, watch: Watch) -> RestoreReport:
    """Restore entries of a snapshot below `request.target`.

    Trouble with single entries is in the report. Raises NotFound for paths that are not in the snapshot, `Interrupted`
    if `watch.stop` is set; the same request then goes on where it stopped.
    """
    if request.of_host:
        request = replace(request, snapshot=of_host(request.snapshot, request.of_host))
    with reading_session(repository, "restore"):
        return _restore(repository, request, engine, watch)


def _restore(repository: Repository, request: RestoreRequest, engine: EngineOptions, watch: Watch) -> RestoreReport:
    begin = time.monotonic()
    access = RepositoryAccess(repository)
    index_damage: list[Damaged] = []
    index = ReadingIndex(repository, default_cache_dir(), index_damage.append)
    fetcher = ChunkFetcher(repository, index)
    reader: Manifest = ManifestReader(request.snapshot.root, fetcher.fetch, request.snapshot.name)
    if request.of_host:
        reader = HostPart(reader, request.of_host)
    options = RestoreOptions(
        overwrite=request.overwrite,
        delete=request.delete,
        dry_run=request.dry_run,
        permissions=request.permissions,
        complete=complete_below(request.snapshot.roots, request.paths),
        keep=keeper(request.snapshot, os.path.realpath(request.target), repository.store.url),
    )
    with Target(request.target, options) as target:
        finish = Finish(target)
        feed = _Orders(index, reader, target, finish, request)
        plan = restore_plan(access, target.writer(), engine)
        progress = _Progress(watch, finish, target, request)
        control = Control(stop=watch.stop, on_tick=progress.tick)
        with open_executor(engine.on_one_host()) as executor:
            access.secure(executor.keep)
            executor.host({"requests": REQUESTS, **access.services})
            trace = unwrapped(lambda: executor.run(plan, feed, finish, control))
        target.finish()
        if request.verify and not request.dry_run:
            _verify(access, reader, target, request, watch)
        summary = target.summary
        progress.tell_problems()
    return RestoreReport(
        files=summary.files,
        bytes=summary.bytes,
        skipped=summary.skipped,
        deleted=summary.deleted,
        problems=summary.problems,
        notes=dict(summary.notes) | {str(error): 1 for error in index_damage},
        seconds=time.monotonic() - begin,
        trace=trace,
        bottleneck=trace.bottleneck().text,
        damaged=finish.damaged or feed.damaged or bool(index_damage or repository.rereads.damaged),
    )


class _Orders:
    """The feed: prepares window after window and gives the orders that bring its content."""

    def __init__(
        self,
        index: ReadingIndex,
        reader: Manifest,
        target: Target,
        finish: Finish,
        request: RestoreRequest,
    ) -> None:
        self._index = index
        self._reader = reader
        self._target = target
        self._finish = finish
        self._request = request
        self.damaged = False

    def __iter__(self) -> Iterator[Order]:
        seq = 0
        on_lost = None if self._request.delete else self._lost  # what is not known to be there is not known to be gone
        for number, table in enumerate(windows(self._reader, self._request.paths, on_lost)):
            plan = self._target.prepare(table)
            if self._request.dry_run:
                continue
            orders = self._orders(number, plan, seq)
            seq += len(orders)
            self._finish.expect(number, plan, orders)
            yield from orders

    def _lost(self, part: PartRef, error: Damaged) -> None:
        """Entries that cannot even be named; the others are restored."""
        last = part.last.decode("utf-8", "backslashreplace")
        self._target.summary.problems.append((part.first, f"lost with all {part.rows} entries up to {last}: {error}"))
        self.damaged = True

    def _orders(self, number: int, plan: WindowPlan, seq: int) -> list[Order]:
        rows = plan.fetch
        if not len(rows):
            return []
        unreadable: list[int] = []
        lists, file = content_of(self._reader, plan.entries, rows, lambda row, _: unreadable.append(row))
        for row in unreadable:
            self._target.fail(plan, int(rows[row]), UNREADABLE)
            self.damaged = True
        extents = {new: plan.extents[row] for new, row in enumerate(rows.tolist()) if row in plan.extents}
        paths = plan.entries["path"].take(pa.array(rows)).combine_chunks()
        wanted = Wanted(number, rows, paths, plan.stat[rows], file, lists.ids, lists.length, extents)
        where = self._index.lookup(wanted.ids)
        for lost in missing_files(wanted, where.found).tolist():
            self._target.fail(plan, int(rows[lost]), LOST)
            self.damaged = True
        orders = list(locate(wanted, where, seq))
        begin = [order.rows[~is_simple(order.whole, order.extents)] for order in orders]
        self._target.begin_files(plan, np.unique(np.concatenate([np.zeros(0, dtype=np.int32), *begin])))
        return orders


def windows(reader: Manifest, paths: tuple[bytes, ...], on_lost: OnLost | None = None) -> Iterator[pa.Table]:
    """The wanted entries in manifest order, up to `WINDOW_ROWS` at a time, with the folders above them."""
    held: list[pa.Table] = []
    rows, limit = 0, WINDOW_FIRST
    for table in _selected(reader, paths, on_lost):
        at = 0
        while at < table.num_rows:
            part = table.slice(at, limit - rows)
            at += part.num_rows
            held.append(part)
            rows += part.num_rows
            if rows == limit:
                yield pa.concat_tables(held)
                held, rows, limit = [], 0, min(2 * limit, WINDOW_ROWS)
    if held:
        yield pa.concat_tables(held)


def _selected(reader: Manifest, paths: tuple[bytes, ...], on_lost: OnLost | None) -> Iterator[pa.Table]:
    if not paths or b"" in paths:
        yield from reader.subtree(b"", on_lost)
        return
    chosen: list[bytes] = []
    for path in sorted(set(paths), key=order_key):
        if not any(path.startswith(above + b"/") for above in chosen):
            chosen.append(path)
    above = {path[:at] for path in chosen for at in range(len(path)) if path[at : at + 1] == b"/"}
    parts: dict[bytes, pa.Table] = {path: entry for path in above if (entry := reader.find(path)) is not None}
    for path in chosen:
        if (entry := reader.find(path)) is None:
            raise NotFound("no such path in the snapshot", subject="/" + path.decode("utf-8", "backslashreplace"))
        parts[path] = entry
    rows = [parts[path] for path in sorted(parts, key=order_key)]
    yield pa.concat_tables(rows)
    for path in sorted(chosen, key=lambda path: path.replace(b"/", b"\0")):
        for table in reader.subtree(path, on_lost):
            below = table.slice(1) if table["path"][0].as_py() == path else table
            if below.num_rows:
                yield below


def content_of(
    reader: Manifest, entries: pa.Table, rows: I32, on_damage: Callable[[int, Damaged], None] | None = None
) -> tuple[ChunkLists, I32]:
    """The chunks of these rows, and for each chunk which of the rows it belongs to."""
    lists = reader.content(entries.take(pa.array(rows)), on_damage)
    return lists, np.repeat(np.arange(len(rows), dtype=np.int32), np.diff(lists.offsets))


def _verify(access: RepositoryAccess, reader: Manifest, target: Target, request: RestoreRequest, watch: Watch) -> None:
    """Read everything that was to be restored again and compare."""
    key, done = access.repository.keys.id_key, Progress("verify")
    for table in windows(reader, request.paths, lambda part, error: None):  # told already
        rows, sizes, extents = target.to_verify(table)
        if not len(rows):
            continue
        lists, file = content_of(reader, table, rows, lambda row, error: None)
        paths = table["path"].take(pa.array(rows))
        check = Check(rows, target.paths_of(paths), sizes, file, lists.ids, lists.length, extents)
        target.verify(check, lambda body, start, length: kernels.hash_chunks(key, body, start, length))
        done.files_done, done.bytes_done = done.files_done + len(rows), done.bytes_done + int(sizes.sum())
        watch.progress(done)


class _Progress:
    """Turns the state of the run into what the watcher is told."""

    def __init__(self, watch: Watch, finish: Finish, target: Target, request: RestoreRequest) -> None:
        self._watch = watch
        self._told = 0
        self._finish = finish
        self._target = target
        stats = {} if request.paths or request.of_host else request.snapshot.stats
        self._files_total, self._bytes_total = stats.get("files"), stats.get("bytes_total")

    def tell_problems(self) -> None:
        """Those that came up since the last call."""
        problems = self._target.summary.problems
        for path, text in problems[self._told :]:
            self._watch.problem(path, text)
        self._told = len(problems)

    def tick(self, trace: Trace) -> None:
        self._watch.traced(trace)
        self.tell_problems()
        self._watch.progress(
            Progress(
                phase="restore",
                files_done=self._finish.files,
                bytes_done=self._finish.bytes,
                files_total=self._files_total,
                bytes_total=self._bytes_total,
                problems=len(self._target.summary.problems),
                limiting_stage=trace.limiting().name,
            )
        )
