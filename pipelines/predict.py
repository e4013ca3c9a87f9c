"""How fast a backup will be, reckoned from what each stage costs alone; nothing is run here.

The model. Whatever works on a backup takes some seconds for a byte that is read, and the slowest sets the pace:

- each strand: the sum of its stages and of copying what it hands to the next strand, divided by its lanes, as a lane
  does one thing after the other;
- the caller's thread: scan and commit;
- the processor: what all stages and copies take of it, divided by the cores;
- the store: what is stored, at the pace measured with as many packs under way as there are cores;
- a limit of the upload, if there is one.

Costs are measured in one thread. With more at work each takes more processor time, and with more lanes that read each
waits longer for the disk; how much was measured as well (`rates.Crowding`).

So more lanes than cores help only as far as lanes wait for something else than a processor. And even then a core is
idle now and then, because all lanes happen to wait: lanes are taken for workers that need one of the cores for a while,
then wait for a while, both of random length (the machine-repair model), which tells what part of the pace is left.

What the model leaves out
(start and end of a run, the interpreter's lock, caches that lanes share) makes real runs slower: how much is told in
docs/decisions/024-prediction-and-tuning.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pipelines.rates import Cost, Crowding, Packing, Rates
from runtime.plan import Strand

CALLER, PROCESSOR, STORE, LIMIT = "caller", "processor", "store", "upload limit"
NO_COST = Cost(0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Load:
    """Something that sets a pace: `seconds` for a byte read, and how they come about by stage."""

    name: str
    seconds: float
    stages: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StageForecast:
    """One stage: bytes a second of what is read, alone on one lane and on all of its lanes; None: not measured."""

    name: str
    strand: str
    lanes: int
    alone: float | None
    rate: float | None


@dataclass(frozen=True, slots=True)
class Forecast:
    """A prediction. `rate`: bytes read a second; `cpu`: processor seconds for a byte. `limit`: what sets the pace;
    `stage`: the stage that gains it most; twice as fast it makes the run `gain` times as fast, then `then` limits.
    `idle`: cores that have nothing to do."""

    rate: float
    cpu: float
    limit: str
    stage: str
    gain: float
    then: str
    idle: float
    cores: int
    loads: tuple[Load, ...]
    stages: tuple[StageForecast, ...]

    @property
    def text(self) -> str:
        """What limits, as one sentence."""
        if self.limit == LIMIT:
            return "the upload limit sets the pace: no stage gains anything"
        where = {
            PROCESSOR: f"all {self.cores} cores are busy" if self.cores > 1 else "the core is busy",
            CALLER: "it has the caller's thread to itself",
            STORE: "the store takes no more",
        }.get(self.limit, f"its lanes are busy, {self.idle:.1f} of {self.cores} cores idle")
        worth = (
            f"doubling it is worth up to {self.gain:.1f} times" if self.gain >= 1.05 else "doubling it is worth nothing"
        )
        then = "it still limits then" if self.then == self.stage else f"then {self.then} limits"
        return f"{self.stage} limits: {where}; {worth}, {then}"


@dataclass(frozen=True, slots=True)
class Conditions:
    """What a prediction is for. `new`: the part of the bytes read that is new; `upload`: bytes a second the store is
    sent at most."""

    cores: int
    new: float = 1.0
    upload: float | None = None


def predict(strands: Sequence[Strand], rates: Rates, packing: Packing, conditions: Conditions) -> Forecast:
    """What a backup with these strands will do on a host with these rates."""
    alone = _costs(rates, packing, conditions.new)
    costs = _crowded(alone, strands, rates.crowding, conditions.cores)
    handed = _handed(strands, rates, packing, conditions)
    loads = _loads(strands, costs, handed, packing, conditions)
    slowest = max(loads, key=lambda load: load.seconds)
    stage, after = _limiting(strands, costs, handed, packing, conditions, slowest)
    next_loads = _loads(strands, _halved(costs, stage), handed, packing, conditions)
    next_slowest = max(next_loads, key=lambda load: load.seconds)
    then, _ = _limiting(strands, _halved(costs, stage), handed, packing, conditions, next_slowest)
    cpu = sum(cost.cpu for cost in [*costs.values(), *handed])
    return Forecast(
        rate=1.0 / max(slowest.seconds, 1e-15),
        cpu=cpu,
        limit=slowest.name,
        stage=stage,
        gain=slowest.seconds / max(after, 1e-15),
        then=then if next_slowest.name != LIMIT else LIMIT,
        idle=max(0.0, conditions.cores - cpu / max(slowest.seconds, 1e-15)),
        cores=conditions.cores,
        loads=loads,
        stages=tuple(_stages(strands, alone, costs)),
    )


def _costs(rates: Rates, packing: Packing, new: float) -> dict[str, Cost]:
    """Seconds for a byte read of each stage."""
    costs = {name: cost for name, cost in rates.stages.items() if name != "upload"}
    costs["compress"] = _scaled(packing.compress, new)
    costs["encrypt"] = _scaled(packing.encrypt, new)
    costs["upload"] = _scaled(rates.stages.get("upload", NO_COST), new * packing.stored)
    return costs


def _threads(strands: Sequence[Strand], cores: int) -> int:
    """How many lanes are at work at once."""
    return min(cores, sum(strand.lanes for strand in strands))


def _crowded(alone: Mapping[str, Cost], strands: Sequence[Strand], crowding: Crowding, cores: int) -> dict[str, Cost]:
    """The same with all lanes at work. What a store takes was measured with several packs under way."""
    factor = crowding.work(_threads(strands, cores))
    readers = next((strand.lanes for strand in strands for node in strand.nodes if node.name == "read"), 1)
    costs = {}
    for name, cost in alone.items():
        waiting = cost.wall - cost.cpu + (crowding.queueing * (readers - 1) if name == "read" else 0.0)
        costs[name] = cost if name == "upload" else Cost(cost.cpu * factor + waiting, cost.cpu * factor)
    return costs


def _handed(strands: Sequence[Strand], rates: Rates, packing: Packing, conditions: Conditions) -> list[Cost]:
    """Seconds for a byte read that each strand takes to hand over what it gives to the next."""
    new = conditions.new
    handover = _scaled(rates.handover, rates.crowding.work(_threads(strands, conditions.cores)))
    shares = {"compress": new, "encrypt": new * packing.stored, "upload": new * packing.stored}
    given = [shares.get(strand.nodes[0].name, 1.0) for strand in strands[1:]]
    return [*(_scaled(handover, share) for share in given), NO_COST]


def _loads(
    strands: Sequence[Strand],
    costs: Mapping[str, Cost],
    handed: Sequence[Cost],
    packing: Packing,
    conditions: Conditions,
) -> tuple[Load, ...]:
    work = [cost for name, cost in costs.items() if name != "upload"] + list(handed)
    cpu, waiting = sum(cost.cpu for cost in work), sum(cost.wall - cost.cpu for cost in work)
    left = pace_left(sum(strand.lanes for strand in strands), conditions.cores, cpu, waiting)
    loads = []
    for strand, copies in zip(strands, handed, strict=True):
        # Packs are sent by a thread beside the lane: that is the load of the store.
        parts = {node.name: costs.get(node.name, NO_COST).wall / strand.lanes for node in strand.nodes}
        parts.pop("upload", None)
        loads.append(Load(strand.name, (sum(parts.values()) + copies.wall / strand.lanes) / left, parts))
    caller = {name: costs.get(name, NO_COST).wall for name in ("scan", "commit")}
    loads.append(Load(CALLER, sum(caller.values()), caller))
    shares = {name: cost.cpu / conditions.cores for name, cost in costs.items()}
    copies_cpu = sum(cost.cpu for cost in handed) / conditions.cores
    loads.append(Load(PROCESSOR, (sum(shares.values()) + copies_cpu) / left, shares))
    loads.append(Load(STORE, costs["upload"].wall, {"upload": costs["upload"].wall}))
    if conditions.upload:
        loads.append(Load(LIMIT, conditions.new * packing.stored / conditions.upload))
    return tuple(loads)


def pace_left(lanes: int, cores: int, work: float, waiting: float) -> float:
    """The part of the pace that is left because lanes that need a core wait for one while at other times a core has no
    lane: 1 with no more lanes than cores, or if lanes do not wait. `work` and `waiting` in seconds for the same bytes.
    """
    if lanes <= cores or waiting <= 0 or work <= 0:
        return 1.0
    # How likely it is that so many lanes are at work or want to be, as logarithms: there may be very many lanes.
    logs = [0.0]
    for number in range(1, lanes + 1):
        logs.append(logs[-1] + math.log((lanes - number + 1) * work / waiting / min(number, cores)))
    chances = [math.exp(one - max(logs)) for one in logs]
    busy = sum(min(number, cores) * chance for number, chance in enumerate(chances)) / sum(chances)
    return min(1.0, busy / min(cores, lanes * work / (work + waiting)))


def _limiting(
    strands: Sequence[Strand],
    costs: Mapping[str, Cost],
    handed: Sequence[Cost],
    packing: Packing,
    conditions: Conditions,
    slowest: Load,
) -> tuple[str, float]:
    """The stage of which the run gains most if it is twice as fast, and the seconds for a byte then."""
    best, after = "", slowest.seconds
    for stage in slowest.stages:
        loads = _loads(strands, _halved(costs, stage), handed, packing, conditions)
        seconds = max(load.seconds for load in loads)
        if not best or (seconds, -slowest.stages[stage]) < (after, -slowest.stages[best]):
            best, after = stage, seconds
    return best or slowest.name, after


def _stages(strands: Sequence[Strand], alone: Mapping[str, Cost], costs: Mapping[str, Cost]) -> list[StageForecast]:
    rows = [("scan", CALLER, 1), *((node.name, one.name, one.lanes) for one in strands for node in one.nodes)]
    rows.append(("commit", CALLER, 1))
    found = []
    for name, strand, lanes in rows:
        one, each = (
            1.0 / cost.wall if cost.wall > 0 else None for cost in (alone.get(name, NO_COST), costs.get(name, NO_COST))
        )
        # The rate of the store was measured with several packs under way: it is that of all lanes together.
        found.append(
            StageForecast(name, strand, lanes, one, each if name == "upload" or each is None else each * lanes)
        )
    return found


def _halved(costs: Mapping[str, Cost], stage: str) -> dict[str, Cost]:
    return {name: _scaled(cost, 0.5) if name == stage else cost for name, cost in costs.items()}


def _scaled(cost: Cost, factor: float) -> Cost:
    return Cost(cost.wall * factor, cost.cpu * factor)
