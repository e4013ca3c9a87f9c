"""Measuring what each stage costs on this host: real backups of a sample with one lane in one thread, so that each
stage works alone, the same with more of them (`crowding`), and packs put into a store by themselves.
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
from pipelines.crowding import ONE_THREAD, Compared, compare
from pipelines.draw import Sample
from pipelines.rates import Cost, Packing, Rates, host_facts, usable_cores
from pipelines.trials import Trial, TrialGround
from repository.store import Store

PASSES = 3  # of which the one counts that took the least, as a whole: of the least of each stage no run would be made
PATIENCE = 8.0  # seconds for the passes with one codec, after which no further one is begun
OBJECT_BYTES = 16 << 20  # of what is put into a store
PUT_SECONDS = 1.0
HANDOVERS, HANDOVERS_KEPT = 32, 4  # batches that are handed over, and how many of them lie in a queue meanwhile
COMMON = ("scan", "read", "chunk", "hash", "dedup", "commit")


class Bench:
    """Measures the stages with one sample. `on_pass` hears of each pass before it begins: the codec and its level."""

    def __init__(self, ground: TrialGround, sample: Sample, on_pass: Callable[[str], None] = lambda what: None) -> None:
        self._ground = ground
        self._near = TrialGround(None, ground.scratch)  # a store that is far away is measured by itself
        self._sample = sample
        self._on_pass = on_pass
        self._common = float("inf")  # processor seconds for a byte of all stages that do not depend on the codec
        self._costs: dict[str, Cost] = {}
        self._new = 1.0

    def run(self, packings: Sequence[tuple[str, int]], name: str) -> Rates:
        """The rates of all stages, with each of these codecs and levels; they are kept under `name`."""
        found = tuple(self._packing(codec, level) for codec, level in packings)
        self._on_pass("several lanes")
        compared = compare(self._near, self._sample, self._request(*packings[0]))
        self._costs["read"] = _from_disk(self._costs["read"], compared)
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
            compared.crowding,
            found,
            host_facts(),
            time.time(),
        )

    def _request(self, codec: str, level: int) -> BackupRequest:
        return BackupRequest(self._sample.paths, mode="full", codec=codec, level=level)

    def _packing(self, codec: str, level: int) -> Packing:
        """What one codec costs; the rest is taken from the pass, with any of them, in which it took the least."""
        begin, trials = time.perf_counter(), list[Trial]()
        while len(trials) < PASSES and (not trials or time.perf_counter() - begin < PATIENCE):
            self._on_pass(f"{codec}:{level}")
            trials.append(self._near.run(self._sample, self._request(codec, level), ONE_THREAD, cold=False))
            self._take_common(trials[-1])
        least = min(trials, key=lambda trial: _work(trial, "compress") + _work(trial, "encrypt"))
        compress, encrypt = (_work(least, name) / max(least.new, 1) for name in ("compress", "encrypt"))
        stored = trials[-1].stored / max(trials[-1].new, 1)
        return Packing(codec, level, Cost(compress, compress), Cost(encrypt, encrypt), stored)

    def _take_common(self, trial: Trial) -> None:
        """Costs for a byte read."""
        costs = {name: _work(trial, name) / max(trial.read, 1) for name in COMMON}
        if sum(costs.values()) < self._common:
            self._common, self._new = sum(costs.values()), trial.new / max(trial.read, 1)
            self._costs = {name: Cost(cpu, cpu) for name, cpu in costs.items()}


def _from_disk(memory: Cost, compared: Compared) -> Cost:
    """What reading costs if files do not lie in memory."""
    cpu = memory.cpu + compared.fetching
    return Cost(max(cpu, memory.wall + compared.waiting), cpu)


def _work(trial: Trial, stage: str) -> float:
    """Processor seconds of a stage: its part of all. On one lane in one thread there is no other work, but what else
    runs on the machine makes every stage look slower by the clock. Upload only waits for what is sent beside it."""
    busy = sum(line.busy for line in trial.trace.stages if line.name != "upload")
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
