"""Groups of commands that are imported when they are used, so that help costs nothing."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import click

from lox.settings import Group


class LazyGroup(Group):
    """Commands by name: what the help says of each. Each is `command` in the module ``prefix + name``, with _ for -."""

    def __init__(self, *args: Any, known: Mapping[str, str], prefix: str, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self._known = known
        self._prefix = prefix

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._known)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._known:
            return None
        found = import_module(f"{self._prefix}{cmd_name.replace('-', '_')}").command
        assert isinstance(found, click.Command)
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.NoSuchCommand as error:
            # The base class looks for similar names among commands it has imported: none of ours.
            raise click.NoSuchCommand(error.command_name, possibilities=self._known, ctx=ctx) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(self._known.items()))
