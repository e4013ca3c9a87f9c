"""Where the time of a run went, stage by stage.

For each stage ``busy + starved + blocked == wall * lanes``: busy is time inside its own code; starved is time it had
nothing to do (its lane waited for items, or stages before it in the strand worked); blocked is time it could not go
on (no room behind the strand, or stages after it in the strand worked). All times in seconds, all sizes in bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from time import perf_counter


class LaneMeter:
    """Counters of one lane, one place a stage. Written by the lane, read by anybody."""

    __slots__ = ("blocked", "busy", "bytes_in", "bytes_out", "items_in", "items_out")

    def __init__(self, stages: int) -> None:
        self.items_in = [0] * stages
        self.items_out = [0] * stages
        self.bytes_in = [0] * stages
        self.bytes_out = [0] * stages
        self.busy = [0.0] * stages
        self.blocked = 0.0  # the whole lane waited for room

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
    """One line of a trace. `strand` groups stages that share lanes; the source and the sink have none of their own."""

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


@dataclass(frozen=True, slots=True)
class Trace:
    """A run so far: source first, sink last. `fed` and `acked` count items, `deaths` workers, `replayed` items.

    `placed`: lane and host of every life of every lane, if there was more than one host to choose from.
    """

    executor: str
    wall: float
    stages: tuple[StageTrace, ...]
    fed: int = 0
    acked: int = 0
    deaths: int = 0
    replayed: int = 0
    placed: tuple[tuple[str, str], ...] = ()

    def stage(self, name: str) -> StageTrace:
        """The line of one stage. KeyError if there is none."""
        for line in self.stages:
            if line.name == name:
                return line
        raise KeyError(name)

    def limiting(self) -> StageTrace:
        """The stage that limits the run: the busiest one on the busiest lanes."""
        loads = self._loads()
        strand = max(loads, key=lambda name: loads[name])
        return max((line for line in self.stages if line.strand == strand), key=lambda line: line.busy)

    def bottleneck(self) -> str:
        """Which stage limits the run, how much, and what making it twice as fast is worth."""
        line = self.limiting()
        load = self._loads()[line.strand]
        if self.wall <= 0 or line.busy <= 0:
            return "nothing has limited this run: there was no work"
        share = line.busy / (self.wall * line.lanes)
        lanes = "" if line.lanes == 1 else f" of its {line.lanes} lanes"
        text = f"{line.name} limits this run: busy {share:.0%} of the time{lanes}"
        if load < 0.5:
            return f"{text}; nothing is saturated, the lanes wait for each other or for the machine"
        return f"{text}; twice as fast it would save about {self._gain(line):.0%}"

    def table(self) -> str:
        """Aligned text, a line a stage."""
        head = "stage        lanes     items      MB in     MB out     busy  starved  blocked"
        rows = [
            f"{line.name:<12} {line.lanes:>5} {max(line.items_in, line.items_out):>9} {line.bytes_in / 1e6:>10.1f} "
            f"{line.bytes_out / 1e6:>10.1f} {line.busy:>7.2f}s {line.starved:>7.2f}s {line.blocked:>7.2f}s"
            for line in self.stages
        ]
        return "\n".join([head, *rows, f"{self.executor}, {self.wall:.2f} s: {self.bottleneck()}"])

    def _loads(self) -> dict[str, float]:
        """Share of the time that the lanes of each strand worked; source and sink share the caller's thread."""
        loads: dict[str, float] = {}
        for line in self.stages:
            loads[line.strand] = loads.get(line.strand, 0.0) + line.busy / (max(self.wall, 1e-9) * line.lanes)
        return loads

    def _gain(self, line: StageTrace) -> float:
        """Share of the run saved by halving the stage, as far as the next busiest lanes let it."""
        loads = self._loads()
        own = loads.pop(line.strand)
        after = own - line.busy / (self.wall * line.lanes) / 2
        return max(0.0, own - max([after, *loads.values()]))


CALLER = "caller"  # the "strand" of source and sink


@dataclass(slots=True)
class Meters:
    """All counters of a run, from which snapshots are made."""

    executor: str
    source: str
    sink: str
    strands: Sequence[tuple[str, Sequence[str], int]]  # name, stage names, lanes
    lanes: list[tuple[int, LaneMeter]] = field(default_factory=list)  # strand and meter, also of dead lanes
    begin: float = field(default_factory=perf_counter)
    end: float = 0.0
    feeding: float = 0.0
    sinking: Pressure = field(default_factory=Pressure)
    fed: int = 0
    delivered: int = 0
    fed_bytes: int = 0
    delivered_bytes: int = 0

    def new_lane(self, strand: int) -> LaneMeter:
        """A meter for one more life of a lane of this strand."""
        meter = LaneMeter(len(self.strands[strand][1]))
        self.lanes.append((strand, meter))
        return meter

    def finish(self) -> None:
        """The run is over: from now on snapshots are of its end."""
        self.end = perf_counter()

    def snapshot(self, acked: int = 0, deaths: int = 0, replayed: int = 0) -> Trace:
        """The trace up to now, or up to the end if the run has one."""
        wall = (self.end or perf_counter()) - self.begin
        feeding, sinking = min(self.feeding, wall), min(self.sinking.seconds(), wall)
        lines = [
            StageTrace(self.source, CALLER, 1, 0, self.fed, 0, self.fed_bytes, feeding, 0.0, wall - feeding),
            *(line for number in range(len(self.strands)) for line in self._strand(number, wall)),
            StageTrace(self.sink, CALLER, 1, self.delivered, 0, self.delivered_bytes, 0, sinking, wall - sinking, 0.0),
        ]
        return Trace(self.executor, wall, tuple(lines), self.fed, acked, deaths, replayed)

    def _strand(self, number: int, wall: float) -> list[StageTrace]:
        name, stages, lanes = self.strands[number]
        mine = [meter for strand, meter in self.lanes if strand == number]
        total = wall * lanes
        busy = [sum(meter.busy[i] for meter in mine) for i in range(len(stages))]
        waited = min(sum(meter.blocked for meter in mine), max(0.0, total - sum(busy)))
        lines = []
        for i, stage in enumerate(stages):
            blocked = min(waited + sum(busy[i + 1 :]), max(0.0, total - busy[i]))
            own = min(busy[i], total)
            lines.append(
                StageTrace(
                    stage,
                    name,
                    lanes,
                    sum(meter.items_in[i] for meter in mine),
                    sum(meter.items_out[i] for meter in mine),
                    sum(meter.bytes_in[i] for meter in mine),
                    sum(meter.bytes_out[i] for meter in mine),
                    own,
                    total - own - blocked,
                    blocked,
                )
            )
        return lines
