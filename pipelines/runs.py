"""What backup and restore have in common when they run a plan."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from model.errors import LoxError, RunFailed

R = TypeVar("R")


def unwrapped(run: Callable[[], R]) -> R:
    """The result of `run`. An error of ours that a stage raised is raised itself; its notes say where that was."""
    try:
        return run()
    except RunFailed as failure:
        cause = failure.__cause__
        if isinstance(cause, LoxError):
            raise cause from failure
        raise
