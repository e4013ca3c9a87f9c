"""What the three programs share of their command lines: commands that are imported when they are used, and how a
command ends."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any, Protocol

import click

from model.errors import LoxError
from model.exits import ExitCode


class LazyGroup(click.Group):
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


class Options(Protocol):
    """What was given before the command, as far as its end depends on it."""

    json: bool
    debug: bool


def run(
    root: click.Command,
    program: str,
    options: Options,
    arguments: Sequence[str] | None = None,
    clean: Callable[[str], str] = str,
) -> int:
    """Runs a command of a daemon's program and returns the exit code. `options` is what the root fills in; `clean`
    takes secrets out of what is told of an error."""

    def ended(code: ExitCode, message: str, hint: str = "") -> int:
        message, hint = clean(message), clean(hint)
        if options.json:
            fields = {"type": "error", "schema": 1, "message": message, "hint": hint, "exit_code": int(code)}
            click.echo(json.dumps(fields), err=True)
        else:
            click.echo(f"{program}: {message}" + (f"\nHint: {hint}" if hint else ""), err=True)
        return code

    try:
        result = root.main(args=arguments, prog_name=program, standalone_mode=False, obj=options)
        sys.stdout.flush()
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return ExitCode.USAGE
    except click.ClickException as error:
        return ended(ExitCode.USAGE, error.format_message())
    except (KeyboardInterrupt, click.Abort):
        return ended(ExitCode.INTERRUPTED, "interrupted")
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # nobody is there to take what is left
        return ExitCode.FAILURE
    except LoxError as error:
        if options.debug:
            traceback.print_exception(error)
        return ended(error.exit_code, str(error), error.hint)
    return int(result) if isinstance(result, int) else ExitCode.OK
