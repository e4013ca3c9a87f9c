"""Where the password comes from.

In this order, the first that is set: ``LOX_PASSWORD_FILE`` (a file whose first line is the password, or a key file),
``LOX_PASSWORD_COMMAND`` (a command whose first line of output is the password; split like a shell does, but no shell
runs it), ``LOX_PASSWORD`` (the weakest: other programs of the same user can read it from ``/proc``, and shells keep it
in their history), else a prompt on the terminal. A new password for ``lox key add`` and ``lox key passwd`` is looked
for in the same way under ``LOX_NEW_PASSWORD…``, that of the repository a copy comes from under ``LOX_FROM_PASSWORD…``.
An empty variable counts as not set.
"""

from __future__ import annotations

import os
import shlex
import stat
import sys
from pathlib import Path

from model.errors import ConfigError, UsageError

LENGTH_MAX = 64 << 10  # bytes; more is a wrong file, not a password
COMMAND_SECONDS = 120.0
TRIES = 3

CURRENT = "LOX_PASSWORD"
NEW = "LOX_NEW_PASSWORD"
FROM = "LOX_FROM_PASSWORD"


def from_environment(prefix: str = CURRENT) -> str | None:
    """The password the environment names, or None if it names none.

    Raises ConfigError if it names one that cannot be had: then nothing else is tried, because falling back to a
    prompt would hang the job that set it.
    """
    if path := os.environ.get(f"{prefix}_FILE"):
        return from_file(path, f"{prefix}_FILE")
    if command := os.environ.get(f"{prefix}_COMMAND"):
        return _from_command(command, f"{prefix}_COMMAND")
    if direct := os.environ.get(prefix):
        return _first_line(os.fsencode(direct), prefix)
    return None


def from_options(file: str | None, command: str | None, prefix: str) -> str | None:
    """As `from_environment`, but what the command line names goes before what the environment does."""
    if file:
        return from_file(file, "the option that names it")
    if command:
        return _from_command(command, "the option that names it")
    return from_environment(prefix)


def from_file(path: str, variable: str) -> str:
    """The password or key in a file that `variable` names. Raises ConfigError."""
    try:
        with Path(path).open("rb") as file:
            raw, found = file.read(LENGTH_MAX + 1), os.fstat(file.fileno())
    except OSError as error:
        what = "cannot read the password file"
        raise ConfigError(what, subject=path, why=_reason(error), hint=f"see {variable}") from error
    if stat.S_ISREG(found.st_mode) and raw.startswith(b"lox-"):
        _refuse_shared(path, raw, found)
    return _first_line(raw, variable)


def _refuse_shared(path: str, raw: bytes, found: os.stat_result) -> None:
    """Raises ConfigError for a key made by lox in a file that others can read or change.

    It must be of this user and for nobody else; or of root, who may let a group read it.
    """
    from repository.key_file import is_private_text

    if not is_private_text(raw):
        return
    me, mode = os.geteuid(), stat.S_IMODE(found.st_mode)
    if found.st_uid not in (me, 0):
        why = f"it belongs to user {found.st_uid}"
        raise ConfigError("the key file is not yours", subject=path, why=why, hint=f"chown {me} the file")
    if mode & (0o077 if found.st_uid == me else 0o037):
        why = f"its mode is {mode:04o}"
        raise ConfigError("the key file is open to others", subject=path, why=why, hint="chmod 600 the file")


def _from_command(command: str, variable: str) -> str:
    import subprocess  # for those who have such a command only

    try:
        words = shlex.split(command)
    except ValueError as error:
        raise ConfigError("cannot split the password command", subject=command, why=str(error)) from error
    hint = f"run the command by hand, then check {variable}"
    try:
        # stderr and the terminal stay connected: pass, gpg and the like ask there.
        done = subprocess.run(words, stdout=subprocess.PIPE, check=False, timeout=COMMAND_SECONDS)
    except subprocess.TimeoutExpired as error:
        why = f"no answer in {COMMAND_SECONDS:.0f} s"
        raise ConfigError("the password command does not end", subject=words[0], why=why, hint=hint) from error
    except (OSError, IndexError) as error:
        why = _reason(error) if isinstance(error, OSError) else "it is empty"
        raise ConfigError("cannot run the password command", subject=command, why=why, hint=hint) from error
    if done.returncode != 0:
        why = f"exit status {done.returncode}" if done.returncode > 0 else f"killed by signal {-done.returncode}"
        raise ConfigError("the password command failed", subject=words[0], why=why, hint=hint)
    return _first_line(done.stdout, variable)


def _first_line(raw: bytes, origin: str) -> str:
    if len(raw) > LENGTH_MAX:
        raise ConfigError("the password is too long", subject=origin, why=f"more than {LENGTH_MAX} bytes")
    line = raw.split(b"\n", 1)[0].removesuffix(b"\r")
    if not line:
        raise ConfigError("the password is empty", subject=origin, hint="put the password on the first line")
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError("the password is not UTF-8", subject=origin) from error


def can_prompt() -> bool:
    """Whether there is a terminal to ask on."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return sys.stdin is not None and sys.stdin.isatty()
    return True


def ask(question: str = "Password", *, prefix: str = CURRENT) -> str:
    """Asks once on the terminal, without echo."""
    import getpass

    if not can_prompt():
        raise UsageError(
            "no password given",
            why="there is no terminal to ask on",
            hint=f"set {prefix}_FILE or {prefix}_COMMAND",
        )
    try:
        password = getpass.getpass(f"{question}: ")
    except (EOFError, KeyboardInterrupt) as error:
        print(file=sys.stderr)  # leaves the line with the question
        if isinstance(error, KeyboardInterrupt):
            raise
        raise UsageError("no password given", why="end of input") from error
    if not password:
        raise UsageError("the password is empty")
    return password


def ask_new(question: str = "New password", *, prefix: str = NEW) -> str:
    """Asks twice and compares."""
    password = ask(question, prefix=prefix)
    if ask("The same again", prefix=prefix) != password:
        raise UsageError("the two passwords differ", hint="nothing was changed; run the command again")
    return password


def new_password(prefix: str = NEW) -> str:
    """A password about to be set: from the environment, else asked for twice."""
    found = from_environment(prefix)
    return ask_new(prefix=prefix) if found is None else found


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
