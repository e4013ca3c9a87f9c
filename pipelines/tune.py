"""Hill climbing over the settings of a profile, one knob and one step at a time, with measurements that can be trusted.

Nothing here runs anything: `climb` is given a function that measures a point. A candidate races against the best
point so far in pairs, in turns (A B, B A, ...), and a race ends as soon as it is decided. What the climb found is then
raced against the start anew: the gain that is told was not what the search was looking at, so it is not the luck of
the best of many tries.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Literal

from model.errors import ConfigError, PlanError, UsageError
from pipelines.pairs import Spread, spread_of

Value = int | str | None
Point = Mapping[str, Value]
"""A value for each knob, by key; None is `auto`."""
Verdict = Literal["more", "faster", "smaller", "no"]

FASTER = 0.97  # of the time: less is not worth a setting of its own
CLEARLY = 0.85  # of the time: then three pairs are enough
HOPELESS = 1.10  # of the time, in the first pair, if measurements do not vary; more if they do
SAME = 1.01  # of the time: no slower
SMALLER = 0.985  # of the bytes stored: worth taking if it costs no time
PAIRS_LEAST, PAIRS_MOST = 3, 5  # of a race during the climb
FINAL_LEAST, FINAL_MOST = 6, 12  # of the last race
RECENT, MARGIN = 9, 1.2  # trials that tell how long the next will take, and how much longer that may be
RESERVE_MOST = 0.5  # of the time, kept for the last race


@dataclass(frozen=True, slots=True)
class Knob:
    """A setting of a profile and the values it may take, in an order in which neighbours behave alike. `stage` is the
    stage whose work it changes. `ends`: whether the lowest value is tried at once, without the steps between."""

    key: str
    stage: str
    values: tuple[Value, ...]
    ends: bool = False


@dataclass(frozen=True, slots=True)
class Measured:
    """One backup of the sample: seconds, bytes read and stored, and the stage that limited it."""

    seconds: float
    read: int
    stored: int
    limiting: str = ""

    @property
    def pace(self) -> float:
        """Seconds for a byte."""
        return self.seconds / max(self.read, 1)

    @property
    def density(self) -> float:
        """Bytes stored for a byte read."""
        return self.stored / max(self.read, 1)


@dataclass(frozen=True, slots=True)
class Step:
    """One race: `key` went from `before` to `after`. `time` and `stored` are ratios to the best point until then.
    `why`: what makes it impossible."""

    key: str
    before: Value
    after: Value
    verdict: Verdict | Literal["impossible"]
    time: Spread | None = None
    stored: float = 1.0
    why: str = ""


@dataclass(slots=True)
class Tuned:
    """How a climb went. `gain` is the time of `best` as a ratio to that of `start`, measured after the climb; None if
    nothing better was found or there was no time for it. `pace` is the median, in seconds for a byte, of both then."""

    start: Point
    best: Point
    steps: list[Step] = field(default_factory=list)
    gain: Spread | None = None
    stored: float = 1.0
    pace: tuple[float, float] | None = None
    trials: int = 0
    untried: int = 0  # neighbours of the best point that there was no time for

    @property
    def changes(self) -> dict[str, tuple[Value, Value]]:
        """What is set otherwise than at the start: key → before and after."""
        return {key: (self.start[key], self.best[key]) for key in self.start if self.start[key] != self.best[key]}

    @property
    def worth_it(self) -> bool:
        """Whether the last race showed a gain beyond noise: in time, or in bytes stored at equal time."""
        if self.gain is None or not self.gain.sure:
            return False
        return self.gain.below or (self.stored <= SMALLER and self.gain.low <= SAME)


class Climber:
    """One climb. `measure` makes a backup with the settings of a point; `clock` tells seconds."""

    def __init__(
        self,
        knobs: Sequence[Knob],
        measure: Callable[[Point], Measured],
        clock: Callable[[], float],
        allow_larger: float = 0.02,
        on_step: Callable[[Step], None] = lambda step: None,
    ) -> None:
        """`allow_larger`: how much more may be stored than at the start, as a share."""
        self._knobs = {knob.key: knob for knob in knobs}
        self._measure = measure
        self._clock = clock
        self._larger = 1.0 + allow_larger
        self._on_step = on_step
        self._took: list[float] = []  # seconds of each trial, what goes with it included
        self._end = 0.0
        self._densities: dict[tuple[Value, ...], float] = {}
        self._paces: dict[tuple[Value, ...], list[float]] = {}

    def climb(self, start: Point, seconds: float) -> Tuned:
        """The best point found from `start` on, which must name a value of every knob, within about `seconds`."""
        begin = self._clock()
        tuned = Tuned(dict(start), dict(start))
        self._end = begin + seconds
        first = self._trial(tuned, start)
        self._end -= min(seconds * RESERVE_MOST, self._seconds_for(2 * FINAL_LEAST))
        self._search(tuned, first.limiting)
        self._end = begin + seconds
        if tuned.changes:
            self._last_race(tuned)
        return tuned

    def _search(self, tuned: Tuned, limiting: str) -> None:
        """Steps uphill until no neighbour is better or the time is over."""
        seen = {self._key(tuned.start)}
        moved = ""
        searching = True
        while searching:
            searching = False
            near = [point for point in self._neighbours(tuned.best, limiting, moved) if self._key(point) not in seen]
            tuned.untried = len(near)
            for candidate in near:
                if not self._time_for(4):  # most races are over after one or two pairs
                    return
                seen.add(self._key(candidate))
                tuned.untried -= 1
                step, limits = self._race(tuned, candidate)
                tuned.steps.append(step)
                self._on_step(step)
                if step.verdict in ("faster", "smaller"):
                    tuned.best, moved, limiting, searching = dict(candidate), step.key, limits or limiting, True
                    break

    def _neighbours(self, point: Point, limiting: str, moved: str) -> Iterator[Point]:
        """Points one step away. First what went uphill last, then the knobs of the stage that limits."""
        order = sorted(self._knobs.values(), key=lambda knob: (knob.key != moved, knob.stage != limiting))
        for knob in order:
            at = knob.values.index(point[knob.key])
            places = [at + 1, at - 1, *([0] if knob.ends else [])]
            for place in dict.fromkeys(places):
                if 0 <= place < len(knob.values) and place != at:
                    yield {**point, knob.key: knob.values[place]}

    def _race(self, tuned: Tuned, candidate: Point) -> tuple[Step, str]:
        """The candidate against the best point, and the stage that limits the candidate."""
        key = next(name for name in candidate if candidate[name] != tuned.best[name])
        ratios: list[float] = []
        stored, limits = 1.0, ""
        verdict: Verdict = "more"
        try:
            while verdict == "more":
                one, other = self._pair(tuned, tuned.best, candidate, len(ratios))
                ratios.append(other.pace / max(one.pace, 1e-15))
                stored, limits = other.density / max(one.density, 1e-15), other.limiting
                larger = self._density_of(candidate) > self._larger * self._density_of(tuned.start)
                verdict = "no" if larger else judged(ratios, stored, self._noise(tuned.best))
                if verdict == "more" and not self._time_for(2):
                    verdict = "no"
        except (ConfigError, PlanError, UsageError) as error:  # the engine does not run with it
            return Step(key, tuned.best[key], candidate[key], "impossible", why=error.why or error.what), ""
        return Step(key, tuned.best[key], candidate[key], verdict, spread_of(ratios), stored), limits

    def _last_race(self, tuned: Tuned) -> None:
        """What was found against the start, with as many pairs as are needed and the time allows."""
        ratios: list[float] = []
        paces: tuple[list[float], list[float]] = ([], [])
        while len(ratios) < FINAL_MOST and (len(ratios) < FINAL_LEAST or self._time_for(2)):
            if ratios and not self._time_for(2):
                break
            one, other = self._pair(tuned, tuned.start, tuned.best, len(ratios))
            ratios.append(other.pace / max(one.pace, 1e-15))
            paces[0].append(one.pace)
            paces[1].append(other.pace)
            tuned.stored = other.density / max(one.density, 1e-15)
            if len(ratios) >= FINAL_LEAST and max(ratios) < 1.0:
                break
        tuned.gain = spread_of(ratios)
        tuned.pace = spread_of(paces[0]).median, spread_of(paces[1]).median

    def _pair(self, tuned: Tuned, one: Point, other: Point, number: int) -> tuple[Measured, Measured]:
        """Both measured in turns: every other pair begins with the other point."""
        if number % 2 == 0:
            first = self._trial(tuned, one)
            return first, self._trial(tuned, other)
        second = self._trial(tuned, other)
        return self._trial(tuned, one), second

    def _trial(self, tuned: Tuned, point: Point) -> Measured:
        begin = self._clock()
        measured = self._measure(point)
        self._took.append(self._clock() - begin)
        self._densities[self._key(point)] = measured.density
        self._paces.setdefault(self._key(point), []).append(measured.pace)
        tuned.trials += 1
        return measured

    def _noise(self, point: Point) -> float:
        """By how much what was measured at a point deviates from its median, as a share: the median of that."""
        paces = self._paces.get(self._key(point), [])
        middle = median(paces) if paces else 1.0
        return median(abs(pace / middle - 1.0) for pace in paces) if len(paces) > 2 else 0.0

    def _density_of(self, point: Point) -> float:
        return self._densities.get(self._key(point), 0.0)

    def _time_for(self, trials: int) -> bool:
        return self._clock() + self._seconds_for(trials) <= self._end

    def _seconds_for(self, trials: int) -> float:
        """What so many trials will take, with some room: as those before, of which one may have been an outlier."""
        return trials * MARGIN * median(self._took[-RECENT:]) if self._took else 0.0

    def _key(self, point: Point) -> tuple[Value, ...]:
        return tuple(point[key] for key in self._knobs)


def judged(ratios: Sequence[float], stored: float, noise: float = 0.0) -> Verdict:
    """What the pairs of a race so far say of a candidate: ratios of its time, and of the bytes it stores. `noise`: by
    how much measurements of one point deviate; the more, the more pairs it takes to be sure."""
    spread, saves = spread_of(ratios), stored <= SMALLER
    if ratios[0] > HOPELESS + 2 * noise or (len(ratios) == 2 and min(ratios) > (SAME if saves else 1.0)):
        return "no"
    if len(ratios) < PAIRS_LEAST:
        return "more"
    enough = {PAIRS_LEAST: CLEARLY, PAIRS_MOST: FASTER}.get(len(ratios), FASTER - noise)
    if max(ratios) < (CLEARLY if len(ratios) == PAIRS_LEAST else 1.0) and spread.median <= enough:
        return "faster"
    if len(ratios) < PAIRS_MOST and (saves or spread.median <= FASTER):
        return "more"
    return "smaller" if saves and spread.median <= SAME else "no"
