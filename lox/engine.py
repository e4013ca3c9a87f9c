"""The options that say how a run uses the machine, and the patterns that say what it takes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from lox.output import Output
from lox.settings import option, stacked
from lox.types import RateType, SizeType

if TYPE_CHECKING:
    from pipelines.options import EngineOptions

ENGINE_SECTION = "Engine options"
MEMORY_DEFAULT = "512MiB"
MEMORY_LEAST = 256 << 20  # bytes; the interpreter and its libraries take most of it


def engine_options(function: Callable[..., Any]) -> Any:
    """Adds --executor, --lanes and --memory; the function gets `executor`, `lanes` and `memory`."""
    return stacked(
        option(
            "--executor",
            type=click.Choice(["auto", "inline", "threads", "ray"]),
            default="auto",
            show_default=True,
            section=ENGINE_SECTION,
            help="What runs the stages; auto chooses.",
        ),
        option(
            "--lanes",
            type=click.IntRange(1, 1024),
            section=ENGINE_SECTION,
            help="Parallel lanes. [default: as many as cores and memory allow]",
        ),
        option(
            "--memory",
            type=SizeType(MEMORY_LEAST),
            metavar="SIZE",
            default=MEMORY_DEFAULT,
            show_default=True,
            section=ENGINE_SECTION,
            help="What the whole run may take.",
        ),
    )(function)


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
def limits(upload: str | None, download: str | None, executor: str, lanes: int | None, memory: int) -> Iterator[None]:
    """The limits of this run in the environment, where stores opened here and in processes of lanes find them."""
    wanted = {"LOX_LIMIT_UPLOAD": upload, "LOX_LIMIT_DOWNLOAD": download}
    if executor == "ray":  # a process for each lane, and this one, each with its part
        wanted["LOX_LIMIT_SHARE"] = str(engine_of(executor, lanes, memory).resolved_lanes() + 1)
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update({name: text for name, text in wanted.items() if text is not None})
    try:
        yield
    finally:
        for name, text in before.items():
            if text is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = text


def engine_of(executor: str, lanes: int | None, memory: int) -> EngineOptions:
    """The same as the pipelines want it."""
    from pipelines.options import EngineOptions

    return EngineOptions(executor=executor, lanes=lanes, memory=memory)


def announce(output: Output, executor: str) -> None:
    """Tells whoever watches why nothing moves yet."""
    if executor == "ray" and output.settings.progress and sys.stderr.isatty():
        output.note("starting Ray, which takes a few seconds ...")
