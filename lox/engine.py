"""The options that say how a run uses the machine, and the patterns that say what it takes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from lox.output import Output
from lox.settings import option, stacked
from lox.types import SizeType

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


def engine_of(executor: str, lanes: int | None, memory: int) -> EngineOptions:
    """The same as the pipelines want it."""
    from pipelines.options import EngineOptions

    return EngineOptions(executor=executor, lanes=lanes, memory=memory)


def announce(output: Output, executor: str) -> None:
    """Tells whoever watches why nothing moves yet."""
    if executor == "ray" and output.settings.progress and sys.stderr.isatty():
        output.note("starting Ray, which takes a few seconds ...")
