"""Errors as the user sees them: ``lox: what: subject: why``, a hint, and the exit code."""

from __future__ import annotations

import errno
import json
import os
import sys
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from lox.escape import safe
from lox.signals import STOPPER
from model.errors import Interrupted, LoxError
from model.exits import ExitCode

if TYPE_CHECKING:
    from lox.settings import Settings

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT}


@dataclass(frozen=True, slots=True)
class Trouble:
    """One error, ready to be printed; all texts are safe for a terminal."""

    what: str
    subject: str
    why: str
    hint: str
    exit_code: ExitCode

    @property
    def message(self) -> str:
        return ": ".join([part for part in (self.what, self.subject, self.why) if part])


def trouble_of(error: BaseException) -> Trouble:
    """What to tell about any exception that ended a command."""
    if isinstance(error, Interrupted):
        return _of_interrupt(error.hint)
    if isinstance(error, KeyboardInterrupt | click.Abort) or STOPPER.aborted:  # which breaks whatever it meets
        return _of_interrupt("")
    if isinstance(error, LoxError):
        return _trouble(error.what, error.subject, error.why, error.hint, error.exit_code)
    if isinstance(error, click.ClickException):
        return _of_usage(error)
    if isinstance(error, MemoryError):
        hint = "use a smaller --memory or fewer --lanes"
        return _trouble("out of memory", "", "", hint, ExitCode.FAILURE)
    if isinstance(error, ModuleNotFoundError):
        hint = "install LOX Backup again, into an environment of its own"
        return _trouble("a package is missing", error.name or "", str(error), hint, ExitCode.FAILURE)
    if isinstance(error, OSError) and error.errno is not None:
        name = os.fsencode(error.filename).decode("utf-8", "surrogateescape") if _is_name(error.filename) else ""
        code = ExitCode.STORE_FULL if error.errno in _NO_ROOM else ExitCode.FAILURE
        return _trouble("the system refused", name, (error.strerror or "").lower(), "", code)
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    hint = "run again with --debug and report the traceback"
    return _trouble("internal error", "", text, hint, ExitCode.FAILURE)


def _is_name(filename: object) -> bool:
    return isinstance(filename, str | bytes | os.PathLike)


def _of_usage(error: click.ClickException) -> Trouble:
    context = getattr(error, "ctx", None)
    where = context.command_path if context is not None else "lox"
    message, hint = error.format_message(), f"see '{where} --help'"
    if isinstance(error, click.NoSuchOption | click.NoSuchCommand):
        message = error.message
        if error.possibilities:
            hint = f"did you mean {' or '.join(error.possibilities)}? Or {hint}"
    message = message.strip().rstrip(".")
    message = message[:1].lower() + message[1:]
    code = ExitCode.USAGE if isinstance(error, click.UsageError) else ExitCode.FAILURE
    return _trouble(message, "", "", hint, code)


def _of_interrupt(hint: str) -> Trouble:
    return _trouble("interrupted", "", "", hint, ExitCode.INTERRUPTED)


def _trouble(what: str, subject: str, why: str, hint: str, code: ExitCode) -> Trouble:
    return Trouble(safe(what), safe(subject), safe(why), safe(hint), code)


def report(error: BaseException, settings: Settings) -> ExitCode:
    """Prints `error` on stderr, as text or as one JSON line, and returns the exit code."""
    trouble = trouble_of(error)
    if settings.debug and not isinstance(error, click.ClickException):
        traceback.print_exception(error, file=sys.stderr)
    if settings.json:
        print(json.dumps(_fields(trouble)), file=sys.stderr, flush=True)
        return trouble.exit_code
    color = settings.wants_color(sys.stderr.isatty())
    head = click.style("lox:", fg="yellow" if isinstance(error, Interrupted) else "red", bold=True) if color else "lox:"
    lines = [f"{head} {trouble.message}"]
    if trouble.hint:
        lines.append(f"Hint: {trouble.hint}")
    print("\n".join(lines), file=sys.stderr, flush=True)
    return trouble.exit_code


def _fields(trouble: Trouble) -> dict[str, object]:
    fields: dict[str, object] = {
        "type": "error",
        "schema": 1,
        "message": trouble.message,
        "what": trouble.what,
        "exit_code": int(trouble.exit_code),
    }
    optional = {"subject": trouble.subject, "why": trouble.why, "hint": trouble.hint}
    return fields | {name: text for name, text in optional.items() if text}
