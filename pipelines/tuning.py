"""Tuning a profile on a host: which knobs there are, and what a point of them does with real files.

What is not a matter of measuring is no knob: memory, limits, the executor, what a repository is made with.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from statistics import mode

from model.batches import BODY_MAX, ROWS_MAX
from model.errors import PlanError
from pipelines.backup import BackupRequest
from pipelines.draw import MIB, Sample, draw
from pipelines.fitting import Fitting
from pipelines.options import BACKUP, EngineOptions
from pipelines.profile import Profile, engine_of
from pipelines.profile_keys import (
    CODEC,
    KEYS,
    LANES,
    LEVEL,
    PACK_SIZE,
    PACKS_UNDER_WAY,
    SCAN_THREADS,
    Key,
    lanes_of,
    queue_items_of,
)
from pipelines.trials import TrialGround
from pipelines.tune import Knob, Measured, Point
from repository.codecs import by_name

FIRST_BYTES, FIRST_FILES = 32 * MIB, 4_000  # of the sample with which it is found out how large one must be
BYTES_MOST = 4096 * MIB
BATCHES = 16  # a sample should have: with fewer nobody can see what more lanes would do
TRIALS = 50  # a tuning is to have time for
PATIENCE = 1.5  # times as long may a trial take, for a sample of enough batches
TRIAL_LEAST, TRIAL_MOST = 0.5, 10.0  # seconds one is to take

GOOD_LANES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
LANES_LEAST = 16  # tried even where there are few cores: who waits for a network needs none
GOOD_LEVELS = {"zstd": (-3, 1, 2, 3, 5, 7, 9, 12), "lz4": (0, 3, 9), "gzip": (1, 3, 6, 9), "none": (0,)}


class Workbench:
    """Measures points with a sample of `source`: the profile with the values of the point."""

    def __init__(self, ground: TrialGround, source: bytes, profile: Profile, *, cold: bool = True) -> None:
        self._ground = ground
        self._source = source
        self._profile = profile
        self._cold = cold
        self._memory = max(engine_of(profile).memory, _memory(engine_of(profile)))  # a promise; no point may break it
        self.sample = draw(source, FIRST_BYTES, FIRST_FILES)

    def prepare(self, point: Point, seconds: float) -> None:
        """Takes a sample that a backup needs so long for that there is time for many of them. Raises as a backup."""
        want = min(TRIAL_MOST, max(TRIAL_LEAST, seconds / TRIALS))
        self.measure(point)  # what is done for the first time takes longer
        for _ in range(2):
            begin = time.monotonic()
            self.measure(point)
            took = time.monotonic() - begin  # with all that goes with a trial
            factor = want / max(took, 1e-3)
            if self.batches < BATCHES:
                factor = max(factor, min(BATCHES / self.batches, factor * PATIENCE))
            if 0.7 < factor < 1.4 or (self.sample.whole and factor > 1.0):
                return
            self.sample = self._resized(factor)

    @property
    def batches(self) -> int:
        """Batches the sample makes at least."""
        return max(1, self.sample.size // BODY_MAX, self.sample.files // ROWS_MAX)

    def _resized(self, factor: float) -> Sample:
        """A sample so many times as large, by bytes or by files, whichever there are enough of."""
        size, files = self.sample.size * factor, self.sample.files * factor
        return draw(self._source, round(min(BYTES_MOST, max(BODY_MAX, size))), round(max(FIRST_FILES, files)))

    def measure(self, point: Point) -> Measured:
        """One backup with the settings of the point. Raises as a backup; PlanError if it takes too much memory."""
        profile = self._profile.with_values(point, "tune")
        engine = engine_of(profile)
        if _memory(engine) > self._memory:
            why = f"it takes {_memory(engine) >> 20} MiB, {self._memory >> 20} MiB is all it may"
            raise PlanError("more lanes than memory", why=why)
        codec, level = profile.required(CODEC), profile[LEVEL]
        request = BackupRequest(self.sample.paths, mode="full", codec=codec, level=level)
        trial = self._ground.run(self.sample, request, engine, cold=self._cold)
        return Measured(trial.trace.wall, trial.read, trial.stored, trial.trace.limiting().name)


def _memory(engine: EngineOptions) -> int:
    return sum(part.nbytes for part in Fitting(engine, BACKUP).budget())


def knobs_of(profile: Profile, cores: int, batches: int = 1 << 20) -> tuple[list[Knob], Point]:
    """The knobs worth turning, those most likely to matter first, and where they stand in the profile. More lanes than
    half of the `batches` of a sample are not tried: it could not tell what they are worth."""
    fitting = Fitting(engine_of(profile), BACKUP)
    lanes, most = fitting.lanes, min(max(LANES_LEAST, 4 * cores), max(1, batches // 2))
    level, levels = levels_of(profile.required(CODEC), profile[LEVEL])
    turned = [
        _knob(profile, LANES, "", mode(lanes.values()), [one for one in GOOD_LANES if one <= most], ends=True),
        *(
            _knob(profile, lanes_of(stage), stage, lanes[stage], [one for one in GOOD_LANES if one <= most], ends=True)
            for stage in ("read", "compress")
        ),
        _knob(profile, SCAN_THREADS, "scan", fitting.engine.scan_threads, (1, 2, 4, 8, 16)),
        _knob(profile, PACKS_UNDER_WAY, "upload", fitting.engine.packs_under_way, (1, 2, 4, 8)),
        _knob(profile, PACK_SIZE, "upload", fitting.pack_bytes, [size * MIB for size in (8, 16, 32, 64)]),
    ]
    if len(levels) > 1:
        turned.append(_knob(profile, LEVEL, "compress", level, levels))
    for stage in fitting.begins:
        items = profile[queue_items_of(stage)]
        if items is not None:
            turned.append(_knob(profile, queue_items_of(stage), stage, items, (1, 2, 4, 8, 16, 32)))
    return turned, {knob.key: profile[KEYS[knob.key]] for knob in turned}


def _knob(profile: Profile, key: Key[int], stage: str, now: int, good: Iterable[int], *, ends: bool = False) -> Knob:
    """A knob with some good values and the one it has `now`, in whose place stands `auto` if nothing is said."""
    given = profile[key]
    values = tuple(given if one == now else one for one in sorted({now, *good}))
    return Knob(key.path, stage, values, ends)


def levels_of(codec: str, level: int | None) -> tuple[int, tuple[int, ...]]:
    """The level that is used, and those worth a trial."""
    _, used = by_name(codec, level)
    return used, tuple(sorted({used, *GOOD_LEVELS[codec]}))
