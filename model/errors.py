"""Every error the program raises on purpose.

    LoxError                        exit 1
    ├── UsageError                  a request that makes no sense                        exit 2
    ├── ConfigError                 a setting is wrong; names the key and the file       exit 78
    │   └── InvalidProfile          faults in a profile, each with its place
    ├── PlanError                   the graph cannot run as written
    ├── StoreError
    │   ├── Transient               may work if repeated (only the retrying wrapper repeats)
    │   ├── Missing                 no such object
    │   ├── Exists                  put-if-absent found the name taken
    │   ├── StoreFull               no room left                                         exit 16
    │   └── Refused                 permission, read-only, credentials: never repeat
    ├── RepositoryError
    │   ├── NoRepository            nothing of ours at this place                        exit 10
    │   ├── WrongPassword           no key slot opens                                    exit 12
    │   ├── Damaged                 bytes do not match their name or seal                exit 15
    │   │   └── Revoked             sealed with a write-only key after that was removed
    │   ├── NewerFormat             a format or feature newer than this program          exit 17
    │   │   └── NoKey               sealed under keys newer than the one at hand         exit 12
    │   └── NotFound                no such snapshot, path or key
    ├── ServerError
    │   ├── RefusedByServer         it answered, and said no: the request is what to change  exit 13
    │   ├── Unreachable             no answer, or that it failed                         exit 14
    │   └── NotDelivered            a message of the server did not get where it was sent
    ├── RunFailed                   an executor gave up; names stage and lane
    └── Interrupted                 SIGINT or SIGTERM                                    exit 130

Trouble with one file is not in this tree: it is data (an entry's problem, exit code 3). Programmer errors are
assertions. Every class takes values, keeps them as attributes and pickles, because errors cross processes.
"""

from __future__ import annotations

from typing import ClassVar

from model.exits import ExitCode


class LoxError(Exception):
    """Base of all our errors: what failed, on which object, why, and what the user can do next."""

    exit_code: ClassVar[ExitCode] = ExitCode.FAILURE

    def __init__(self, what: str, *, subject: str = "", why: str = "", hint: str = "") -> None:
        super().__init__(what, subject, why, hint)
        self.what = what
        self.subject = subject
        self.why = why
        self.hint = hint

    def __str__(self) -> str:
        head = f"{self.what}: {self.subject}" if self.subject else self.what
        return f"{head}: {self.why}" if self.why else head

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.what, self.subject, self.why, self.hint)


def _rebuild(kind: type[LoxError], what: str, subject: str, why: str, hint: str) -> LoxError:
    return kind(what, subject=subject, why=why, hint=hint)


class UsageError(LoxError):
    exit_code = ExitCode.USAGE


class ConfigError(LoxError):
    exit_code = ExitCode.INVALID_CONFIGURATION


class InvalidProfile(ConfigError):
    """`faults` are all that is wrong; the texts of the error tell of the first."""

    def __init__(
        self, what: str, *, subject: str = "", why: str = "", hint: str = "", faults: tuple[object, ...] = ()
    ) -> None:
        super().__init__(what, subject=subject, why=why, hint=hint)
        self.faults = faults

    def __reduce__(self) -> tuple[object, ...]:
        return (*super().__reduce__(), {"faults": self.faults})


class PlanError(LoxError):
    pass


class StoreError(LoxError):
    pass


class Transient(StoreError):
    """`retry_after`: seconds that the server asked to wait, if it did."""

    def __init__(
        self, what: str, *, subject: str = "", why: str = "", hint: str = "", retry_after: float | None = None
    ) -> None:
        super().__init__(what, subject=subject, why=why, hint=hint)
        self.retry_after = retry_after

    def __reduce__(self) -> tuple[object, ...]:
        return (*super().__reduce__(), {"retry_after": self.retry_after})


class Missing(StoreError):
    pass


class Exists(StoreError):
    pass


class StoreFull(StoreError):
    exit_code = ExitCode.STORE_FULL


class Refused(StoreError):
    pass


class RepositoryError(LoxError):
    pass


class NoRepository(RepositoryError):
    exit_code = ExitCode.NO_REPOSITORY


class WrongPassword(RepositoryError):
    exit_code = ExitCode.WRONG_PASSWORD


class Damaged(RepositoryError):
    exit_code = ExitCode.DAMAGE_FOUND


class Revoked(Damaged):
    pass


class NewerFormat(RepositoryError):
    exit_code = ExitCode.NEWER_FORMAT


class NoKey(NewerFormat):
    exit_code = ExitCode.WRONG_PASSWORD


class NotFound(RepositoryError):
    pass


class ServerError(LoxError):
    pass


class RefusedByServer(ServerError):
    """`status` is that of HTTP."""

    exit_code = ExitCode.REFUSED

    def __init__(self, what: str, *, subject: str = "", why: str = "", hint: str = "", status: int = 0) -> None:
        super().__init__(what, subject=subject, why=why, hint=hint)
        self.status = status

    def __reduce__(self) -> tuple[object, ...]:
        return (*super().__reduce__(), {"status": self.status})


class Unreachable(ServerError):
    exit_code = ExitCode.UNREACHABLE


class NotDelivered(ServerError):
    pass


class RunFailed(LoxError):
    pass


class Interrupted(LoxError):
    exit_code = ExitCode.INTERRUPTED
