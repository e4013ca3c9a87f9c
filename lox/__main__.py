"""``lox`` and ``python -m lox``."""

from __future__ import annotations

import gc
import os
import resource
import sys
from collections.abc import Sequence

import click

from lox import signals
from lox.app import build
from lox.output import close_stdout, open_missing_streams, utf8_streams
from lox.settings import Settings, early_settings
from model.exits import ExitCode

OPEN_FILES = 65_536


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command line and returns its exit code; as a console script, that is what the process exits with."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    open_missing_streams()
    utf8_streams(sys.stdout, sys.stderr)
    signals.install()
    gc.set_threshold(50_000)  # the default looks for garbage several times while a listing is made that has none
    _allow_open_files()
    settings = early_settings(given)
    code = _run(given, settings)
    if signals.STOPPER.aborted:
        signals.leave(code)
    return code


def _allow_open_files() -> None:
    """Many lanes hold many descriptors; the default soft limit of 1,024 is for programs that use select(2)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _run(arguments: list[str], settings: Settings) -> int:
    root = build()
    try:
        if "_LOX_COMPLETE" in os.environ:  # set by the completion scripts only
            root.main(args=arguments, prog_name="lox")
        # Not click's own main: it prints to stderr and turns exceptions into others.
        with root.make_context("lox", arguments, obj=settings) as context:
            result = root.invoke(context)
        sys.stdout.flush()
    except BrokenPipeError:
        close_stdout()
        return ExitCode.FAILURE
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message())
        return ExitCode.USAGE
    except click.exceptions.Exit as error:
        return error.exit_code
    except BaseException as error:
        return _ended(error, settings)
    return int(result) if isinstance(result, int) else ExitCode.OK


def _ended(error: BaseException, settings: Settings) -> int:
    if isinstance(error, SystemExit):
        raise error
    from lox.trouble import report  # most commands end well

    try:
        sys.stdout.flush()
    except OSError:
        close_stdout()
    return report(error, settings)


if __name__ == "__main__":
    sys.exit(main())
