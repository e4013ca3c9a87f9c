"""What is predicted from stages measured alone is compared with real backups: different plans, codecs and limits."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from pipelines.backup import BackupRequest, backup_plan
from pipelines.bench import Bench
from pipelines.draw import Sample, make_up
from pipelines.environment import environment
from pipelines.predict import LIMIT, Conditions, Forecast, predict
from pipelines.profile import Profile, engine_of, load
from pipelines.profile_keys import CODEC, LEVEL
from pipelines.rates import Rates, usable_cores
from pipelines.trials import TrialGround, trial_ground
from repository.codecs import by_name
from runtime.plan import fuse
from stages.access import RepositoryAccess

MIB = 1 << 20
PLANS = {
    "default": [],
    "one lane": ["executor.lanes=1"],
    "four lanes": ["executor.lanes=4"],
    "one reader": ["stages.read.lanes=1", "executor.lanes=2"],
    "every stage a strand": ["executor.lanes=1", "strands.cut=all"],
    "zstd level 9": ["stages.compress.level=9"],
    "lz4": ["stages.compress.codec=lz4"],
    "not compressed": ["stages.compress.codec=none"],
}
PACKINGS = [("zstd", 2), ("zstd", 9), ("lz4", 0), ("none", 0)]
# Small packs: sending the last of them, beside which nothing goes on, is not to be a large part of such short runs.
PACKS = "stages.encrypt.pack_size=8MiB"
CLOSE = 1.8  # times too fast or too slow, if nothing else runs; the disk is the uncertain part
CLOSE_CPU = 1.5  # the same for processor time, whatever else runs
APART = 1.15  # times as busy as any other is the stage that limits, if there is no doubt about it
ROUNDS = 3

pytestmark = pytest.mark.alone


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrialGround]:
    with trial_ground(str(tmp_path_factory.mktemp("work"))) as found:
        yield found


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    return make_up(str(tmp_path_factory.mktemp("files")), 96 * MIB)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    return make_up(str(tmp_path_factory.mktemp("few")), MIB)


@pytest.fixture(scope="module")
def rates(ground: TrialGround, sample: Sample) -> Rates:
    return Bench(ground, sample).run(PACKINGS, "made up")


def forecast_of(profile: Profile, rates: Rates, upload: float | None = None) -> Forecast:
    codec, level = profile.required(CODEC), by_name(profile.required(CODEC), profile[LEVEL])[1]
    plan = backup_plan(RepositoryAccess(None), BackupRequest((b"/",)), engine_of(profile))
    packing = rates.packing(codec, level)
    assert packing is not None
    return predict(fuse(plan), rates, packing, Conditions(usable_cores(), rates.new, upload))


@dataclass(frozen=True)
class Real:
    """One backup: bytes read, seconds by the clock and of processors, how long a lane of each stage was busy for a
    byte, and the stage that limited it."""

    read: int
    wall: float
    cpu: float
    busy: dict[str, float]
    limiting: str


def measured(ground: TrialGround, sample: Sample, profile: Profile) -> Real:
    request = BackupRequest(sample.paths, mode="full", codec=profile.required(CODEC), level=profile[LEVEL])
    trial = ground.run(sample, request, engine_of(profile))
    busy = {line.name: line.busy / line.lanes / max(trial.read, 1) for line in trial.trace.stages}
    return Real(trial.read, trial.trace.wall, trial.cpu, busy, trial.trace.limiting().name)


@dataclass(frozen=True)
class Pace:
    """What a long backup does, whatever start and end take: bytes a second, processor seconds for a GB."""

    rate: float
    cpu: float

    @classmethod
    def of(cls, large: list[Real], small: list[Real]) -> Pace:
        """What more bytes cost: the shortest runs count, as other work only ever makes them longer."""
        more = large[0].read - small[0].read
        walls, cpus = ([min(getattr(run, name) for run in runs) for runs in (large, small)] for name in ("wall", "cpu"))
        return cls(more / (walls[0] - walls[1]), (cpus[0] - cpus[1]) / more * 1e9)


def costliest(runs: list[Real]) -> str:
    """The stage whose lanes were busiest; none if it is not clear which. Of each stage its shortest time counts."""
    least = {name: min(run.busy[name] for run in runs) for name in runs[0].busy}
    first, second = sorted(least, key=lambda name: -least[name])[:2]
    return first if least[first] > APART * least[second] else ""


def test_backups_are_about_as_fast_as_predicted(
    ground: TrialGround, sample: Sample, small: Sample, rates: Rates
) -> None:
    """Plan by plan in turns. On a busy machine all are slower: then only the processor time they take is looked at."""
    profiles = {name: load(None, [*sets, PACKS]) for name, sets in PLANS.items()}
    forecasts = {name: forecast_of(profile, rates) for name, profile in profiles.items()}
    runs, short = ({name: list[Real]() for name in PLANS} for _ in range(2))
    busy = False
    for _ in range(ROUNDS):
        for name, profile in profiles.items():
            busy = busy or os.getloadavg()[0] > usable_cores() + 1
            runs[name].append(measured(ground, sample, profile))
            short[name].append(measured(ground, small, profile))
    ratio, cpu_ratio = {}, {}
    machine = "busy" if busy else "idle"
    print(f"\n{machine:<17}MiB/s predicted    real  ratio   CPU s/GB    real  ratio  limits    real      busiest")
    for name in PLANS:
        what, best = forecasts[name], min(runs[name], key=lambda run: run.wall)
        pace = Pace.of(runs[name], short[name])
        ratio[name], cpu_ratio[name] = pace.rate / what.rate, pace.cpu / (what.cpu * 1e9)
        numbers = f"{what.rate / MIB:14.0f}{pace.rate / MIB:8.0f}{ratio[name]:7.2f}"
        numbers += f"{what.cpu * 1e9:11.2f}{pace.cpu:8.2f}{cpu_ratio[name]:7.2f}"
        print(f"{name:<22}{numbers}  {what.stage:<10}{best.limiting:<10}{costliest(runs[name])}")
    assert {name: found for name, found in cpu_ratio.items() if not 1 / CLOSE_CPU < found < CLOSE_CPU} == {}
    named = {name: (what.stage, costliest(runs[name])) for name, what in forecasts.items()}
    if not busy:
        # How long lanes wait for a disk is the uncertain part (decision 024).
        assert {name: pair for name, pair in named.items() if pair[1] not in ("", "read", pair[0])} == {}
        assert {name: found for name, found in ratio.items() if not 1 / CLOSE < found < CLOSE} == {}


def test_more_work_is_predicted_to_take_longer(rates: Rates) -> None:
    """What a forecast is for: to say which of two profiles is faster."""
    rate = {name: forecast_of(load(None, sets), rates).rate for name, sets in PLANS.items()}
    assert rate["zstd level 9"] < rate["default"] and rate["one lane"] <= rate["default"]
    assert rate["zstd level 9"] < rate["lz4"] and rate["zstd level 9"] < rate["not compressed"]


def test_an_upload_limit_is_kept_to_the_byte(ground: TrialGround, sample: Sample, rates: Rates) -> None:
    profile = load(None, ["executor.memory=256MiB"])  # small packs: the last of them are not most of it
    forecast = forecast_of(profile, rates, upload=10.0 * MIB)
    assert forecast.limit == LIMIT
    with environment({"LOX_LIMIT_UPLOAD": "10MiB"}):
        real = measured(ground, sample, profile)
    assert real.read / real.wall == pytest.approx(forecast.rate, rel=0.25)
