"""Records of runs: what every command on this host that takes its time did to a repository, second by second.

    <state>/runs/<repository id>/<run id>.parquet   a run that is over, or under way and recorded so far
    <state>/runs/<repository id>/<run id>.json      the status of one under way, or of one that was killed
    <state>/runs/<repository id>/<run id>.lock      held by the process of one under way

For tables: ``RunStore(repository_id).list()`` is a pyarrow Table with a row for each run (schema `RUNS`), oldest first;
``RunStore(repository_id).open(run_id)`` a `RunRecord`, with `summary` (`RunSummary`) and `timeline`, a Table with a row
for each interval and stage (schema `TIMELINE`). ``RunStore()`` is of all repositories. `KEEP_RECORDS`, `KEEP_DAYS` and
`KEEP_BYTES` bound what is kept of each repository. `RunRecorder` (run_recorder.py) writes the records.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TypeAlias

import pyarrow as pa

from model.errors import Damaged, LoxError, NotFound
from pipelines.run_status import STALE_SECONDS, STATUS_MAX, RunStatus, is_held, read_bounded, write_private
from pipelines.run_summary import RunSummary
from repository.cache_dir import default_state_dir
from runtime.timeline import COUNTS, TIMES, Timeline

RUNS_FOLDER = "runs"
KEEP_RECORDS, KEEP_DAYS, KEEP_BYTES = 1000, 400, 64 << 20
RECORD_MAX = 64 << 20  # bytes of one record; `Timeline` keeps them far below
SUMMARY_KEY = b"lox.run"
LAST = "last"

RUNS = pa.schema(
    [
        ("id", pa.string()),
        ("kind", pa.string()),  # see KINDS
        ("repository_id", pa.string()),  # in hex
        ("repository", pa.string()),  # its URL
        ("host", pa.string()),
        ("started", pa.timestamp("ns", "UTC")),
        ("paths", pa.list_(pa.binary())),
        ("profile", pa.string()),
        ("settings", pa.map_(pa.string(), pa.string())),
        ("program", pa.string()),
        ("executor", pa.string()),
        ("lanes", pa.int32()),
        ("cores", pa.int32()),
        ("wall", pa.float64()),  # seconds
        ("outcome", pa.string()),  # see OUTCOMES
        ("exit_code", pa.int16()),  # null while there is none
        ("error", pa.string()),
        ("files", pa.int64()),
        ("bytes_read", pa.int64()),
        ("bytes_new", pa.int64()),
        ("bytes_stored", pa.int64()),
        ("bytes_deleted", pa.int64()),
        ("snapshots", pa.int64()),  # copied, forgotten or purged
        ("problems", pa.int64()),
        ("snapshot", pa.string()),
        ("bottleneck", pa.string()),
        ("limiting", pa.string()),
        ("gain", pa.float64()),
    ]
)
TIMELINE = pa.schema(
    [
        ("plan", pa.int16()),  # which of the plans the run went through: 0, 1, ...
        ("begin", pa.float64()),  # seconds after the run began
        ("seconds", pa.float64()),  # how long the interval was: about 1, longer in long runs
        ("stage", pa.dictionary(pa.int32(), pa.string())),
        ("strand", pa.dictionary(pa.int32(), pa.string())),
        ("lanes", pa.int32()),
        *((name, pa.int64()) for name in COUNTS),  # items and bytes of this interval
        *((name, pa.float64()) for name in TIMES),  # seconds of all lanes: they add up to seconds × lanes
    ]
)

Part = tuple[float, Timeline]
"""When a plan began, in seconds after the run did, and its timeline."""


# `list` means something else inside of RunStore.
Summaries: TypeAlias = list[RunSummary]
Statuses: TypeAlias = list[RunStatus]
Paths: TypeAlias = list[Path]


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One run: its summary, and what each stage did when."""

    summary: RunSummary
    timeline: pa.Table


class RunStore:
    """The records of one repository (its id, or that in hex), or of all that this host worked on."""

    def __init__(self, repository_id: bytes | str | None = None, state_dir: Path | None = None) -> None:
        self._state_dir = state_dir
        self._only = repository_id.hex() if isinstance(repository_id, bytes) else repository_id

    def list(self, last: int | None = None, kind: str | None = None) -> pa.Table:
        """The `last` runs (None: all), of one `kind` if wanted, the newest last. Schema `RUNS`."""
        return runs_table(self.summaries(last, kind))

    def summaries(self, last: int | None = None, kind: str | None = None, repository: str = "") -> Summaries:
        """The same as objects. A record that cannot be read has the outcome "unreadable". `repository`: only of this
        URL."""
        found: list[RunSummary] = []
        for base in reversed(self._bases()):
            if last is not None and len(found) >= last:
                break
            summary = self._summary(base)
            if summary is None or (kind and summary.kind != kind):
                continue
            if not repository or summary.repository == repository:
                found.append(summary)
        return found[::-1]

    def open(self, reference: str = LAST) -> RunRecord:
        """The run with this id, the one whose id begins so, or the "last" one. Raises NotFound, Damaged."""
        base = self._find(reference)
        record, status = base.with_suffix(".parquet"), self._status(base)
        if status is not None:
            summary = status.summary
            if not record.exists():
                return RunRecord(summary, timeline_table(_whole(status)))
        else:
            summary = _read_summary(record)
        return RunRecord(summary, _read_timeline(record))

    def running(self) -> Statuses:
        """The runs under way on this host, the oldest first."""
        statuses = [self._status(base) for base in self._bases() if base.with_suffix(".json").exists()]
        return [status for status in statuses if status is not None and status.alive]

    @property
    def _root(self) -> Path:
        return (self._state_dir or default_state_dir()) / RUNS_FOLDER

    # ---- for the recorder

    def folder(self, repository_id: str) -> Path:
        """Where the records of a repository lie; made if missing, mode 0700. Raises OSError."""
        folder = self._root / repository_id
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder

    def thin(self, repository_id: str) -> None:
        """Let the oldest records of a repository go, until what is left keeps within the bounds. Raises OSError."""
        bases = RunStore(repository_id, self._root.parent)._bases()
        size = 0
        oldest = time.time() - KEEP_DAYS * 86400
        for kept, base in enumerate(reversed(bases), 1):
            files = [base.with_suffix(suffix) for suffix in (".parquet", ".json", ".lock")]
            states = [file.stat() for file in files if file.exists()]
            size += sum(state.st_size for state in states)
            too_old = max((state.st_mtime for state in states), default=0.0) < oldest
            if (kept > KEEP_RECORDS or size > KEEP_BYTES or too_old) and not is_held(files[2]):
                for file in files:
                    file.unlink(missing_ok=True)
        for left in self.folder(repository_id).glob(".new-*"):  # of somebody who was killed while writing
            with suppress(FileNotFoundError):
                if left.stat().st_mtime < time.time() - 3600:
                    left.unlink()

    # ---- reading

    def _bases(self) -> Paths:
        """The paths of all runs without their suffix, the oldest first."""
        folders = [self._root / self._only] if self._only is not None else _listed(self._root)
        names = {path.with_suffix("") for folder in folders for path in _listed(folder) if _is_of_run(path)}
        return sorted(names, key=lambda base: base.name)

    def _find(self, reference: str) -> Path:
        bases = self._bases()
        if reference == LAST and bases:
            return bases[-1]
        found = [base for base in bases if base.name.startswith(reference)]
        if len(found) == 1:
            return found[0]
        hint = "'lox runs' lists them" if bases else "the next backup leaves one"
        what = "several runs begin like this" if found else "no such run"
        raise NotFound(what, subject=reference, hint=hint)

    def _summary(self, base: Path) -> RunSummary | None:
        try:
            status = self._status(base)
            return status.summary if status is not None else _read_summary(base.with_suffix(".parquet"))
        except FileNotFoundError:  # it was thinned just now
            return None
        except (OSError, LoxError) as error:
            return RunSummary(base.name, "", base.parent.name, outcome="unreadable", error=str(error))

    def _status(self, base: Path) -> RunStatus | None:
        """Of a run that is under way or was killed; None if there is no status, or the run ended meanwhile."""
        path = base.with_suffix(".json")
        try:
            status = RunStatus.decode(read_bounded(path, STATUS_MAX), path.name)
        except FileNotFoundError:
            return None
        status.alive = is_held(base.with_suffix(".lock")) or time.time() - status.written < STALE_SECONDS
        if not status.alive:
            if not path.exists():
                return None
            status.summary.outcome = "killed"
        return status


def _listed(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _is_of_run(path: Path) -> bool:
    return path.suffix in (".parquet", ".json") and not path.name.startswith(".")


def _whole(status: RunStatus) -> Sequence[Part]:
    """What a status knows, as one interval."""
    if status.trace is None:
        return ()
    timeline = Timeline()
    timeline.tick(status.trace, last=True)
    return [(max(0.0, status.summary.wall - status.trace.wall), timeline)]


# ---- tables


def runs_table(summaries: Sequence[RunSummary]) -> pa.Table:
    """Summaries as a table of schema `RUNS`."""
    columns = {
        part.name: [getattr(summary, part.name) for summary in summaries]
        for part in fields(RunSummary)
        if part.name != "settings"
    }
    settings = [list(summary.settings.items()) for summary in summaries]
    return pa.table(
        [pa.array(settings if part.name == "settings" else columns[part.name], part.type) for part in RUNS],
        schema=RUNS,
    )


def timeline_table(parts: Iterable[Part]) -> pa.Table:
    """The timelines of a run as one table of schema `TIMELINE`."""
    tables = [_part_table(number, *part) for number, part in enumerate(parts) if len(part[1])]
    return pa.concat_tables(tables).unify_dictionaries() if tables else TIMELINE.empty_table()


def _part_table(number: int, began: float, timeline: Timeline) -> pa.Table:
    intervals, stages = list(timeline.intervals()), timeline.stages
    rows = len(intervals) * len(stages)
    columns: dict[str, pa.Array] = {
        "plan": pa.array([number] * rows, pa.int16()),
        "begin": pa.array([began + each.begin for each in intervals for _ in stages]),
        "seconds": pa.array([each.seconds for each in intervals for _ in stages]),
        "stage": pa.array([line.name for line in stages] * len(intervals)).dictionary_encode(),
        "strand": pa.array([line.strand for line in stages] * len(intervals)).dictionary_encode(),
        "lanes": pa.array([line.lanes for line in stages] * len(intervals), pa.int32()),
    }
    for place, name in enumerate((*COUNTS, *TIMES)):
        values = [value for each in intervals for value in each.values[:, place].tolist()]
        columns[name] = pa.array(values).cast(TIMELINE.field(name).type)
    return pa.table(columns, schema=TIMELINE)


def write_record(path: Path, summary: RunSummary, parts: Iterable[Part]) -> None:
    """Put a record in its place, all of it or nothing, mode 0600. Raises OSError."""
    import pyarrow.parquet as pq  # slow to import

    table = timeline_table(parts).replace_schema_metadata({SUMMARY_KEY: summary.encode()})
    out = pa.BufferOutputStream()
    pq.write_table(table, out, compression="zstd")
    write_private(path, out.getvalue().to_pybytes())


def _read_summary(path: Path) -> RunSummary:
    import pyarrow.parquet as pq

    try:
        known = pq.read_schema(path, memory_map=False).metadata or {}
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError) as error:
        raise Damaged("a record of a run cannot be read", subject=path.name, why=_first_line(error)) from error
    return RunSummary.decode(known.get(SUMMARY_KEY, b""), path.name)


def _read_timeline(path: Path) -> pa.Table:
    import pyarrow.parquet as pq

    data = read_bounded(path, RECORD_MAX)
    try:
        table = pq.read_table(pa.BufferReader(data))
    except (pa.ArrowException, OSError) as error:
        raise Damaged("a record of a run cannot be read", subject=path.name, why=_first_line(error)) from error
    if table.schema.remove_metadata() != TIMELINE:
        raise Damaged("a record of a run has other columns", subject=path.name)
    return table.replace_schema_metadata(None)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
