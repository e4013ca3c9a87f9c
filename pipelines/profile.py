"""Profiles: how a run is made, as a YAML file.

What there is to know for those who build on it:

- `profile_keys` has a `Key` for everything a profile can say (`LANES`, `MEMORY`, `CODEC`, `LEVEL`, `lanes_of("read")`,
  ...; all of them in `KEYS` by dotted path); `docs/pipelines.md` explains them.
- `load(name, sets, options)` gives a `Profile` with everything merged: defaults < what it `extends` < itself < options
  of the command < `--set`. ``profile[KEY]`` is the typed value, None for `auto`; ``profile.origin(KEY)`` says where it
  comes from; ``profile.shown(KEY)`` is how it is written. ``profile.with_values({path: value}, origin)`` is a changed
  copy; `profile_write.profile_text(extends, {path: value})` is a file that says so.
- ``engine_of(profile)`` gives the `EngineOptions` that pipelines take; `fitting.Fitting(engine, stages)` what each
  stage gets of them on this host, and the budget of memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from model.chunking import ChunkerParams
from model.errors import ConfigError, InvalidProfile
from pipelines import profile_keys as keys
from pipelines.options import MEMORY, EngineOptions, StageOptions
from pipelines.profile_check import Value, Values, check_profile, check_setting
from pipelines.profile_faults import Fault, Place
from pipelines.profile_files import ProfileFile, find
from pipelines.profile_keys import ABOUT, STAGES, Key
from pipelines.profile_kinds import AUTO
from repository.codecs import LEVELS, Codec
from runtime.plan import Queue

V = TypeVar("V")

DEPTH_MAX = 8  # profiles that extend each other
DEFAULT = Place("default")


@dataclass(frozen=True, slots=True)
class Profile:
    """Everything a run is told. `files` are those it came from, itself first; `faults` only warn."""

    name: str = "default"
    description: str = ""
    files: tuple[ProfileFile, ...] = ()
    values: Mapping[str, Value] = field(default_factory=dict)
    faults: tuple[Fault, ...] = ()

    def __getitem__(self, key: Key[V]) -> V | None:
        found = self.values.get(key.path)
        value: V | None = key.default if found is None else found.value
        return value

    def origin(self, key: Key[Any]) -> Place:
        """Where the value comes from: a place in a file, an option, or `DEFAULT`."""
        found = self.values.get(key.path)
        return DEFAULT if found is None else found.place

    def shown(self, key: Key[Any]) -> str:
        """The value as it is written in a profile."""
        return written(key, self[key])

    def with_values(self, changes: Mapping[str, Any], origin: str) -> Profile:
        """A copy in which these paths have these values; None is `auto`. Raises InvalidProfile."""
        place = Place(origin)
        values = {**self.values, **{path: Value(value, place) for path, value in changes.items()}}
        return _whole(replace(self, values=values))

    def required(self, key: Key[V]) -> V:
        """The value of a key that has a default and no `auto`."""
        value = self[key]
        assert value is not None, f"{key.path} is never auto"
        return value


def written(key: Key[Any], value: Any) -> str:
    """A value as it is written in a profile."""
    if value is None:
        return AUTO if key.automatic else ""
    return key.kind.written(value)


def load(
    wanted: str | None = None, sets: Iterable[str] = (), options: Mapping[str, tuple[Any, str]] | None = None
) -> Profile:
    """The profile of this name or file, or none, with options (path → value and name) and then ``KEY=VALUE`` on top.

    Raises InvalidProfile with everything that is wrong, ConfigError if there is no such profile.
    """
    profile = Profile() if wanted is None else _with_extends(find(wanted))
    values, faults = dict(profile.values), list[Fault]()
    values.update({path: Value(value, Place(name)) for path, (value, name) in (options or {}).items()})
    for text in sets:
        found, wrong = check_setting(text)
        values.update(found)
        faults += wrong
    if faults:
        raise invalid(faults)
    return _whole(replace(profile, values=values))


def load_file(file: ProfileFile) -> Profile:
    """The profile in this file. Raises as `load`."""
    return _whole(_with_extends(file))


def invalid(faults: Iterable[Fault]) -> InvalidProfile:
    """The error that tells of all these faults."""
    wrong = [fault for fault in faults if not fault.warning]
    first = wrong[0]
    more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
    return InvalidProfile(
        "invalid profile", subject=str(first.place), why=first.reason + more, hint=first.hint, faults=tuple(wrong)
    )


def _with_extends(file: ProfileFile) -> Profile:
    """The file with what it extends below it."""
    chain, faults = list[tuple[ProfileFile, Values]](), list[Fault]()
    while True:
        values, wrong = check_profile(file.read(), file.path)
        faults += wrong
        chain.append((file, values))
        parent = values.get(keys.EXTENDS.path)
        if parent is None:
            break
        try:
            file = find(parent.value, beside=file.path)
        except ConfigError as error:
            faults.append(Fault(parent.place, "extends", f"{error.what}: {error.subject}", error.hint))
            break
        if any(file.path == known.path for known, _ in chain):
            names = " → ".join([*(known.name for known, _ in chain), file.name])
            faults.append(Fault(parent.place, "cycle", f"profiles extend each other: {names}", "one of them must not"))
            break
        if len(chain) == DEPTH_MAX:
            faults.append(Fault(parent.place, "too-deep", f"more than {DEPTH_MAX} profiles extend each other"))
            break
    if any(not fault.warning for fault in faults):
        raise invalid(faults)
    merged: Values = {}
    for _, values in reversed(chain):
        merged.update({path: value for path, value in values.items() if path not in ABOUT})
    first, own = chain[0]
    about = own.get(keys.DESCRIPTION.path)
    description = about.value if about is not None else ""
    return Profile(first.name, description, tuple(file for file, _ in chain), merged, tuple(faults))


# ---- what must fit together


def _whole(profile: Profile) -> Profile:
    """The profile, if its values fit together. Raises InvalidProfile."""
    faults = [*_level_faults(profile), *_chunker_faults(profile)]
    if faults:
        raise invalid(faults)
    return profile


def _level_faults(profile: Profile) -> list[Fault]:
    codec, level = profile.required(keys.CODEC), profile[keys.LEVEL]
    low, _, high = LEVELS[Codec[codec.upper()]]
    if level is None or (low <= level <= high and codec != "none"):
        return []
    place, other = profile.origin(keys.LEVEL), profile.origin(keys.CODEC)
    reason = f"{keys.LEVEL.path}: {codec} (from {other}) has no level {level}"
    hint = "write auto" if codec == "none" else f"write {low} to {high}, or auto"
    return [Fault(place, "range", reason, hint)]


def _chunker_faults(profile: Profile) -> list[Fault]:
    try:
        chunker_of(profile)
    except ConfigError as error:
        said = [key for key in (keys.AVERAGE, keys.MINIMUM, keys.MAXIMUM) if profile.origin(key) != DEFAULT]
        return [Fault(profile.origin(said[0]), "range", f"chunker: {error}", error.hint)]
    return []


# ---- what it comes to


def chunker_of(profile: Profile) -> ChunkerParams:
    """How a new repository is to cut. Raises ConfigError if the lengths are out of order."""
    usual = ChunkerParams()
    average = profile[keys.AVERAGE] or usual.average
    return ChunkerParams(
        kind=profile.required(keys.CHUNKER),
        minimum=profile[keys.MINIMUM] or min(usual.minimum, average),
        average=average,
        maximum=profile[keys.MAXIMUM] or max(usual.maximum, average),
    )


def engine_of(profile: Profile) -> EngineOptions:
    """What the pipelines are told."""
    usual, cuts = EngineOptions(), profile[keys.CUT]
    return EngineOptions(
        executor=profile.required(keys.EXECUTOR),
        lanes=profile[keys.LANES],
        memory=profile[keys.MEMORY] or MEMORY,
        stages={stage: _stage(profile, stage) for stage in STAGES},
        cuts=frozenset(cuts or ()),
        scan_threads=_or(profile[keys.SCAN_THREADS], usual.scan_threads),
        batch_rows=profile[keys.BATCH_ITEMS] or usual.batch_rows,
        batch_bytes=profile[keys.BATCH_BYTES] or usual.batch_bytes,
        segment_bytes=profile[keys.SEGMENT],
        pack_bytes=profile[keys.PACK_SIZE],
        packs_under_way=profile[keys.PACKS_UNDER_WAY] or usual.packs_under_way,
        batches_open=profile[keys.BATCHES_OPEN],
    )


def request_fields(profile: Profile) -> dict[str, Any]:
    """What a `BackupRequest` is told."""
    return {
        "codec": profile.required(keys.CODEC),
        "level": profile[keys.LEVEL],
        "unreadable_file": profile.required(keys.UNREADABLE),
        "changed_while_reading": profile.required(keys.CHANGED),
    }


def _stage(profile: Profile, stage: str) -> StageOptions:
    items, nbytes = keys.queue_items_of(stage), keys.queue_bytes_of(stage)
    placement = profile[keys.placement_of(stage)]
    return StageOptions(profile[keys.lanes_of(stage)], Queue(profile[items], profile[nbytes]), placement or {})


def _or(value: int | None, usual: int) -> int:
    return usual if value is None else value
