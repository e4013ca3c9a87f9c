"""Which stage limits a run and what it is worth to make it faster: arithmetic on a trace, nothing is measured here.

The model. A run is worked off by *workers*: the caller's thread, which does source and sink, and every lane, which does
the stages of its strand; with the inline executor one thread does it all. A worker does one thing after the other. So

    wall = rest + the busy seconds of the busiest worker

where the rest is what even that one waits (start, end, being handed things), which stays as it is. A stage that is k
times as fast takes a k-th of its busy seconds on every worker; the busiest worker may then be another one. The stage
that limits is the one of which the run gains most. That the prediction holds is checked by a test that throttles one
stage after the other (docs/decisions/022-run-records.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runtime.trace import StageTrace, Trace

CALLER = "caller"  # the "strand" of source and sink
SATURATED = 0.5  # share of the time: if no worker is busy for longer, nothing limits
WORTH_TELLING = 1.05  # a gain below that is none
IDLE_CORES = 0.5  # fewer are none

Work = Mapping[str, float]
"""What one worker did: busy seconds by stage."""


@dataclass(frozen=True, slots=True)
class Bottleneck:
    """What limits a run. No `stage`: nothing does; then `busiest` is the stage that came nearest to it.

    `lanes_busy` of `lanes` lanes (those at least half as busy as the busiest) worked for `share` of the time, and for
    `own` of the time on this stage. Twice as fast it makes the run `gain` times as fast; `then` limits, which may be
    the same stage again, or nothing (""). `idle_cores` of the `cores` this process may use had nothing to do; None:
    unknown, or no matter, as the stage has no lanes of its own.
    """

    stage: str
    busiest: str = ""
    lanes: int = 1
    lanes_busy: int = 1
    share: float = 0.0
    own: float = 0.0
    gain: float = 1.0
    then: str = ""
    idle_cores: float | None = None
    cores: int = 0

    @property
    def text(self) -> str:
        """The same as one sentence."""
        if not self.stage:
            if not self.busiest:
                return "nothing limits: the source was idle"
            return f"nothing limits: no stage was busy for long, the longest {self.busiest}, {_percent(self.own)}"
        return "; ".join([f"{self.stage} limits: {self._load()}", *self._worth(), *self._lanes_worth()])

    def _load(self) -> str:
        if self.lanes == 1 and self.idle_cores is None:
            whole = f"busy {_percent(self.share)} of the time"
        else:
            whole = f"{self.lanes_busy} of {self.lanes} lane{'s' * (self.lanes > 1)} busy {_percent(self.share)}"
        return whole if self.own > self.share - 0.05 else f"{whole}, {_percent(self.own)} with it"

    def _worth(self) -> list[str]:
        then = "it still limits then" if self.then == self.stage else f"then {self.then or 'nothing'} limits"
        if self.gain < WORTH_TELLING:
            also = f": {self.then} limits as well" if self.then not in ("", self.stage) else ""
            return [f"doubling it is worth nothing{also}"]
        return [f"doubling it is worth up to {self.gain:.1f} times", then]

    def _lanes_worth(self) -> list[str]:
        if self.idle_cores is None:
            return []
        if self.idle_cores < IDLE_CORES:
            return ["no idle cores for more lanes"]
        return [f"{self.idle_cores:.1f} of {self.cores} cores idle, more lanes may help"]


def bottleneck_of(trace: Trace) -> Bottleneck:
    """What limits this run, or the run so far."""
    works = workers(trace)
    stage = _limiting(works)
    if not stage:
        return Bottleneck("")
    wall = max(trace.wall, 1e-9)
    line = trace.stage(stage)
    mine = [work for work in works if stage in work]
    most = max(_seconds(work) for work in mine)
    busy = [work for work in mine if _seconds(work) >= most / 2]
    share = sum(map(_seconds, busy)) / len(busy) / wall
    own = sum(work[stage] for work in busy) / len(busy) / wall
    if _load(works, wall) < SATURATED:
        return Bottleneck("", stage, share=share, own=own)
    after = predicted_wall(trace, {stage: 2.0})
    halved = [_faster(work, {stage: 2.0}) for work in works]
    then = _limiting(halved) if _load(halved, after) >= SATURATED else ""
    own_lanes = trace.executor != "inline" and line.strand != CALLER
    idle = trace.idle_cores if own_lanes else None
    lanes = len(mine)
    return Bottleneck(stage, stage, lanes, len(busy), share, own, wall / after, then, idle, trace.cores)


def predicted_wall(trace: Trace, speedups: Mapping[str, float]) -> float:
    """Seconds this run would have taken with these stages so many times as fast (0.5: half as fast)."""
    works = workers(trace)
    rest = max(0.0, trace.wall - max(map(_seconds, works)))
    return rest + max(_seconds(_faster(work, speedups)) for work in works)


def workers(trace: Trace) -> list[dict[str, float]]:
    """The work of each worker: first the caller (of several hosts, one on each), then every lane."""
    if trace.executor == "inline":
        return [{line.name: line.busy for line in trace.stages}]
    strands: dict[str, list[StageTrace]] = {}
    for line in trace.stages:
        strands.setdefault(line.strand, []).append(line)
    works = []
    for lines in strands.values():
        works += [{line.name: _of_lane(line, lane) for line in lines} for lane in range(lines[0].lanes)]
    return works


def _of_lane(line: StageTrace, lane: int) -> float:
    """Where nobody kept account of single lanes, each did its part."""
    return line.lane_busy[lane] if line.lane_busy else line.busy / line.lanes


def _limiting(works: Sequence[Work]) -> str:
    """The stage that gains most from being twice as fast, the busiest one of several; "" if there was no work."""
    worth: dict[str, tuple[float, float]] = {}
    for stage in {stage for work in works for stage in work}:
        after = max(_seconds(_faster(work, {stage: 2.0})) for work in works)
        worth[stage] = (-after, sum(work.get(stage, 0.0) for work in works))
    stage = max(sorted(worth), key=lambda name: worth[name])
    return stage if worth[stage][1] > 0 else ""


def _faster(work: Work, speedups: Mapping[str, float]) -> dict[str, float]:
    return {stage: seconds / speedups.get(stage, 1.0) for stage, seconds in work.items()}


def _seconds(work: Work) -> float:
    return sum(work.values())


def _load(works: Sequence[Work], wall: float) -> float:
    """Share of the time that the busiest worker was busy."""
    return max(map(_seconds, works)) / max(wall, 1e-9)


def _percent(share: float) -> str:
    return f"{min(share, 1.0):.0%}".replace("%", " %")
