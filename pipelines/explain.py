"""What a profile comes to on this host: every value with where it comes from, the memory, and what will not be as one
might think. For backups; the stages of a restore and of a copy are left out unless something is said about them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import mode
from typing import Any

from pipelines.fitting import Fitting, Part
from pipelines.options import BACKUP
from pipelines.plans import plan_of
from pipelines.predict import LIMIT, PROCESSOR, Forecast
from pipelines.profile import DEFAULT, Profile, engine_of, written
from pipelines.profile_keys import (
    ABOUT,
    BATCHES_OPEN,
    CODEC,
    CUT,
    EXECUTOR,
    KEYS,
    LANES,
    LEVEL,
    PACK_SIZE,
    PACKS_UNDER_WAY,
    STAGES,
    Key,
    lanes_of,
    placement_of,
    queue_bytes_of,
    queue_items_of,
)
from pipelines.profile_kinds import Wrong
from repository.codecs import by_name
from runtime.executors import choose
from runtime.plan import Plan

MIB = 1 << 20
_ELSEWHERE = tuple(stage for stage in STAGES if stage not in BACKUP)


@dataclass(frozen=True, slots=True)
class Resolved:
    """One value as it is used, and where it comes from: a file and line, an option, `default`. `why`: it was `auto`."""

    key: str
    value: str
    origin: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class Explained:
    """A profile on a host. `parts` are the memory it may take, of `memory` bytes."""

    profile: Profile
    fitting: Fitting
    plan: Plan
    executor: str
    values: tuple[Resolved, ...]
    parts: tuple[Part, ...]
    memory: int

    @property
    def together(self) -> int:
        """Bytes of all parts."""
        return sum(part.nbytes for part in self.parts)


def explain(profile: Profile, cores: int) -> Explained:
    """What a backup with this profile is told on a host with so many cores."""
    engine = engine_of(profile)
    fitting = Fitting(engine, BACKUP)
    executor, why = choose(engine.executor)
    automatic = {**_automatic(profile, fitting, cores), EXECUTOR.path: (executor, why)}
    values = tuple(_resolved(profile, key, automatic) for key in KEYS.values() if _matters(profile, key, fitting))
    return Explained(
        profile, fitting, plan_of("backup", profile), executor, values, tuple(fitting.budget()), engine.memory
    )


def _matters(profile: Profile, key: Key[Any], fitting: Fitting) -> bool:
    """Whether the key has a part in a backup, or is set."""
    if key.path in ABOUT:
        return False
    if profile.origin(key) != DEFAULT:
        return True
    section, _, rest = key.path.partition(".")
    stage = rest.partition(".")[0]
    if section in ("chunker", "placement") or (section == "stages" and stage in _ELSEWHERE):
        return False
    return ".queue." not in key.path or stage in fitting.begins


def _resolved(profile: Profile, key: Key[Any], automatic: dict[str, tuple[str, str]]) -> Resolved:
    origin = str(profile.origin(key))
    shown = profile.shown(key)
    if key.path in automatic and shown == "auto":
        value, why = automatic[key.path]
        return Resolved(key.path, value, origin, f"auto: {why}")
    if shown != "auto":
        return Resolved(key.path, shown, origin)
    try:
        key.kind.parse(key.automatic)  # what auto comes to is always the same, and written there
    except Wrong:
        return Resolved(key.path, shown, origin, f"auto: {key.automatic}")
    return Resolved(key.path, key.automatic, origin, "auto")


def _automatic(profile: Profile, fitting: Fitting, cores: int) -> dict[str, tuple[str, str]]:
    """What `auto` comes to, and why, for keys for which that depends on the host or on other keys."""
    usual = mode(fitting.lanes.values())
    why = f"{cores} core{'s' * (cores != 1)}" if usual >= cores else "as many as memory holds"
    codec = profile.required(CODEC)
    found = {
        LANES.path: (str(usual), why),
        PACK_SIZE.path: (written(PACK_SIZE, _whole_mib(fitting.pack_bytes)), "what memory leaves"),
        BATCHES_OPEN.path: (str(fitting.batches_open), BATCHES_OPEN.automatic),
        LEVEL.path: (str(by_name(codec, None)[1]), f"the level made for {codec} segments"),
        CUT.path: (", ".join(fitting.begins) or "none", CUT.automatic),
    }
    for stage in BACKUP:
        found[lanes_of(stage).path] = (str(fitting.lanes[stage]), LANES.path)
    for stage in fitting.begins:
        queue = fitting.queue(stage)
        items, nbytes = queue_items_of(stage), queue_bytes_of(stage)
        found[nbytes.path] = (written(nbytes, _whole_mib(queue.nbytes or 0)), nbytes.automatic)
        found[items.path] = ("auto", items.automatic)
    return found


def _whole_mib(nbytes: int) -> int:
    return nbytes // MIB * MIB if nbytes >= MIB else nbytes


def warnings_of(explained: Explained, forecast: Forecast | None, cores: int) -> list[str]:
    """What will not be as one might think."""
    checks: Sequence[Callable[[Explained, Forecast | None, int], list[str]]] = (
        _faults, _memory, _queues_without_effect, _labels_without_effect, _many_packs, _lanes_beyond_cores, _limited,
    )  # fmt: skip
    return [text for check in checks for text in check(explained, forecast, cores)]


def _faults(explained: Explained, forecast: Forecast | None, cores: int) -> list[str]:
    return [f"{fault.place}: {fault.reason}" for fault in explained.profile.faults if fault.warning]


def _memory(explained: Explained, forecast: Forecast | None, cores: int) -> list[str]:
    over = explained.together - explained.memory
    if over <= 0:
        return []
    largest = max(explained.parts[1:], key=lambda part: part.nbytes)
    return [
        f"the parts add up to {explained.together / MIB:.0f} MiB, {over / MIB:.0f} MiB more than the budget of "
        f"{explained.memory / MIB:.0f} MiB; the largest is {largest.name}"
    ]


def _queues_without_effect(explained: Explained, forecast: Forecast | None, cores: int) -> list[str]:
    profile, begins = explained.profile, explained.fitting.begins
    keys = [
        key for stage in BACKUP[1:] if stage not in begins for key in (queue_items_of(stage), queue_bytes_of(stage))
    ]
    return [
        f"{key.path} ({profile.origin(key)}) has no effect: nothing waits before a stage that begins no strand"
        for key in keys
        if profile.origin(key) != DEFAULT and profile[key] is not None
    ]


def _labels_without_effect(explained: Explained, forecast: Forecast | None, cores: int) -> list[str]:
    if explained.executor == "ray":
        return []
    keys = [placement_of(stage) for stage in BACKUP if explained.profile[placement_of(stage)]]
    return [f"{key.path} has no effect with the executor {explained.executor}: it has one host" for key in keys]


def _many_packs(explained: Explained, forecast: Forecast | None, cores: int) -> list[str]:
    profile, fitting = explained.profile, explained.fitting
    under_way = fitting.engine.packs_under_way * fitting.lanes["upload"] * fitting.pack_bytes
    if under_way * 2 <= explained.memory or profile.origin(PACKS_UNDER_WAY) == DEFAULT:
        return []
    return [f"packs under way may take {under_way / MIB:.0f} MiB, more than half of the memory"]


def _lanes_beyond_cores(explained: Explained, forecast: Forecast | None, cores: int) -> list[str]:
    if forecast is None or forecast.limit != PROCESSOR:
        return []
    lanes = max(explained.fitting.lanes.values())
    if lanes <= cores:
        return []
    return [f"{lanes} lanes on {cores} cores: the processor limits, and lanes beyond its cores are worth nothing then"]


def _limited(explained: Explained, forecast: Forecast | None, cores: int) -> list[str]:
    if forecast is None or forecast.limit != LIMIT:
        return []
    return ["the upload limit sets the pace; a higher level of compression may be worth its time"]
