"""Measuring what each stage costs on this host: real backups of a sample with one lane in one thread, so that each
stage works alone, and packs put into a store by themselves.
"""

from __future__ import annotations

import mmap
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from model.batches import BODY_MAX
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
HANDOVERS, HANDOVERS_KEPT = 32, 4  # batches that are handed over, and how many of them lie in a queue meanwhile
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
        self._reading = float("inf"), float("inf")  # seconds for a byte by the clock: first, and from memory

    def run(self, packings: Sequence[tuple[str, int]], name: str) -> Rates:
        """The rates of all stages, with each of these codecs and levels; they are kept under `name`."""
        found = tuple(self._packing(codec, level) for codec, level in packings)
        self._on_pass("upload")
        with self._ground.store() as store:
            self._costs["upload"] = put_cost(store, usable_cores())
        return Rates(
            name,
            self._sample.files,
            self._sample.size,
            self._new,
            self._costs,
            handover_cost(),
            found,
            host_facts(),
            time.time(),
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
        """Costs for a byte read, of which the least counts. Reading is work, and the waiting that the first pass had
        more of than those that read from memory: on a busy machine all of them wait for a processor."""
        read = max(trial.read, 1)
        self._new = trial.new / read
        for name in COMMON:
            cpu = _work(trial, name) / read
            cpu = min(self._costs.get(name, Cost(cpu, cpu)).cpu, cpu)
            self._costs[name] = Cost(cpu, cpu)
        clock, (first, warm) = trial.trace.stage("read").busy / read, self._reading
        self._reading = first, warm = (clock, warm) if cold else (first, min(warm, clock))
        cpu = self._costs["read"].cpu
        self._costs["read"] = Cost(max(cpu, first if warm == float("inf") else cpu + first - warm), cpu)


def _work(trial: Trial, stage: str) -> float:
    """Processor seconds of a stage: its part of all. On one lane in one thread there is no other work, but what else
    runs on the machine makes every stage look slower by the clock."""
    busy = sum(line.busy for line in trial.trace.stages)
    return trial.trace.stage(stage).busy * min(1.0, trial.cpu / max(busy, 1e-9))


def put_cost(store: Store, at_once: int) -> Cost:
    """What a stored byte costs with this many objects under way, each of random bytes. Raises StoreError.

    They begin at a page, as packs do: what does not is copied into the page cache, which costs 30 times as much.
    """
    data = mmap.mmap(-1, OBJECT_BYTES)
    data[:] = os.urandom(OBJECT_BYTES)
    begin, cpu, done = time.perf_counter(), time.process_time(), 0

    def put(number: int) -> None:
        # Another length each, as a store may recognise an object it has.
        store.put(f"bench/{number:04d}", [memoryview(data)[: OBJECT_BYTES - number]])

    with ThreadPoolExecutor(at_once) as pool:
        while done == 0 or time.perf_counter() - begin < PUT_SECONDS:
            list(pool.map(put, range(done, done + at_once)))
            done += at_once
    size = done * OBJECT_BYTES
    return Cost((time.perf_counter() - begin) / size, (time.process_time() - cpu) / size)


def handover_cost() -> Cost:
    """What it costs to hand a byte from one strand to the next: a copy into memory that is new each time."""
    body, kept = memoryview(bytearray(BODY_MAX)), deque[bytes](maxlen=HANDOVERS_KEPT)
    cpu = time.thread_time()
    for _ in range(HANDOVERS):
        kept.append(bytes(body))
    size = HANDOVERS * BODY_MAX
    used = (time.thread_time() - cpu) / size
    return Cost(used, used)  # as of stages: what other programs take of the machine is no cost of ours
