"""The climb finds what is faster, does not find what is noise, and keeps within its bounds and its time."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import pytest

from model.errors import PlanError
from pipelines.tune import Climber, Knob, Measured, Point, Step, Tuned, Value, judged

READ = Knob("stages.read.lanes", "read", (1, 2, 4, 8, 16), ends=True)
COMPRESS = Knob("stages.compress.lanes", "compress", (1, 2, 4, 8))
LEVEL = Knob("stages.compress.level", "compress", (1, 2, 3, 6, 9))
START: Point = {READ.key: 8, COMPRESS.key: 2, LEVEL.key: 3}


class World:
    """A machine on which a backup takes what `seconds` says, give or take, and time passes only by backups."""

    def __init__(
        self,
        seconds: Callable[[Point], float],
        stored: Callable[[Point], float] = lambda point: 0.5,
        noise: float = 0.03,
        seed: int = 0,
    ) -> None:
        self._seconds = seconds
        self._stored = stored
        self._rng = random.Random(seed)
        self._noise = noise
        self.now = 0.0
        self.seen: list[Point] = []

    def measure(self, point: Point) -> Measured:
        took = self._seconds(point) * self._rng.lognormvariate(0.0, self._noise)
        self.now += took
        self.seen.append(point)
        return Measured(took, 10**8, round(self._stored(point) * 10**8), "read")

    def climb(
        self,
        knobs: Sequence[Knob] = (READ, COMPRESS, LEVEL),
        start: Point = START,
        seconds: float = 120.0,
        allow_larger: float = 0.02,
    ) -> Tuned:
        climber = Climber(knobs, self.measure, lambda: self.now, allow_larger)
        return climber.climb(start, seconds)


def number(value: Value) -> float:
    assert isinstance(value, int)
    return float(value)


def spinning_disk(point: Point) -> float:
    """One reader streams, several seek."""
    readers = number(point[READ.key])
    return 0.5 if readers == 1 else 0.8 + 0.1 * readers


@pytest.mark.parametrize("seed", range(5))
def test_goes_down_to_one_reader(seed: int) -> None:
    tuned = World(spinning_disk, seed=seed).climb()
    assert tuned.best[READ.key] == 1
    assert tuned.worth_it and tuned.gain is not None
    assert tuned.gain.median == pytest.approx(0.5 / 1.6, rel=0.06)
    assert tuned.pace is not None and tuned.pace[1] / tuned.pace[0] == pytest.approx(0.5 / 1.6, rel=0.1)


def test_goes_up_where_that_helps() -> None:
    """A network file system: each reader waits most of the time."""
    tuned = World(lambda point: 2.0 / number(point[READ.key])).climb()
    assert tuned.best[READ.key] == 16 and tuned.worth_it


def test_two_knobs_together() -> None:
    tuned = World(lambda point: spinning_disk(point) + 1.0 / number(point[COMPRESS.key])).climb(seconds=200.0)
    assert (tuned.best[READ.key], tuned.best[COMPRESS.key]) == (1, 8)


def test_noise_is_no_gain() -> None:
    """Nothing matters, measurements vary by 10 %: of 40 climbs hardly one may claim a gain."""
    claims = sum(World(lambda point: 1.0, noise=0.1, seed=seed).climb().worth_it for seed in range(40))
    assert claims <= 2


def test_what_stores_more_is_not_taken() -> None:
    def stored(point: Point) -> float:
        return 0.55 - 0.01 * number(point[LEVEL.key])

    def seconds(point: Point) -> float:
        return 0.5 + 0.2 * number(point[LEVEL.key])

    world = World(seconds, stored)
    assert world.climb([LEVEL], allow_larger=0.0).changes == {}
    assert World(seconds, stored).climb([LEVEL], allow_larger=0.1).best[LEVEL.key] == 1


def test_what_stores_less_at_the_same_speed_is_taken() -> None:
    """A slow store: the level costs nothing."""
    tuned = World(lambda point: 1.0, lambda point: 0.6 - 0.03 * number(point[LEVEL.key])).climb([LEVEL])
    assert number(tuned.best[LEVEL.key]) > 3
    assert tuned.worth_it and tuned.stored < 0.95


@pytest.mark.parametrize("seconds", [10.0, 40.0, 120.0])
def test_keeps_to_its_time(seconds: float) -> None:
    world = World(lambda point: 1.0 + spinning_disk(point))
    tuned = world.climb(seconds=seconds)
    assert world.now <= seconds + 5.0  # a pair that was under way
    assert tuned.trials == len(world.seen)


def test_too_little_time_to_prove_it_is_no_gain() -> None:
    tuned = World(spinning_disk).climb(seconds=12.0)
    assert tuned.gain is None or tuned.gain.sure or not tuned.worth_it


def test_no_point_beyond_the_values_is_measured() -> None:
    world = World(lambda point: 2.0 / number(point[READ.key]))
    world.climb()
    assert all(point[knob.key] in knob.values for point in world.seen for knob in (READ, COMPRESS, LEVEL))


def test_what_the_engine_refuses_is_left_out() -> None:
    def seconds(point: Point) -> float:
        if number(point[READ.key]) > 8:
            raise PlanError("too little memory", why="it takes 900 MiB")
        return spinning_disk(point)

    tuned = World(seconds).climb()
    assert tuned.best[READ.key] == 1
    refused = [step for step in World(seconds).climb(seconds=500.0, start={**START, READ.key: 8}).steps if step.why]
    assert [(step.after, step.verdict, step.why) for step in refused] == [(16, "impossible", "it takes 900 MiB")]


@pytest.mark.parametrize("seed", range(10))
def test_every_change_that_is_told_in_the_end_was_told_when_it_was_taken(seed: int) -> None:
    def seconds(point: Point) -> float:
        return spinning_disk(point) * 2.0 / number(point[COMPRESS.key])

    told: list[Step] = []
    world = World(seconds, lambda point: 1.0 - 0.03 * number(point[LEVEL.key]), 0.1, seed)
    tuned = Climber((READ, COMPRESS, LEVEL), world.measure, lambda: world.now, 0.02, told.append).climb(START, 120.0)
    at = dict(START)
    for step in told:
        assert step.before == at[step.key]
        if step.verdict in ("faster", "smaller"):
            at[step.key] = step.after
    assert at == tuned.best and tuned.changes


def test_a_race_ends_as_soon_as_it_is_decided() -> None:
    assert judged([1.2], 1.0) == "no"
    assert judged([0.6], 1.0) == "more"
    assert judged([0.6, 0.7, 0.65], 1.0) == "faster"
    assert judged([0.96, 0.95, 0.94], 1.0) == "more"
    assert judged([0.96, 0.95, 0.94, 0.95], 1.0) == "faster"
    assert judged([0.99, 1.0, 1.01, 1.0, 1.0], 1.0) == "no"
    assert judged([0.99, 1.0, 1.01, 1.0, 1.0], 0.9) == "smaller"
