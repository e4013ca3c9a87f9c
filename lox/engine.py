"""The options that say how a run uses the machine: a profile, single keys of one, and what stands for the most used."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

from lox.output import Output
from lox.settings import option, stacked
from lox.types import Compression, RateType, SizeType
from model.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from pipelines.profile import Profile

ENGINE_SECTION = "Engine options"
MEMORY_LEAST = 256 << 20  # bytes; the interpreter and its libraries take most of it


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line says about the engine; None: nothing."""

    executor: str | None = None
    lanes: int | None = None
    memory: int | None = None
    profile: str | None = None
    sets: tuple[str, ...] = ()
    limit_upload: str | None = None
    limit_download: str | None = None
    compression: Compression | None = None

    def with_compression(self, compression: Compression | None) -> Asked:
        """The same for a command that has --compression."""
        return replace(self, compression=compression)

    def called(self, name: str | None) -> Asked:
        """The same for a command that takes a profile as its argument."""
        return replace(self, profile=named(name, self.profile))

    def resolved(self) -> Profile:
        """The profile with the options on top, and on top of those what --set says. Raises ConfigError."""
        from pipelines.profile import load

        return load(named(None, self.profile), self.sets, self._options())

    def _options(self) -> dict[str, tuple[Any, str]]:
        """The keys that options stand for, each with its value and the option's name."""
        from pipelines import profile_keys as keys

        found: dict[str, tuple[Any, str]] = {}
        if self.executor is not None:
            found[keys.EXECUTOR.path] = self.executor, "--executor"
        if self.lanes is not None:
            found |= {keys.lanes_of(stage).path: (None, "--lanes") for stage in keys.STAGES}
            found[keys.LANES.path] = self.lanes, "--lanes"
        if self.memory is not None:
            found[keys.MEMORY.path] = self.memory, "--memory"
        if self.compression is not None:
            found[keys.CODEC.path] = self.compression.codec, "--compression"
            found[keys.LEVEL.path] = self.compression.level, "--compression"
        for key, given, name in (
            (keys.UPLOAD_LIMIT, self.limit_upload, "upload"),
            (keys.DOWNLOAD_LIMIT, self.limit_download, "download"),
        ):
            variable = f"LOX_LIMIT_{name.upper()}"
            if given is not None:
                found[key.path] = given, f"--limit-{name}"
            elif os.environ.get(variable, "").strip():
                found[key.path] = os.environ[variable], variable
        return found


def named(argument: str | None, profile: str | None) -> str | None:
    """The profile that an argument, --profile or LOX_PROFILE names. Raises UsageError if the first two are given."""
    if argument is not None and profile is not None:
        raise UsageError("the profile is named twice", subject=f"{argument}, {profile}", hint="leave out --profile")
    return argument or profile or os.environ.get("LOX_PROFILE") or None


def profile_options(function: Callable[..., Any]) -> Any:
    """Adds --profile and --set; the function gets `profile` and `sets`."""
    return stacked(
        option(
            "--profile",
            metavar="NAME|FILE",
            section=ENGINE_SECTION,
            help="How the run is made: see lox pipeline list. [env: LOX_PROFILE]",
        ),
        option(
            "--set",
            "sets",
            multiple=True,
            metavar="KEY=VALUE",
            section=ENGINE_SECTION,
            help="One key of the profile, stages.compress.level=9 for example; may be repeated.",
        ),
    )(function)


def engine_options(function: Callable[..., Any]) -> Any:
    """Adds --executor, --lanes, --memory, --profile and --set; the function gets them as `asked_engine`.

    Those of `limit_options`, if they stand below, are in there too.
    """

    @wraps(function)
    def gathered(*arguments: Any, **options: Any) -> Any:
        names = ("executor", "lanes", "memory", "profile", "sets", "limit_upload", "limit_download")
        asked = Asked(**{name: options.pop(name) for name in names if name in options})
        return function(*arguments, asked_engine=asked, **options)

    return stacked(
        option(
            "--executor",
            type=click.Choice(["auto", "inline", "threads", "ray"]),
            section=ENGINE_SECTION,
            help="What runs the stages. [default: auto, or as the profile says]",
        ),
        option(
            "--lanes",
            type=click.IntRange(1, 1024),
            section=ENGINE_SECTION,
            help="Parallel lanes. [default: as many as cores and memory allow, or as the profile says]",
        ),
        option(
            "--memory",
            type=SizeType(MEMORY_LEAST),
            metavar="SIZE",
            section=ENGINE_SECTION,
            help="What the whole run may take. [default: 512MiB, or as the profile says]",
        ),
        profile_options,
    )(gathered)


def limit_options(function: Callable[..., Any]) -> Any:
    """Adds --limit-upload and --limit-download; the function gets `limit_upload` and `limit_download`."""
    return stacked(
        _limit_option("upload", "No faster than this to the store"),
        _limit_option("download", "No faster than this from the store"),
    )(function)


def _limit_option(direction: str, text: str) -> Callable[[Callable[..., Any]], Any]:
    variable = f"LOX_LIMIT_{direction.upper()}"
    return option(
        f"--limit-{direction}",
        type=RateType(),
        metavar="RATE",
        section=ENGINE_SECTION,
        help=f"{text}: 50Mbit, '08:00-18:00 50Mbit, 200Mbit', or @FILE that may change. [env: {variable}]",
    )


@contextmanager
def limits(upload: str | None, download: str | None, processes: int = 1) -> Iterator[None]:
    """The limits of this run in the environment, where stores opened here and in processes of lanes find them.

    Each of so many processes takes its part.
    """
    wanted = {"LOX_LIMIT_UPLOAD": upload, "LOX_LIMIT_DOWNLOAD": download}
    if processes > 1:
        wanted["LOX_LIMIT_SHARE"] = str(processes)
    from pipelines.environment import environment

    with environment({name: text for name, text in wanted.items() if text is not None}):
        yield


@contextmanager
def applied(profile: Profile) -> Iterator[None]:
    """What a profile says about this whole process holds: limits, and how much it gives way to others.

    Giving way is for good: the system does not let it be taken back.
    """
    from pipelines import profile_keys as keys

    _give_way(profile[keys.NICE], profile[keys.IO_CLASS])
    processes = 1 + _moving_lanes(profile) if profile[keys.EXECUTOR] == "ray" else 1
    with limits(profile[keys.UPLOAD_LIMIT], profile[keys.DOWNLOAD_LIMIT], processes):
        yield


def _moving_lanes(profile: Profile) -> int:
    """Lanes that talk to the store, each in a process of its own."""
    from pipelines.fitting import Fitting
    from pipelines.options import BACKUP, RESTORE
    from pipelines.profile import engine_of

    engine = engine_of(profile)
    return max(Fitting(engine, BACKUP).lanes["upload"], Fitting(engine, RESTORE).lanes["download"])


def _give_way(nice: int | None, io_class: str | None) -> None:
    """For threads and processes that begin from now on; never less than before."""
    if nice is not None and nice > os.getpriority(os.PRIO_PROCESS, 0):
        os.setpriority(os.PRIO_PROCESS, 0, nice)
    if io_class is not None:
        import psutil

        classes = {"best-effort": "IOPRIO_CLASS_BE", "idle": "IOPRIO_CLASS_IDLE"}
        number = getattr(psutil, classes[io_class], None)
        if number is None:
            raise ConfigError("this system has no classes of disk use", subject="executor.io_class", hint="write auto")
        psutil.Process().ionice(number)


def announce(output: Output, executor: str) -> None:
    """Tells whoever watches why nothing moves yet."""
    if executor == "ray" and output.settings.progress and sys.stderr.isatty():
        output.note("starting Ray, which takes a few seconds ...")
