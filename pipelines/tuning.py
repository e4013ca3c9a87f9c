"""Tuning a profile on a host: which knobs there are, and what a point of them does with real files.

What is not a matter of measuring is no knob: memory, limits, the executor, what a repository is made with.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from statistics import mode

from model.errors import PlanError
from pipelines.backup import BackupRequest
from pipelines.draw import FILES_MAX, MIB, Sample, draw
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

FIRST_BYTES, FIRST_FILES = 16 * MIB, 2_000  # of the sample with which it is found out how large one must be
BYTES_LEAST, BYTES_MOST = 4 * MIB, 4096 * MIB
TRIALS = 50  # a tuning is to have time for
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
            if 0.7 < took / want < 1.4 or (self.sample.whole and took < want):
                return
            self.sample = self._resized(want / max(took, 1e-3))

    def _resized(self, factor: float) -> Sample:
        size = min(BYTES_MOST, max(BYTES_LEAST, self.sample.size * factor))
        files = max(FIRST_FILES, FILES_MAX * size / (64 * MIB), self.sample.files * factor)
        return draw(self._source, round(size), round(files))

    def measure(self, point: Point) -> Measured:
        """One backup with the settings of the point. Raises as a backup; PlanError if it takes too much memory."""
        profile = self._profile.with_values(point, "tune")
        engine = engine_of(profile)
        if _memory(engine) > self._memory:
            raise PlanError("more lanes than memory", why=f"{_memory(engine) >> 20} MiB")
        codec, level = profile.required(CODEC), profile[LEVEL]
        request = BackupRequest(self.sample.paths, mode="full", codec=codec, level=level)
        trial = self._ground.run(self.sample, request, engine, cold=self._cold)
        return Measured(trial.trace.wall, trial.read, trial.stored, trial.trace.limiting().name)


def _memory(engine: EngineOptions) -> int:
    return sum(part.nbytes for part in Fitting(engine, BACKUP).budget())


def knobs_of(profile: Profile, cores: int) -> tuple[list[Knob], Point]:
    """The knobs worth turning, those most likely to matter first, and where they stand in the profile."""
    fitting = Fitting(engine_of(profile), BACKUP)
    lanes, most = fitting.lanes, max(LANES_LEAST, 4 * cores)
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
