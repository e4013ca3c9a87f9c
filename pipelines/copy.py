"""copy: locate → download → decrypt → unpack → repack → encrypt → upload → settle, then snapshots, oldest first."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain

import numpy as np

from model.batches import Receipt
from model.entries import U8, Bool
from model.errors import Damaged, Interrupted, LoxError, UsageError
from model.orders import Moved, Order
from pipelines.copy_renamed import RenamedParts
from pipelines.copy_snapshots import Manifests, SnapshotCopier
from pipelines.copy_survey import Choice, Survey, choose_missing
from pipelines.fitting import Fitting
from pipelines.options import COPY, EngineOptions, Progress, Watch
from pipelines.runs import unwrapped
from repository.cache_dir import default_cache_dir
from repository.claims import ClaimTable
from repository.codecs import Codec, by_name
from repository.fetch import ChunkFetcher
from repository.manifest_reader import ManifestReader
from repository.pack import PackKind, pack_name
from repository.reading_index import ReadingIndex
from repository.reliance import Reliance
from repository.repository import Repository
from repository.sessions import Session, open_session, reading_session
from repository.snapshot import Snapshot, load_all
from repository.store.measured import REQUESTS
from repository.trash import load_trash
from runtime.drive import Control
from runtime.executors import Executor, open_executor
from runtime.plan import Flow, Plan
from runtime.trace import Trace
from stages.access import RepositoryAccess
from stages.encrypt import Decryptor, Encryptor
from stages.locate import locate_chunks
from stages.repack import Repacker, Unpacker
from stages.settle import CopyCounts, Settle
from stages.upload import Downloader, Release, Uploader

ORDERS_OPEN = 1024  # orders fed and not acknowledged: they are small, and a pack of well compressed segments takes many


@dataclass(frozen=True, slots=True)
class CopyRequest:
    """What to copy. `codec` None: what is taken apart is compressed with zstd, the rest stays as it is; else all is
    compressed anew. `verify`: prove every chunk by its id, also where that means to decompress it."""

    snapshots: tuple[Snapshot, ...]
    verify: bool = False
    dry_run: bool = False
    codec: str | None = None
    level: int | None = None


@dataclass(slots=True)
class CopyReport:
    """What a copy did. `copied` are pairs: a snapshot of the source, and what it became (itself in a dry run).

    `renamed`: the target names chunks in another way, so everything was decompressed. `failed`: by id, why a snapshot
    could not be copied whole and so was not. `chunks_needed` and `bytes_needed` were not in the target before, as far
    as that was known; `remarks` are for people.
    """

    copied: list[tuple[Snapshot, Snapshot]]
    present: int
    trashed: int
    failed: dict[str, str]
    renamed: bool
    counts: CopyCounts
    chunks_needed: int = 0
    bytes_needed: int = 0
    remarks: list[str] = field(default_factory=list)
    seconds: float = 0.0
    trace: Trace | None = None

    @property
    def bottleneck(self) -> str:
        return self.trace.bottleneck().text if self.trace is not None else ""


@dataclass(frozen=True, slots=True)
class Pair:
    """Where a copy comes from and goes to."""

    source: RepositoryAccess
    target: RepositoryAccess
    renamed: bool
    doubted: bool = False  # some packs of the source are from write-only machines, which nobody believes unproved


def copy_plan(pair: Pair, request: CopyRequest, engine: EngineOptions, kind: PackKind = PackKind.DATA) -> Plan:
    """The graph of a copy, for packs of one kind."""
    fitting = Fitting(engine, COPY)
    release = Release.FLUSHED if fitting.begins_after("repack") else Release.STORED
    codec, level = by_name(request.codec or Codec.ZSTD.name.lower(), request.level)
    anew = request.codec is not None
    return fitting.applied(
        Flow[Order]("locate")
        .then("download", Downloader(pair.source))
        .then("decrypt", Decryptor(pair.source))
        .then("unpack", Unpacker(pair.source, pair.renamed, request.verify or anew or pair.doubted))
        .then("repack", Repacker(pair.target, pair.renamed, codec, level, anew))
        .then("encrypt", Encryptor[Moved](pair.target, fitting.pack_bytes, kind))
        .then("upload", Uploader[Moved](pair.target, under_way=engine.packs_under_way, release=release))
        .plan("copy", sink="settle")
    )


def is_renaming(source: Repository, target: Repository) -> bool:
    """Whether chunks have other ids in the target. Raises UsageError if nothing can be copied from one to the other."""
    if source.id == target.id:
        raise UsageError(
            "source and target are the same repository", subject=target.store.url, hint="see lox store sync"
        )
    if source.chunker != target.chunker:
        raise UsageError(
            "the target cuts files into other chunks",
            subject=target.store.url,
            hint="make one with: lox init --copy-chunker-from URL",
        )
    return source.keys.id_key != target.keys.id_key


def copy(
    source: Repository, target: Repository, request: CopyRequest, engine: EngineOptions, watch: Watch
) -> CopyReport:
    """Copy snapshots, with all they need, into another repository; those that are there already are left alone.

    A snapshot that cannot be copied whole is not copied: why is in the report. Trouble with the target raises. Raises
    `Interrupted` if `watch.stop` is set: what was stored until then will be found by the next run.
    """
    begin, renamed = time.monotonic(), is_renaming(source, target)
    with reading_session(source, "copy"), contextlib.ExitStack() as stack:
        session = None if request.dry_run else stack.enter_context(open_session(target, "copy"))
        pair = Pair(RepositoryAccess(source), RepositoryAccess(target, session.condemned if session else None), renamed)
        report = _Copy(pair, request, engine, watch, session).run()
    report.seconds = time.monotonic() - begin
    return report


class _Copy:
    """One copy under way."""

    def __init__(
        self, pair: Pair, request: CopyRequest, engine: EngineOptions, watch: Watch, session: Session | None
    ) -> None:
        self._request, self._engine, self._watch = request, engine, watch
        self._source, self._target = pair.source.repository, pair.target.repository
        self._session = session
        self._damage: list[Damaged] = []
        self._index = ReadingIndex(self._source, default_cache_dir(), self._damage.append)
        self._pair = replace(pair, doubted=bool(self._index.known.pack_table["written"].any()))
        self._reliance = Reliance(pair.target.index)
        self._claims = ClaimTable(self._reliance)
        self._renames = RenamedParts(self._index) if pair.renamed else None
        self._survey = Survey(self._source, self._index, self._renames, watch)
        on_renamed = self._renames.names.add if self._renames is not None else None
        self._counts = CopyCounts()
        self._settle = Settle(self._target, self._claims, self._counts, on_renamed, self._note)

    def run(self) -> CopyReport:
        there, trash = load_all(self._target), load_trash(self._target, lambda name, error: None)
        choice = choose_missing(self._source, self._request.snapshots, self._target, there, trash)
        self._learn(choice, {snapshot.id: snapshot for snapshot in there})
        failed = self._survey.read(choice.wanted)
        needed = self._survey.needed
        needed.drop(self._is_there)
        report = CopyReport([], len(choice.present), len(choice.trashed), failed, self._pair.renamed, self._counts)
        report.chunks_needed, report.bytes_needed = needed.total()
        good = [snapshot for snapshot in choice.wanted if snapshot.id not in failed]
        if self._request.dry_run:
            report.copied = [(snapshot, snapshot) for snapshot in good]
        else:
            needed.spread()
            try:
                report.trace = self._move(report.bytes_needed)
                self._commit(good, choice, report)
            except LoxError:
                with contextlib.suppress(Exception):  # what is stored need not be sent again; why we failed counts
                    self._settle.write_index()
                raise
        if not report.failed:
            for (pack, _), why in self._counts.failed.items():
                self._source.rereads.spared(pack_name(pack), why)
        report.remarks += [str(error) for error in self._damage]
        return report

    def _commit(self, snapshots: list[Snapshot], choice: Choice, report: CopyReport) -> None:
        assert self._session is not None, "whoever stores something has a session"
        commit = SnapshotCopier(
            self._source, self._target, self._session, self._reliance, choice, self._request.snapshots
        )
        if self._renames is None:
            if self._survey.needed.missing(self._claims.resolved):
                report.failed |= self._survey.unproved(snapshots, self._claims)
            pairs: Iterable[tuple[Snapshot, Snapshot]] = zip(snapshots, snapshots, strict=True)
        else:
            manifests = Manifests(self._target, self._survey, self._renames, self._claims, self._settle)
            pairs = manifests.rewritten(snapshots, report.failed)
        for snapshot, rewritten in pairs:
            if self._watch.stop.is_set():
                raise Interrupted("interrupted", hint="the same command goes on where it stopped")
            done = len(commit.copied)
            self._watch.progress(Progress("snapshots", done, files_total=len(snapshots), noun="snapshots"))
            if snapshot.id not in report.failed:
                commit.save(snapshot, rewritten)
        report.copied, report.remarks = commit.copied, commit.remarks

    def _note(self, receipt: Receipt) -> None:
        """A pack was stored: we rely on it, and should we not finish, the next run will."""
        assert self._session is not None, "whoever stores something has a session"
        self._reliance.add([receipt])
        self._session.has_stored = True

    def _is_there(self, ids: U8) -> Bool:
        """Which chunks of the source are in the target, as far as that is known."""
        if self._renames is None:
            return self._claims.resolved(ids)
        names, known = self._renames.names.of(ids)
        known[known] = self._claims.resolved(names[known])
        return known

    def _learn(self, choice: Choice, there: dict[str, Snapshot]) -> None:
        """What chunks are called in the target, from the last copied snapshot of each source of backups."""
        if self._renames is None:
            return
        wanted = {(snapshot.host, snapshot.paths) for snapshot in choice.wanted}
        last = {(snapshot.host, snapshot.paths): snapshot for snapshot in choice.present}
        fetcher = ChunkFetcher(self._target, self._pair.target.index)
        for snapshot in [last[key] for key in wanted if key in last]:
            twin = there[choice.known[snapshot.made_as(self._source.id)]]
            with contextlib.suppress(Damaged):
                theirs = ManifestReader(twin.root, fetcher.fetch, twin.name)
                self._renames.learn(self._survey.reader(snapshot), theirs, self._claims)

    # ---- content

    def _move(self, size: int) -> Trace | None:
        """Bring all that is needed; the trace of the longest run."""
        segments = self._index.known.segments
        kinds = self._index.known.pack_table["kind"][segments.pack]
        both = [(kinds == kind, kind) for kind in (PackKind.DATA, PackKind.META)]
        # Renamed manifests are written anew; content that lies in metadata packs, because a file holds the same bytes
        # as a manifest, is content.
        runs = both if self._renames is None else [(np.ones(len(kinds), dtype=bool), PackKind.DATA)]
        traces: list[Trace] = []
        with open_executor(self._engine.on_one_host()) as executor:
            self._pair.source.secure(executor.keep)
            self._pair.target.secure(executor.keep)
            executor.host({"claims": self._claims, "requests": REQUESTS, **self._pair.source.services})
            for chosen, kind in runs:
                traces += self._passes(executor, chosen, kind, size)
        self._settle.write_index()
        return max(traces, key=lambda trace: trace.wall, default=None)

    def _passes(self, executor: Executor, chosen: Bool, kind: PackKind, size: int) -> Iterator[Trace]:
        """Runs until nothing more can be had: what does not open in one place may lie in another, and a worker that
        died may have held packs of orders that another one had finished."""
        plan = copy_plan(self._pair, self._request, self._engine, kind)
        failures, deaths = -1, 0
        while deaths or failures < len(self._counts.failed):
            failures = len(self._counts.failed)
            feed = self._orders(chosen & ~self._failed())
            first = next(feed, None)
            if first is None:
                return
            self._settle.begin()
            trace = unwrapped(partial(executor.run, plan, chain([first], feed), self._settle, self._control(size)))
            self._claims.release_all()
            deaths = trace.deaths
            yield trace

    def _control(self, size: int) -> Control:
        return Control(stop=self._watch.stop, unacked_max=ORDERS_OPEN, on_tick=lambda trace: self._tick(trace, size))

    def _orders(self, chosen: Bool) -> Iterator[Order]:
        """For all that is needed in these segments and not there yet: what is not doubted first."""
        index, seq = self._index.known, 0
        doubted = index.doubts > 0
        for segments in (chosen & ~doubted, chosen & doubted):
            for chunks in self._survey.needed.chunks(segments):
                keep = ~self._is_there(chunks.ids)
                place, ids = chunks.segment[keep], chunks.ids[keep]
                orders = locate_chunks(
                    index.segments, index.packs, place, chunks.offset[keep], chunks.length[keep], ids, seq
                )
                for order in orders:
                    seq += 1
                    yield order

    def _failed(self) -> Bool:
        """Segments that did not open."""
        index = self._index.known
        bad = {pack for pack, _ in self._counts.failed}
        rows = {pack: row for row, pack in enumerate(index.packs) if pack in bad}
        places = [rows[pack] << 32 | ordinal for pack, ordinal in self._counts.failed]
        failed: Bool = np.isin(index.segments.pack.astype(np.int64) << 32 | index.segments.ordinal, places)
        return failed

    def _tick(self, trace: Trace, size: int) -> None:
        counts = self._counts
        self._watch.traced(trace)
        self._watch.progress(
            Progress(
                "copy",
                counts.segments_copied + counts.segments_repacked,
                counts.plain,
                bytes_total=max(size, counts.plain),
                problems=len(counts.failed),
                limiting_stage=trace.limiting().name,
                noun="segments",
            )
        )
