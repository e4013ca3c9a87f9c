"""``lox-server`` and ``python -m control``."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Sequence

import click

from control.cli import Options, root
from model.errors import LoxError
from model.exits import ExitCode


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command line and returns its exit code; as a console script, that is what the process exits with."""
    options = Options()
    try:
        result = root.main(args=arguments, prog_name="lox-server", standalone_mode=False, obj=options)
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return ExitCode.USAGE
    except click.ClickException as error:
        return _report(options, error.format_message(), "", ExitCode.USAGE)
    except (KeyboardInterrupt, click.Abort):
        return _report(options, "interrupted", "", ExitCode.INTERRUPTED)
    except LoxError as error:
        if options.debug:
            traceback.print_exception(error)
        return _report(options, str(error), error.hint, error.exit_code)
    return int(result) if isinstance(result, int) else ExitCode.OK


def _report(options: Options, message: str, hint: str, code: ExitCode) -> int:
    if options.json:
        fields = {"type": "error", "schema": 1, "message": message, "hint": hint, "exit_code": int(code)}
        click.echo(json.dumps(fields), err=True)
    else:
        click.echo(f"lox-server: {message}" + (f"\nHint: {hint}" if hint else ""), err=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
