"""What changes when several threads are at work, and when files come from the disk: backups of one sample in rounds.

A round is the sample backed up in one thread, by one lane and by several, from where the files lie and from memory. Of
each the least counts that was seen in any round, for what else the machine does only ever makes it more.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, replace

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
TELLING = 16  # times as much has to be in a sample that tells how much more work it is
TIMES_MAX = 3.0  # what is more than that was something else
ONE_THREAD = EngineOptions(executor="inline", lanes=1)


@dataclass(frozen=True, slots=True)
class Compared:
    """`crowding`, and what a byte takes beside the work that it is when it lies in memory: processor seconds to bring
    it there (`fetching`), and seconds by the clock in all (`waiting`)."""

    crowding: Crowding
    fetching: float
    waiting: float


def compare(ground: TrialGround, sample: Sample, request: BackupRequest) -> Compared:
    """Backs up `sample` in rounds, as `request` says; of a small one it is only found out how long a byte waits for the
    disk. Raises what a backup raises."""
    if sample.size < FEW_BYTES * TELLING:
        far, near = (ground.run(sample, request, ONE_THREAD, cold=cold) for cold in (True, False))
        return Compared(Crowding(), 0.0, max(0.0, _reading(far) - _reading(near)))
    several = _several(sample)
    ways = {
        "thread": ONE_THREAD,
        "lane": EngineOptions(executor="threads", lanes=1),
        "lanes": EngineOptions(executor="threads", lanes=several),
    }
    least, begin = _Least({}, {}), time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="few-", dir=ground.scratch) as folder:
        few = make_up(folder, FEW_BYTES)
        for number in range(ROUNDS):
            if number and time.perf_counter() - begin > PATIENCE:
                break
            for way, engine in ways.items():
                price = ground.run(few, replace(request, paths=few.paths), engine, cold=False)
                for cold in (True, False):
                    least.take(way, cold, price, ground.run(sample, request, engine, cold=cold))
    one, more = (least.times(way) for way in ("lane", "lanes"))
    alone, crowded = (max(0.0, least.reading[way, True] - least.reading[way, False]) for way in ("thread", "lanes"))
    fetching = max(0.0, least.cpu["thread", True] - least.cpu["thread", False])
    return Compared(Crowding(several, one, max(one, more), max(0.0, crowded - alone) / (several - 1)), fetching, alone)


@dataclass(frozen=True, slots=True)
class _Least:
    """By way, and whether the files were read from where they lie: processor seconds for a byte, without what it takes
    to begin and to end; and seconds by the clock in which a lane reads it."""

    cpu: dict[tuple[str, bool], float]
    reading: dict[tuple[str, bool], float]

    def times(self, way: str) -> float:
        """How many times the work of one thread it is."""
        alone = self.cpu["thread", False]
        return min(max(1.0, self.cpu[way, False] / alone), TIMES_MAX) if alone > 0 else 1.0

    def take(self, way: str, cold: bool, price: Trial, trial: Trial) -> None:
        """One more trial, and one of next to nothing made in the same way."""
        cpu = max(trial.cpu - price.cpu, 0.0) / max(trial.read - price.read, 1)
        reading = _reading(trial)
        self.cpu[way, cold] = min(self.cpu.get((way, cold), cpu), cpu)
        self.reading[way, cold] = min(self.reading.get((way, cold), reading), reading)


def _reading(trial: Trial) -> float:
    """Seconds by the clock in which a lane reads a byte."""
    return trial.trace.stage("read").busy / max(trial.read, 1)


def _several(sample: Sample) -> int:
    """Lanes for which there is enough to do, on two cores or more all that work at once."""
    return max(2, min(usable_cores(), LANES_MAX, sample.size // BODY_MAX // 2))
