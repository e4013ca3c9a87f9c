"""Two runs side by side: what was different, and what of it made one of them slower.

Which stage is to blame comes from the model of runtime/bottleneck.py: how long the slower run would have taken had this
stage needed as much time as in the other one.
"""

from __future__ import annotations

from dataclasses import dataclass

from lox.escape import safe
from lox.output import table
from lox.run_rows import Stages, amount, outcome_text, paths_text, setting, speed, speed_text
from lox.units import format_count, format_seconds, format_share, format_size
from pipelines.run_summary import RunSummary
from runtime.bottleneck import predicted_wall
from runtime.trace import StageTrace

SAME = 0.05  # walls that differ by less than this share are the same
MUCH = 100.0  # times the data: then speeds cannot be compared
BLAME = 0.1  # of the difference a stage must explain to be named


@dataclass(frozen=True, slots=True)
class Blame:
    """A stage that made a run slower: how long that would have taken otherwise (seconds), and what differs.

    `data`, `speed` and `lanes` are those of the slower run in terms of the other: 2.0 is twice as much.
    """

    stage: str
    wall: float
    data: float
    speed: float
    lanes: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two runs, the first `a`. `settings`: name, of a, of b. `blames`: the stages that made the slower one slower."""

    a: RunSummary
    b: RunSummary
    stages: tuple[Stages, Stages]
    settings: list[tuple[str, str, str]]
    blames: list[Blame]

    @property
    def cause(self) -> str:
        """What the difference is due to, as sentences."""
        walls = [stages.wall for stages in self.stages]
        fast, slow = sorted(walls)
        if slow <= 0 or (slow - fast) / slow < SAME:
            return f"both took the same time: {format_seconds(walls[0])} and {format_seconds(walls[1])}"
        first, second = ("A", "B") if walls[0] > walls[1] else ("B", "A")
        times = f"{slow / fast:.2f} times as long" if fast > 0 else "longer"
        head = f"{first} took {times} as {second}, {format_seconds(slow - fast)} more"
        if not self.blames:
            return f"{head}; no stage explains it: it is time in which all of them waited"
        blame = self.blames[0]
        share = format_share(min(slow - blame.wall, slow - fast), slow - fast)
        lanes = f" on {blame.lanes:.2g} times the lanes" if blame.lanes != 1.0 else ""
        how = f"{blame.data:.2f} times the data at {blame.speed:.2f} times the speed{lanes}"
        if blame.data > MUCH:
            how = f"{second} had next to nothing for it to do"
        text = f"{head}; {blame.stage} explains {share} of it: {how}"
        others = [
            f"{one.stage} ({format_share(min(slow - one.wall, slow - fast), slow - fast)})" for one in self.blames[1:3]
        ]
        return f"{text}; then {', '.join(others)}" if others else text


def compare(a: RunSummary, b: RunSummary, of_a: Stages, of_b: Stages) -> Comparison:
    """Compares two runs."""
    pairs = [(a, of_a), (b, of_b)]
    slow, fast = sorted(pairs, key=lambda pair: -pair[1].wall)
    blames = _blames(*slow, fast[1]) if slow[1].lines else []
    return Comparison(a, b, (of_a, of_b), _settings(a, b), blames)


def _blames(summary: RunSummary, slow: Stages, fast: Stages) -> list[Blame]:
    trace = slow.trace(summary)
    difference = slow.wall - fast.wall
    others = {line.name: line for line in fast.lines}
    blames = []
    for line in slow.lines:
        other = others.get(line.name)
        if line.busy <= 0:
            continue
        if other is None or other.busy <= 0:  # only one of the two had anything of the kind to do
            wall = predicted_wall(trace, {line.name: float("inf")})
            if slow.wall - wall >= BLAME * difference > 0:
                blames.append(Blame(line.name, wall, float("inf"), 1.0, 1.0))
            continue
        factor = (line.busy / line.lanes) / (other.busy / other.lanes)
        wall = predicted_wall(trace, {line.name: factor})
        if factor > 1 and slow.wall - wall >= BLAME * difference > 0:
            data = _done(line) / max(1, _done(other))
            pace = data / (line.busy / other.busy)
            blames.append(Blame(line.name, wall, data, pace, line.lanes / other.lanes))
    return sorted(blames, key=lambda blame: blame.wall)


def _done(line: StageTrace) -> int:
    """What a stage made: of what goes in, compress and those after it may have had nothing to do."""
    return line.bytes_out or amount(line)


def _settings(a: RunSummary, b: RunSummary) -> list[tuple[str, str, str]]:
    """What was asked for, or found, and is not the same."""
    names = sorted({*a.settings, *b.settings} - {"executor", "lanes"})
    rows = [(name, a.settings.get(name, "-"), b.settings.get(name, "-")) for name in names]
    for name in ("kind", "repository", "host", "program", "profile", "executor", "lanes", "cores"):
        rows.append((name, str(getattr(a, name)) or "-", str(getattr(b, name)) or "-"))
    rows.append(("paths", paths_text(a), paths_text(b)))
    return [(name, safe(left), safe(right)) for name, left, right in rows if left != right]


def compare_lines(comparison: Comparison) -> list[str]:
    """The comparison as text."""
    a, b = comparison.a, comparison.b
    of_a, of_b = comparison.stages
    rows = [
        ("run", a.id, b.id),
        ("outcome", outcome_text(a), outcome_text(b)),
        ("took", format_seconds(a.wall), format_seconds(b.wall)),
        ("engine at work", format_seconds(of_a.wall), format_seconds(of_b.wall)),
        ("files", format_count(a.files), format_count(b.files)),
        ("read", format_size(a.bytes_read), format_size(b.bytes_read)),
        ("stored", format_size(a.bytes_stored), format_size(b.bytes_stored)),
        *((name, setting(name, left), setting(name, right)) for name, left, right in comparison.settings),
    ]
    return [
        *table(("", "A", "B"), rows),
        "",
        *_stage_lines(of_a, of_b),
        "",
        f"A: {safe(a.bottleneck)}",
        f"B: {safe(b.bottleneck)}",
        safe(comparison.cause),
    ]


def _stage_lines(of_a: Stages, of_b: Stages) -> list[str]:
    lines = [{line.name: line for line in stages.lines} for stages in (of_a, of_b)]
    rows = []
    for name in dict.fromkeys([*lines[0], *lines[1]]):
        left, right = lines[0].get(name), lines[1].get(name)
        ratio = speed(right) / speed(left) if left and right and speed(left) else 0.0
        rows.append((safe(name), *_cells(left), *_cells(right), f"{ratio:.2f}" if ratio else ""))
    headings = ("STAGE", "BUSY A", "DATA A", "SPEED A", "BUSY B", "DATA B", "SPEED B", "SPEED B/A")
    return table(headings, rows, right=range(1, 8))


def _cells(line: StageTrace | None) -> tuple[str, str, str]:
    if line is None:
        return "", "", ""
    in_bytes = max(line.bytes_in, line.bytes_out) > 0
    data = format_size(amount(line)) if in_bytes else format_count(amount(line))
    return f"{line.busy:.2f} s", data, speed_text(line)
