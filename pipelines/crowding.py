"""What changes when several threads are at work, and when files come from the disk: backups of one sample in rounds.

A round is the sample backed up in one thread, by one lane and by several, from memory and from where the files lie, one
after the other; what counts are differences and ratios within a round, for what else the machine does hurts all of it.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, replace
from statistics import median

from model.batches import BODY_MAX
from pipelines.backup import BackupRequest
from pipelines.draw import Sample, make_up
from pipelines.options import EngineOptions
from pipelines.rates import Crowding, usable_cores
from pipelines.trials import Trial, TrialGround

ROUNDS = 3
PATIENCE = 6.0  # seconds, after which no further round is begun
LANES_MAX = 16
FEW_BYTES = 1 << 20  # of a backup that is little but its beginning and its end
ONE_THREAD = EngineOptions(executor="inline", lanes=1)


@dataclass(frozen=True, slots=True)
class Compared:
    """`crowding`, and what a byte takes beside the work that it is when it lies in memory: processor seconds to bring
    it there (`fetching`), and seconds by the clock in all (`waiting`)."""

    crowding: Crowding
    fetching: float
    waiting: float


@dataclass(frozen=True, slots=True)
class _Round:
    """Processor seconds for a byte, and seconds by the clock in which a lane reads it."""

    cpu: dict[str, float]
    reading: dict[str, float]

    def more(self, way: str) -> float:
        """How many times the processor time of one thread."""
        return self.cpu[way] / max(self.cpu["thread"], 1e-15)

    def waited(self, way: str) -> float:
        """How much longer a byte from the disk took to read than one from memory, by the clock."""
        return self.reading[f"{way}, cold"] - self.reading[way]


def compare(ground: TrialGround, sample: Sample, request: BackupRequest) -> Compared:
    """Backs up `sample` in rounds, as `request` says. Raises what a backup raises."""
    several = _several(sample)
    ways = {
        "thread": ONE_THREAD,
        "lane": EngineOptions(executor="threads", lanes=1),
        "lanes": EngineOptions(executor="threads", lanes=several),
    }
    rounds, begin = list[_Round](), time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="few-", dir=ground.scratch) as folder:
        few = make_up(folder, FEW_BYTES)
        while len(rounds) < ROUNDS and (not rounds or time.perf_counter() - begin < PATIENCE):
            rounds.append(_round(ground, sample, few, request, ways))
    one, more = (max(1.0, median(each.more(way) for each in rounds)) for way in ("lane", "lanes"))
    alone, crowded = (median(each.waited(way) for each in rounds) for way in ("thread", "lanes"))
    fetching = median(each.cpu["thread, cold"] - each.cpu["thread"] for each in rounds)
    queueing = max(0.0, crowded - max(0.0, alone)) / (several - 1)
    return Compared(Crowding(several, one, max(one, more), queueing), max(0.0, fetching), max(0.0, alone))


def _several(sample: Sample) -> int:
    """Lanes for which there is enough to do, on two cores or more all that work at once."""
    return max(2, min(usable_cores(), LANES_MAX, sample.size // BODY_MAX // 2))


def _round(
    ground: TrialGround, sample: Sample, few: Sample, request: BackupRequest, ways: dict[str, EngineOptions]
) -> _Round:
    cpu, reading = dict[str, float](), dict[str, float]()
    for way, engine in ways.items():
        price = ground.run(few, replace(request, paths=few.paths), engine, cold=False)
        for name, cold in ((f"{way}, cold", True), (way, False)):
            trial = ground.run(sample, request, engine, cold=cold)
            cpu[name] = _beyond(price, trial)
            reading[name] = trial.trace.stage("read").busy / max(trial.read, 1)
    return _Round(cpu, reading)


def _beyond(price: Trial, trial: Trial) -> float:
    """Processor seconds for each byte, without what it takes to begin and to end."""
    return max(trial.cpu - price.cpu, 0.0) / max(trial.read - price.read, 1)

