"""The working directory of an agent: where each thing lies, and files in it that are replaced as a whole."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from model.errors import ConfigError, UsageError

SECRET_MAX = 4096  # bytes of a file that holds one secret


@dataclass(frozen=True, slots=True)
class WorkDir:
    """Paths below `root`."""

    root: Path

    @property
    def credential(self) -> Path:
        return self.root / "credential"

    @property
    def state(self) -> Path:
        return self.root / "state.sqlite3"

    @property
    def keys(self) -> Path:
        return self.root / "keys"

    @property
    def kits(self) -> Path:
        return self.root / "recovery-kits"

    @property
    def limits(self) -> Path:
        return self.root / "limits"

    @property
    def metrics(self) -> Path:
        return self.root / "metrics.prom"

    def key(self, repository: UUID) -> Path:
        """The key file of a repository."""
        return self.keys / f"{repository}.key"

    def prepare(self) -> None:
        """Make what is missing, readable for nobody else. Raises ConfigError."""
        try:
            for folder in (self.root, self.keys, self.kits, self.limits, self.root / "cache", self.root / "runs"):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = self.root.stat()
        except OSError as error:
            why = (error.strerror or "").lower()
            raise ConfigError("cannot use the working directory", subject=str(self.root), why=why) from error
        if found.st_uid not in (0, os.geteuid()) or found.st_mode & 0o022:
            why = "others than the agent may write there"
            raise ConfigError("the working directory is not safe", subject=str(self.root), why=why,
                              hint=f"chmod 700 {self.root}")  # fmt: skip

    @contextmanager
    def only_one(self) -> Iterator[None]:
        """Holds the lock of the daemon. Raises UsageError if another one runs."""
        fd = os.open(self.root / "agent.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UsageError("an agent runs already", subject=str(self.root), hint="see lox-agent status") from None
            os.ftruncate(fd, 0)
            os.write(fd, f"{os.getpid()}\n".encode())
            yield
        finally:
            os.close(fd)

    def running_pid(self) -> int | None:
        """The process that holds the lock of the daemon, if one does."""
        try:
            fd = os.open(self.root / "agent.lock", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return None
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return int(os.read(fd, 20).strip() or 0) or None
        finally:
            os.close(fd)
        return None


def write_private(path: Path, data: bytes) -> None:
    """Put `data` in the place of the file, mode 0600: who reads, even after a power cut, sees old or new. OSError."""
    fd, temporary = tempfile.mkstemp(prefix=".new-", dir=path.parent)  # 0600
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(fd)
        os.rename(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read_secret(path: Path) -> str | None:
    """The text of a secret that only its owner may read; None if there is none. Raises ConfigError."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError("cannot read a secret", subject=str(path), why=(error.strerror or "").lower()) from error
    with os.fdopen(fd, "rb") as file:
        found = os.fstat(fd)
        if found.st_mode & 0o077 or found.st_uid not in (0, os.geteuid()):
            why = "others than its owner may read it, or it belongs to somebody else"
            raise ConfigError("a secret is not safe", subject=str(path), why=why, hint=f"chmod 600 {path}")
        return file.read(SECRET_MAX).decode("ascii", "replace").strip() or None
