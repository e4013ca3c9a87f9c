"""A directory nobody else can look into, and secrets that travel by path through it."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from model.errors import RunFailed

PREFIX = "lox-"
PATH_MAX = 36  # bytes: Ray puts sockets 63 bytes deeper, and a socket's path ends at 107
FREE_MIN = 256 << 20
SECRET_MAX = 1 << 20


@contextmanager
def private_directory() -> Iterator[str]:
    """A new directory of mode 0700 at a short path, removed at the end; also removes those of dead processes."""
    base = _base()
    _remove_stale(base)
    path = tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=base)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _base() -> str:
    """Memory before disk, the user's own before everybody's."""
    own = "/run" if os.geteuid() == 0 else os.environ.get("XDG_RUNTIME_DIR", "")
    room = PATH_MAX - len(f"/{PREFIX}4194304-12345678")
    for base in (own, tempfile.gettempdir(), "/tmp"):
        if base and len(os.fsencode(base)) <= room and _is_trustworthy(base):
            return base
    raise RunFailed("no place for private files", why="neither /run nor /tmp will do", hint="set TMPDIR")


def _is_trustworthy(base: str) -> bool:
    """Writable for us, with some room, and nobody else can rename what we make in it."""
    try:
        status = os.stat(base)
    except OSError:
        return False
    others_write = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not status.st_mode & stat.S_ISVTX
    owned = status.st_uid in (0, os.geteuid())
    return owned and not others_write and os.access(base, os.W_OK) and shutil.disk_usage(base).free >= FREE_MIN


def _remove_stale(base: str) -> None:
    for path in Path(base).glob(f"{PREFIX}*-*"):
        pid = path.name.removeprefix(PREFIX).split("-")[0]
        try:
            status = path.lstat()
            if (
                pid.isdigit()
                and stat.S_ISDIR(status.st_mode)
                and status.st_uid == os.geteuid()
                and not _alive(int(pid))
            ):
                shutil.rmtree(path, ignore_errors=True)
        except OSError:
            continue


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


class Secret:
    """Bytes that pickle as the path of a file only this user can read, never as themselves.

    `store` it in a private directory before it goes to another process of this host; there `value` reads it once.
    """

    def __init__(self, value: bytes) -> None:
        self._value: bytes | None = value
        self.name = ""  # no two are called the same: here the path of the file

    @property
    def value(self) -> bytes:
        if self._value is None:
            self._value = self._fetched()
        return self._value

    def _fetched(self) -> bytes:
        with open(self.name, "rb") as file:
            return file.read(SECRET_MAX)

    def store(self, directory: str) -> Secret:
        """Write it to a new file of mode 0600 in `directory`. Returns self."""
        fd, self.name = tempfile.mkstemp(prefix="secret-", dir=directory)
        with os.fdopen(fd, "wb") as file:
            file.write(self.value)
        return self

    def __getstate__(self) -> dict[str, object]:
        assert self.name, "a secret is stored before it leaves the process"
        return {**self.__dict__, "_value": None}

    def __repr__(self) -> str:
        return "Secret(...)"


class Vault:
    """Secrets of this process that lanes on other hosts ask for, as a service: it answers who is let in by the gate."""

    def __init__(self) -> None:
        self._secrets: dict[str, bytes] = {}

    def keep(self, value: bytes) -> str:
        """The name to ask for it by."""
        name = os.urandom(16).hex()
        self._secrets[name] = value
        return name

    def value(self, name: str) -> bytes:
        """KeyError if there is none of this name."""
        return self._secrets[name]


class LentSecret(Secret):
    """Bytes that pickle as a name to ask `vault` for, a `Vault` or a proxy of one."""

    def __init__(self, value: bytes, name: str, vault: Any) -> None:
        super().__init__(value)
        self.name = name
        self._vault = vault

    def _fetched(self) -> bytes:
        value: bytes = self._vault.value(self.name)
        return value
