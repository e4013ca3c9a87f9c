"""Measuring what each stage costs on this host: real backups of a sample with one lane in one thread, so that each
stage works alone, and packs put into a store by themselves.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from pipelines.backup import BackupRequest
from pipelines.draw import Sample
from pipelines.options import EngineOptions
from pipelines.rates import Cost, Packing, Rates, host_facts, usable_cores
from pipelines.trials import Trial, TrialGround
from repository.store import Store

PASSES = 3  # of which the fastest counts, stage by stage; the first reads from where the files lie
PATIENCE = 8.0  # seconds for the passes with one codec, after which no further one is begun
OBJECT_BYTES = 16 << 20  # of what is put into a store
PUT_SECONDS = 1.0
INLINE = EngineOptions(executor="inline", lanes=1)
COMMON = ("scan", "read", "chunk", "hash", "dedup", "commit")


class Bench:
    """Measures the stages with one sample. `on_pass` hears of each pass before it begins: the codec and its level."""

    def __init__(self, ground: TrialGround, sample: Sample, on_pass: Callable[[str], None] = lambda what: None) -> None:
        self._ground = ground
        self._sample = sample
        self._on_pass = on_pass
        self._costs: dict[str, Cost] = {}
        self._new = 1.0

    def run(self, packings: Sequence[tuple[str, int]], name: str) -> Rates:
        """The rates of all stages, with each of these codecs and levels; they are kept under `name`."""
        found = tuple(self._packing(codec, level) for codec, level in packings)
        self._on_pass("upload")
        with self._ground.store() as store:
            self._costs["upload"] = put_cost(store, usable_cores())
        return Rates(
            name, self._sample.files, self._sample.size, self._new, self._costs, found, host_facts(), time.time()
        )

    def _packing(self, codec: str, level: int) -> Packing:
        """What one codec costs; what all have in common is the least that was seen with any."""
        begin, trials = time.perf_counter(), list[Trial]()
        request = BackupRequest(self._sample.paths, dry_run=True, mode="full", codec=codec, level=level)
        while len(trials) < PASSES and (not trials or time.perf_counter() - begin < PATIENCE):
            self._on_pass(f"{codec}:{level}")
            first = not trials and not self._costs
            trials.append(self._ground.run(self._sample, request, INLINE, cold=first))
            self._take_common(trials[-1], first)
        compress, encrypt = (
            min(_work(trial, name) / max(trial.new, 1) for trial in trials) for name in ("compress", "encrypt")
        )
        stored = trials[-1].stored / max(trials[-1].new, 1)
        return Packing(codec, level, Cost(compress, compress), Cost(encrypt, encrypt), stored)

    def _take_common(self, trial: Trial, cold: bool) -> None:
        """Costs for a byte read. The first pass tells how long reading takes, later ones how much of it is work."""
        read = max(trial.read, 1)
        self._new = trial.new / read
        for name in COMMON:
            cpu = _work(trial, name) / read
            before = self._costs.get(name, Cost(cpu, cpu))
            cpu = min(before.cpu, cpu)
            wall = cpu
            if name == "read":
                wall = trial.trace.stage(name).busy / read if cold else max(before.wall, cpu)
            self._costs[name] = Cost(wall, cpu)


def _work(trial: Trial, stage: str) -> float:
    """Processor seconds of a stage: its part of all. On one lane in one thread there is no other work, but what else
    runs on the machine makes every stage look slower by the clock."""
    busy = sum(line.busy for line in trial.trace.stages)
    return trial.trace.stage(stage).busy * min(1.0, trial.cpu / max(busy, 1e-9))


def put_cost(store: Store, at_once: int) -> Cost:
    """What a stored byte costs with this many objects under way, each of random bytes. Raises StoreError."""
    data = os.urandom(OBJECT_BYTES)
    begin, cpu, done = time.perf_counter(), time.process_time(), 0

    def put(number: int) -> None:
        # Another length each, as a store may recognise an object it has.
        store.put(f"bench/{number:04d}", [memoryview(data)[number:]])

    with ThreadPoolExecutor(at_once) as pool:
        while done == 0 or time.perf_counter() - begin < PUT_SECONDS:
            list(pool.map(put, range(done, done + at_once)))
            done += at_once
    size = done * OBJECT_BYTES
    return Cost((time.perf_counter() - begin) / size, (time.process_time() - cpu) / size)
