"""Exit codes of every command: one enum, printed by ``lox help exit-codes`` and part of the final JSON line."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What the process status means. An unknown code must be treated as a failure."""

    OK = 0
    FAILURE = 1
    USAGE = 2
    PARTIAL = 3
    NO_REPOSITORY = 10
    WRONG_PASSWORD = 12
    REFUSED = 13
    UNREACHABLE = 14
    DAMAGE_FOUND = 15
    STORE_FULL = 16
    NEWER_FORMAT = 17
    INVALID_CONFIGURATION = 78
    INTERRUPTED = 130

    @property
    def meaning(self) -> str:
        return _MEANINGS[self]


_MEANINGS = {
    ExitCode.OK: "done",
    ExitCode.FAILURE: "failed; the message on stderr says why",
    ExitCode.USAGE: "the command line is wrong",
    ExitCode.PARTIAL: "finished, but some items could not be read or written; they are listed",
    ExitCode.NO_REPOSITORY: "there is no repository at this place",
    ExitCode.WRONG_PASSWORD: "the password opens no key of this repository",
    ExitCode.REFUSED: "the server refused what was asked",
    ExitCode.UNREACHABLE: "the server cannot be reached, or failed",
    ExitCode.DAMAGE_FOUND: "stored bytes are damaged or missing",
    ExitCode.STORE_FULL: "the store has no room left",
    ExitCode.NEWER_FORMAT: "the repository was written by a newer version",
    ExitCode.INVALID_CONFIGURATION: "a configuration file is invalid",
    ExitCode.INTERRUPTED: "interrupted; what was stored will be used by the next run",
}
