"""Groups of commands of `lox` that are imported when they are used, so that help costs nothing."""

from __future__ import annotations

from lox.settings import Group
from model import command_line


class LazyGroup(command_line.LazyGroup, Group):
    """The shared group, with the options that every command of `lox` has."""
