"""What runs on this host now, stage by stage: as text, and live on a terminal. Only `Live` imports Rich."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lox.escape import safe
from lox.eta import share_done
from lox.output import table
from lox.run_rows import paths_text, run_fields
from lox.units import format_clock, format_count, format_rate, format_size, plural
from pipelines.run_status import RunStatus
from runtime.bottleneck import bottleneck_of
from runtime.timeline import COUNTS, TIMES

if TYPE_CHECKING:
    from rich.console import RenderableType

BAR = 24  # columns
QUIET = 3.0  # seconds without news after which that is said
SIGNS = {"busy": "#", "blocked": "=", "starved": "."}
COLORS = {"busy": "green", "blocked": "yellow", "starved": "bright_black"}
HEADINGS = ("STAGE", "LANES", "ITEMS/S", "IN/S", "OUT/S", "BUSY", "BLOCKED", "STARVED", "")
NOTHING = "nothing runs on this host"


@dataclass(frozen=True, slots=True)
class StageNow:
    """A stage in the last second: rates, and shares of its lanes' time by `TIMES`."""

    name: str
    lanes: int
    items: float
    bytes_in: float
    bytes_out: float
    shares: dict[str, float]


def stages_now(status: RunStatus) -> list[StageNow]:
    """What the stages of a run did in the last second."""
    if status.trace is None or status.latest is None:
        return []
    seconds, rows = max(status.latest.seconds, 1e-9), []
    for line, values in zip(status.trace.stages, status.latest.values.tolist(), strict=True):
        gained = dict(zip((*COUNTS, *TIMES), values, strict=True))
        shares = {name: min(1.0, gained[name] / (seconds * line.lanes)) for name in TIMES}
        items = max(gained["items_in"], gained["items_out"]) / seconds
        rows.append(
            StageNow(line.name, line.lanes, items, gained["bytes_in"] / seconds, gained["bytes_out"] / seconds, shares)
        )
    return rows


def status_fields(status: RunStatus, now: float) -> dict[str, object]:
    """A run under way for JSON."""
    trace = status.trace
    return {
        **run_fields(status.summary),
        "wall": round(_elapsed(status, now), 3),
        "pid": status.pid,
        "phase": status.phase,
        "age": round(max(0.0, now - status.written), 3),
        "files_done": status.done[0],
        "bytes_done": status.done[1],
        "files_total": status.total[0],
        "bytes_total": status.total[1],
        "in_flight": trace.fed - trace.acked if trace is not None else 0,
        "stages": [
            {
                "stage": row.name,
                "lanes": row.lanes,
                "items_per_second": round(row.items, 3),
                "bytes_in_per_second": round(row.bytes_in),
                "bytes_out_per_second": round(row.bytes_out),
                **{name: round(share, 4) for name, share in row.shares.items()},
            }
            for row in stages_now(status)
        ],
    }


def top_lines(statuses: Sequence[RunStatus], now: float) -> list[str]:
    """All runs under way as text."""
    if not statuses:
        return [NOTHING]
    lines: list[str] = []
    for status in statuses:
        rows = [(*_cells(row), _bar_text(row.shares)) for row in stages_now(status)]
        lines += ["", *_head(status, now), *(table(HEADINGS, rows, right=range(1, 8)) if rows else [])]
        lines.append(limit_text(status))
    return lines[1:]


def limit_text(status: RunStatus) -> str:
    """What limits a run under way."""
    return safe(bottleneck_of(status.trace).text) if status.trace is not None else "the engine has not begun"


def _head(status: RunStatus, now: float) -> list[str]:
    summary, (files, size), (files_total, bytes_total) = status.summary, status.done, status.total
    done = share_done(files, size, files_total, bytes_total)
    parts = [f"{format_count(files)}{_of(files_total, format_count)} files"] if files else []
    parts += [f"{format_size(size)}{_of(bytes_total, format_size)}"] if size else []
    parts += [f"{int(100 * done)} %"] if done is not None else []
    if status.trace is not None and status.trace.fed:
        parts.append(f"{plural(status.trace.fed - status.trace.acked, 'item')} in flight")
    if now - status.written > QUIET:
        parts.append(f"no news for {format_clock(now - status.written)}")
    paths = paths_text(summary)
    where = f"{paths} → {safe(summary.repository)}" if paths else safe(summary.repository)
    return [
        f"{summary.kind} {summary.id}, {format_clock(_elapsed(status, now))}, pid {status.pid}: {where}",
        ", ".join(parts) or safe(status.phase) or "nothing done yet",
    ]


def _of(total: int | None, text: Callable[[int], str]) -> str:
    return "" if total is None else f" of {text(total)}"


def _elapsed(status: RunStatus, now: float) -> float:
    return max(0.0, now - status.summary.started / 1e9)


def _cells(row: StageNow) -> tuple[str, ...]:
    rates = [format_rate(rate) if rate else "" for rate in (row.bytes_in, row.bytes_out)]
    shares = [f"{row.shares[name]:.0%}".replace("%", " %") for name in SIGNS]
    return safe(row.name), str(row.lanes), f"{row.items:,.1f}", *rates, *shares


def _widths(shares: dict[str, float]) -> dict[str, int]:
    """Columns of the bar for each way to pass time; together `BAR`."""
    busy = round(shares["busy"] * BAR)
    blocked = min(BAR - busy, round(shares["blocked"] * BAR))
    return {"busy": busy, "blocked": blocked, "starved": BAR - busy - blocked}


def _bar_text(shares: dict[str, float]) -> str:
    return "".join([SIGNS[name] * width for name, width in _widths(shares).items()])


def view(statuses: Sequence[RunStatus], now: float) -> RenderableType:
    """All runs under way, in colours, for Rich."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    if not statuses:
        return Text(NOTHING, style="dim")
    parts: list[RenderableType] = []
    for status in statuses:
        first, second = _head(status, now)
        parts += [Text(first, style="bold", no_wrap=True, overflow="ellipsis"), Text(second)]
        grid = Table(*HEADINGS[:-1], "", box=None, header_style="dim", pad_edge=False)
        for column in grid.columns[1:-1]:
            column.justify = "right"
        for row in stages_now(status):
            bar = Text()
            for name, width in _widths(row.shares).items():
                bar.append("█" * width if name != "starved" else "·" * width, style=COLORS[name])
            grid.add_row(*map(Text, _cells(row)), bar)
        parts += [grid, Text(limit_text(status), style="cyan"), Text()]
    return Group(*parts)


def watch(read: Callable[[], Sequence[RunStatus]], seconds: float, color: bool) -> None:
    """Shows the runs on this terminal, again and again, until interrupted."""
    from rich.console import Console
    from rich.live import Live

    # No markup, no highlighting, no emoji: paths are text, whatever they hold.
    console = Console(markup=False, highlight=False, emoji=False, no_color=not color)
    with Live(console=console, auto_refresh=False, screen=True, vertical_overflow="ellipsis") as live:
        while True:
            live.update(view(read(), time.time()), refresh=True)
            time.sleep(seconds)
