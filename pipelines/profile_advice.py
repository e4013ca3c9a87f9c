"""What is right in a profile and yet will not do what it seems to: here, or on any host."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator

from pipelines import profile_keys as keys
from pipelines.fitting import Fitting
from pipelines.options import BACKUP, COPY, RESTORE, EngineOptions
from pipelines.profile import DEFAULT, Profile, engine_of
from pipelines.profile_faults import Fault

GRAPHS = (BACKUP, RESTORE, COPY)
PACE = 8  # lanes for each core, beyond which more of them only cost memory


def advice(profile: Profile, environment: bool = True) -> list[Fault]:
    """Warnings, and errors for what this host cannot do; with `environment` False nothing about this host."""
    engine = engine_of(profile)
    found = [*_idle_queues(profile, engine), *_placement(profile)]
    if environment:
        found += [*_executor(profile), *_limits(profile), *_memory(profile, engine), *_lanes(profile, engine)]
    return found


def _idle_queues(profile: Profile, engine: EngineOptions) -> Iterator[Fault]:
    """Queues of stages that are in the midst of a strand: nothing ever waits there."""
    begins = {name for graph in GRAPHS for name in Fitting(engine, graph).begins}
    for stage in keys.STAGES:
        for key in (keys.queue_items_of(stage), keys.queue_bytes_of(stage)):
            if profile[key] is not None and stage not in begins:
                reason = f"{key.path} does nothing: {stage} shares a lane with the stage before it"
                hint = f"cut there with strands.cut: [{stage}], or give it other lanes"
                yield Fault(profile.origin(key), "no-effect", reason, hint, warning=True)


def _placement(profile: Profile) -> Iterator[Fault]:
    for stage in keys.STAGES:
        key = keys.placement_of(stage)
        if profile[key] and profile[keys.EXECUTOR] != "ray":
            reason = f"{key.path} does nothing: all stages run on this host"
            yield Fault(profile.origin(key), "no-effect", reason, "write executor.kind: ray", warning=True)


def _executor(profile: Profile) -> Iterator[Fault]:
    if profile[keys.EXECUTOR] == "ray" and importlib.util.find_spec("ray") is None:
        place = profile.origin(keys.EXECUTOR)
        yield Fault(place, "environment", "Ray is not installed", "write executor.kind: threads, or install it")


def _limits(profile: Profile) -> Iterator[Fault]:
    for key in (keys.UPLOAD_LIMIT, keys.DOWNLOAD_LIMIT):
        text = profile[key]
        if text is not None and text.startswith("@") and not os.path.isfile(text[1:]):
            hint = "the file holds a rate such as 50Mbit"
            yield Fault(profile.origin(key), "environment", f"{key.path}: no such file: {text[1:]}", hint)


def _memory(profile: Profile, engine: EngineOptions) -> Iterator[Fault]:
    place = profile.origin(keys.MEMORY)
    for graph in GRAPHS:
        parts = Fitting(engine, graph).budget()
        total = sum(part.nbytes for part in parts)
        if total > engine.memory:
            sums = " + ".join(f"{part.name} {part.nbytes >> 20}" for part in parts)
            reason = f"the parts of a {_name(graph)} add up to {total >> 20} MiB of {engine.memory >> 20}: {sums}"
            yield Fault(place, "memory", reason, "raise executor.memory, or ask for fewer lanes or smaller parts", True)
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if engine.memory > there:
        reason = f"executor.memory is {engine.memory >> 20} MiB, this host has {there >> 20}"
        yield Fault(place, "memory", reason, "write less", warning=True)


def _lanes(profile: Profile, engine: EngineOptions) -> Iterator[Fault]:
    cores = len(os.sched_getaffinity(0))
    for key in (keys.LANES, *(keys.lanes_of(stage) for stage in keys.STAGES if stage not in ("upload", "download"))):
        lanes = profile[key]
        if lanes is not None and lanes > PACE * cores and profile.origin(key) != DEFAULT:
            reason = f"{key.path}: {lanes} lanes on {cores} core{'s' * (cores != 1)}"
            yield Fault(profile.origin(key), "lanes", reason, "write auto", warning=True)


def _name(graph: tuple[str, ...]) -> str:
    return {BACKUP: "backup", RESTORE: "restore", COPY: "copy"}[graph]
