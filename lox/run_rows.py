"""Runs and their stages as rows: what `lox runs`, `lox run show` and `lox run compare` print."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from lox.escape import path_fields, safe, shown
from lox.output import table
from lox.units import format_count, format_rate, format_seconds, format_share, format_size, format_time, plural, rfc3339
from pipelines.run_summary import RunSummary
from runtime.timeline import COUNTS, TIMES
from runtime.trace import StageTrace, Trace

COLUMNS = 60  # of a line over time
BARS = " ▁▂▃▄▅▆▇█"
PLAIN_BARS = " .:-=+*#@"  # for terminals that have no others


def run_fields(summary: RunSummary) -> dict[str, object]:
    """A run for JSON."""
    return {
        **summary.document(),
        "started": rfc3339(summary.started),
        "wall": round(summary.wall, 3),
        "gain": round(summary.gain, 3),
        "paths": [path_fields(path) for path in summary.paths],
    }


def run_row(summary: RunSummary) -> tuple[str, ...]:
    """A line of `lox runs`."""
    return (
        summary.id,
        format_time(summary.started) if summary.started else "",
        safe(summary.kind),
        outcome_text(summary),
        format_seconds(summary.wall),
        format_count(summary.files),
        format_size(summary.bytes_read),
        format_size(summary.bytes_stored),
        safe(summary.limiting) or ("nothing" if summary.bottleneck else ""),
        paths_text(summary),
    )


RUN_HEADINGS = ("RUN", "STARTED", "KIND", "OUTCOME", "TOOK", "FILES", "READ", "STORED", "LIMIT", "PATHS")


def outcome_text(summary: RunSummary) -> str:
    """How it ended, with the exit code if that says more."""
    return summary.outcome if summary.exit_code in (None, 0, 130) else f"{summary.outcome} ({summary.exit_code})"


def paths_text(summary: RunSummary) -> str:
    """What was backed up, or where to; of a copy: where from."""
    return ", ".join([shown(path) for path in summary.paths]) or safe(summary.settings.get("from", ""))


def setting(name: str, value: str) -> str:
    """One setting of a run for the eye."""
    return format_size(int(value)) if name == "memory" and value.isdecimal() else value


def facts(summary: RunSummary) -> list[tuple[str, str]]:
    """The summary of one run, a line a fact."""
    lanes = f", {summary.lanes} lane{'s' * (summary.lanes != 1)} on {summary.cores} cores" if summary.lanes else ""
    work = [f"{format_count(summary.files)} files"] if summary.files else []
    work += [plural(summary.snapshots, "snapshot")] if summary.snapshots else []
    for name in ("read", "new", "stored", "deleted"):
        size = getattr(summary, f"bytes_{name}")
        work += [f"{name} {format_size(size)}"] if size else []
    settings = ", ".join([f"{name} {setting(name, value)}" for name, value in sorted(summary.settings.items())])
    lines = [
        ("run", f"{summary.id}: {summary.kind}, {outcome_text(summary)}"),
        ("why", summary.error),
        ("repository", summary.repository),
        ("paths", paths_text(summary)),
        ("host", f"{summary.host}, {summary.program}"),
        ("started", f"{format_time(summary.started)}, took {format_seconds(summary.wall)}"),
        ("engine", f"{summary.executor}{lanes}"),
        ("profile", summary.profile),
        ("settings", settings),
        ("work", ", ".join(work)),
        ("problems", format_count(summary.problems) if summary.problems else ""),
        ("snapshot", summary.snapshot),
    ]
    return [(name, safe(text)) for name, text in lines if text]


@dataclass(frozen=True, slots=True)
class Stages:
    """A timeline as arrays: the totals of each stage, and when it was busy. `wall` is that of the plans, in seconds;
    the first one began at `begin`, seconds after the run did.
    """

    lines: tuple[StageTrace, ...]
    wall: float
    begin: float
    ends: dict[str, Any]  # by stage: when its intervals ended, seconds after the run began
    busy: dict[str, Any]  # by stage: busy seconds up to then

    @classmethod
    def of(cls, timeline: pa.Table) -> Stages:
        """Of a table of schema `TIMELINE`; stages of the same name in several plans count as one."""
        columns = {name: timeline[name].combine_chunks().to_numpy(zero_copy_only=False) for name in _NUMBERS}
        names = np.array(timeline["stage"].to_pylist(), dtype=object)
        strands = np.array(timeline["strand"].to_pylist(), dtype=object)
        lines, ends, busy = [], {}, {}
        for name in dict.fromkeys(names.tolist()):
            rows = names == name
            sums: dict[str, Any] = {column: int(columns[column][rows].sum()) for column in COUNTS}
            sums |= {column: float(columns[column][rows].sum()) for column in TIMES}
            lines.append(StageTrace(name, strands[rows][0], int(columns["lanes"][rows].max()), **sums))
            ends[name] = columns["begin"][rows] + columns["seconds"][rows]
            busy[name] = np.cumsum(columns["busy"][rows])
        _, rows = np.unique(np.stack([columns["plan"], columns["begin"]]), axis=1, return_index=True)
        begin = float(columns["begin"].min()) if len(names) else 0.0
        return cls(tuple(lines), float(columns["seconds"][rows].sum()), begin, ends, busy)

    def trace(self, summary: RunSummary) -> Trace:
        """The totals as the trace of a run."""
        return Trace(summary.executor, self.wall, self.lines, cores=summary.cores)

    def over_time(self, name: str, columns: int) -> list[float]:
        """The share of the time a stage was busy, in so many equal parts of the run."""
        (line,) = [line for line in self.lines if line.name == name]
        end = max(float(ends[-1]) for ends in self.ends.values())
        edges = np.linspace(0.0, end, columns + 1)
        known = np.interp(edges, [self.begin, *self.ends[name]], [0.0, *self.busy[name]])
        return [float(share) for share in np.diff(known) / (end / columns * line.lanes)]


_NUMBERS = ("plan", "begin", "seconds", "lanes", *COUNTS, *TIMES)
STAGE_HEADINGS = ("STAGE", "LANES", "ITEMS", "IN", "OUT", "SPEED", "BUSY", "BUSY %", "STARVED", "BLOCKED")


def speed(line: StageTrace) -> float:
    """Bytes (of a stage without any, items) for each second that one lane of the stage was busy."""
    return amount(line) / line.busy if line.busy > 0 else 0.0


def amount(line: StageTrace) -> int:
    """The bytes a stage worked on; its items if it knows of none."""
    return max(line.bytes_in, line.bytes_out) or max(line.items_in, line.items_out)


def speed_text(line: StageTrace) -> str:
    """The speed of one busy lane."""
    if not amount(line) or not line.busy:
        return ""
    in_bytes = max(line.bytes_in, line.bytes_out) > 0
    return format_rate(speed(line)) if in_bytes else f"{speed(line):,.0f} items/s"


def stage_table(stages: Stages) -> list[str]:
    """What each stage did: a line a stage; shares are of wall time × lanes."""
    rows = []
    for line in stages.lines:
        whole = line.busy + line.starved + line.blocked
        shares = [format_share(part, whole) for part in (line.busy, line.starved, line.blocked)]
        rows.append(
            (safe(line.name), str(line.lanes), format_count(max(line.items_in, line.items_out)),
             format_size(line.bytes_in), format_size(line.bytes_out), speed_text(line), f"{line.busy:.2f} s", *shares)
        )  # fmt: skip
    return table(STAGE_HEADINGS, rows, right=range(1, 10)) if rows else []


def stage_fields(line: StageTrace) -> dict[str, object]:
    """A stage of a run for JSON."""
    counts = {name: getattr(line, name) for name in COUNTS}
    times = {name: round(getattr(line, name), 6) for name in TIMES}
    return {"stage": line.name, "strand": line.strand, "lanes": line.lanes, **counts, **times}


def busy_lines(stages: Stages, columns: int = COLUMNS) -> list[str]:
    """How busy each stage was when: a line a stage, from the beginning of the run to its end."""
    if not stages.lines:
        return []
    width = max(len(safe(line.name)) for line in stages.lines)
    return [f"{safe(line.name):<{width}}  {sparkline(stages.over_time(line.name, columns))}|" for line in stages.lines]


def sparkline(shares: Sequence[float]) -> str:
    """A bar for each share of 1; only a share of nothing has none."""
    bars = BARS if _has_bars() else PLAIN_BARS
    top = len(bars) - 1
    return "".join([bars[min(top, max(int(share > 0.005), round(share * top)))] for share in shares])


def _has_bars() -> bool:
    try:
        BARS.encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
