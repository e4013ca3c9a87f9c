"""Where the time of a run went, stage by stage.

For each stage ``busy + starved + blocked == wall * lanes``: busy is time inside its own code; starved is time it had
nothing to do (its lane waited for items, or stages before it in the strand worked); blocked is time it could not go
on (no room behind the strand, or stages after it in the strand worked). All times in seconds, all sizes in bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from time import perf_counter

from runtime.bottleneck import CALLER, Bottleneck, bottleneck_of
from runtime.cores import CoreMeter


class LaneMeter:
    """Counters of one lane, one place a stage. Written by the lane, read by anybody.

    `now` is the stage that runs just now and since when: a call that takes long counts before it is over.
    """

    __slots__ = ("blocked", "busy", "bytes_in", "bytes_out", "items_in", "items_out", "now")

    def __init__(self, stages: int) -> None:
        self.items_in = [0] * stages
        self.items_out = [0] * stages
        self.bytes_in = [0] * stages
        self.bytes_out = [0] * stages
        self.busy = [0.0] * stages
        self.blocked = 0.0  # the whole lane waited for room
        self.now: tuple[int, float] | None = None

    def state(self) -> tuple[list[int], list[int], list[int], list[int], list[float]]:
        """What the lane itself counts, to be sent to another process."""
        return self.items_in, self.items_out, self.bytes_in, self.bytes_out, self.busy

    def update(self, state: tuple[list[int], list[int], list[int], list[int], list[float]]) -> None:
        """Take over what a lane in another process counted."""
        self.items_in, self.items_out, self.bytes_in, self.bytes_out, self.busy = state


class Pressure:
    """How long something has been the case, all times together. One thread sets it, others may read."""

    __slots__ = ("_state",)

    def __init__(self) -> None:
        self._state: tuple[float, float] = (0.0, -1.0)  # total, since (-1: not the case); replaced as one

    def set(self, on: bool, now: float | None = None) -> None:
        total, since = self._state
        if on == (since >= 0):
            return
        now = perf_counter() if now is None else now
        self._state = (total, now) if on else (total + now - since, -1.0)

    def seconds(self) -> float:
        total, since = self._state
        return total if since < 0 else total + perf_counter() - since


@dataclass(frozen=True, slots=True)
class StageTrace:
    """One line of a trace. `strand` groups stages that share lanes; the source and the sink have none of their own.

    `lane_busy` is `busy` lane by lane.
    """

    name: str
    strand: str
    lanes: int
    items_in: int = 0
    items_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    busy: float = 0.0
    starved: float = 0.0
    blocked: float = 0.0
    lane_busy: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Trace:
    """A run so far: source first, sink last. `fed` and `acked` count items, `deaths` workers, `replayed` items.

    `began` tells runs apart and is when this one did, by `time.perf_counter`. Of the `cores` this process may use,
    `idle_cores` had nothing to do on the average (None: unknown). `placed`: lane and host of every life of every lane,
    if there was more than one host to choose from.
    """

    executor: str
    wall: float
    stages: tuple[StageTrace, ...]
    fed: int = 0
    acked: int = 0
    deaths: int = 0
    replayed: int = 0
    began: float = 0.0
    cores: int = 0
    idle_cores: float | None = None
    placed: tuple[tuple[str, str], ...] = ()

    def stage(self, name: str) -> StageTrace:
        """The line of one stage. KeyError if there is none."""
        for line in self.stages:
            if line.name == name:
                return line
        raise KeyError(name)

    def limiting(self) -> StageTrace:
        """The stage that limits the run, or comes nearest to it; the source if nothing has worked yet."""
        return self.stage(self.bottleneck().busiest or self.stages[0].name)

    def bottleneck(self) -> Bottleneck:
        """Which stage limits the run, how much, and what making it twice as fast is worth."""
        return bottleneck_of(self)

    def table(self) -> str:
        """Aligned text, a line a stage."""
        head = "stage        lanes     items      MB in     MB out     busy  starved  blocked"
        rows = [
            f"{line.name:<12} {line.lanes:>5} {max(line.items_in, line.items_out):>9} {line.bytes_in / 1e6:>10.1f} "
            f"{line.bytes_out / 1e6:>10.1f} {line.busy:>7.2f}s {line.starved:>7.2f}s {line.blocked:>7.2f}s"
            for line in self.stages
        ]
        return "\n".join([head, *rows, f"{self.executor}, {self.wall:.2f} s: {self.bottleneck().text}"])


@dataclass(slots=True)
class Meters:
    """All counters of a run, from which snapshots are made."""

    executor: str
    source: str
    sink: str
    strands: Sequence[tuple[str, Sequence[str], int]]  # name, stage names, lanes
    lanes: list[tuple[int, int, LaneMeter]] = field(default_factory=list)  # strand, number, meter; of dead lanes too
    begin: float = field(default_factory=perf_counter)
    end: float = 0.0
    feeding: float = 0.0
    sinking: Pressure = field(default_factory=Pressure)
    fed: int = 0
    delivered: int = 0
    fed_bytes: int = 0
    delivered_bytes: int = 0
    cores: CoreMeter = field(default_factory=CoreMeter)

    def new_lane(self, strand: int, number: int) -> LaneMeter:
        """A meter for one more life of this lane of this strand."""
        meter = LaneMeter(len(self.strands[strand][1]))
        self.lanes.append((strand, number, meter))
        return meter

    def finish(self) -> None:
        """The run is over: from now on snapshots are of its end."""
        self.end = perf_counter()

    def snapshot(self, acked: int = 0, deaths: int = 0, replayed: int = 0) -> Trace:
        """The trace up to now, or up to the end if the run has one."""
        now = self.end or perf_counter()
        wall = now - self.begin
        feeding, sinking = min(self.feeding, wall), min(self.sinking.seconds(), wall)
        lines = [
            StageTrace(self.source, CALLER, 1, 0, self.fed, 0, self.fed_bytes, feeding, 0.0, wall - feeding),
            *(line for number in range(len(self.strands)) for line in self._strand(number, now)),
            StageTrace(self.sink, CALLER, 1, self.delivered, 0, self.delivered_bytes, 0, sinking, wall - sinking, 0.0),
        ]
        cores = self.cores.allowed, self.cores.idle(wall)
        return Trace(self.executor, wall, tuple(lines), self.fed, acked, deaths, replayed, self.begin, *cores)

    def _strand(self, number: int, now: float) -> list[StageTrace]:
        name, stages, lanes = self.strands[number]
        mine = [(lane, meter) for strand, lane, meter in self.lanes if strand == number]
        wall, total = now - self.begin, (now - self.begin) * lanes
        lane_busy = [[0.0] * lanes for _ in stages]
        for lane, meter in mine:
            for i, seconds in enumerate(_busy(meter, now)):
                lane_busy[i][lane] += seconds
        busy = [sum(min(seconds, wall) for seconds in of_lanes) for of_lanes in lane_busy]
        waited = min(sum(meter.blocked for _, meter in mine), max(0.0, total - sum(busy)))
        lines = []
        for i, stage in enumerate(stages):
            blocked = min(waited + sum(busy[i + 1 :]), total - busy[i])
            lines.append(
                StageTrace(
                    stage,
                    name,
                    lanes,
                    sum(meter.items_in[i] for _, meter in mine),
                    sum(meter.items_out[i] for _, meter in mine),
                    sum(meter.bytes_in[i] for _, meter in mine),
                    sum(meter.bytes_out[i] for _, meter in mine),
                    busy[i],
                    total - busy[i] - blocked,
                    blocked,
                    tuple(lane_busy[i]),
                )
            )
        return lines


def _busy(meter: LaneMeter, now: float) -> list[float]:
    """Busy seconds of a lane by stage, with those of the call that is under way."""
    busy, running = list(meter.busy), meter.now
    if running is not None:
        stage, since = running
        busy[stage] += max(0.0, now - since)
    return busy
