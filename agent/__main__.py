"""``lox-agent`` and ``python -m agent``."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Sequence

import click

from agent.app import Settings, root
from model.errors import LoxError
from model.exits import ExitCode


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command line and returns its exit code; as a console script, that is what the process exits with."""
    settings = Settings()
    try:
        result = root.main(args=arguments, prog_name="lox-agent", standalone_mode=False, obj=settings)
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return ExitCode.USAGE
    except click.ClickException as error:
        return _report(settings, error.format_message(), "", ExitCode.USAGE)
    except (KeyboardInterrupt, click.Abort):
        return _report(settings, "interrupted", "", ExitCode.INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # nobody is there to take what is left
        return ExitCode.FAILURE
    except LoxError as error:
        if settings.debug:
            traceback.print_exception(error)
        return _report(settings, str(error), error.hint, error.exit_code)
    return int(result) if isinstance(result, int) else ExitCode.OK


def _report(settings: Settings, message: str, hint: str, code: ExitCode) -> int:
    from agent.redact import redact

    message, hint = redact(message), redact(hint)
    if settings.json:
        fields = {"type": "error", "schema": 1, "message": message, "hint": hint, "exit_code": int(code)}
        click.echo(json.dumps(fields), err=True)
    else:
        click.echo(f"lox-agent: {message}" + (f"\nHint: {hint}" if hint else ""), err=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
