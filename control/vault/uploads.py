"""Objects on their way in: files that grow, and whose bytes are hashed as they come."""

from __future__ import annotations

import fcntl
import os
import secrets
import stat
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from blake3 import blake3

RESUMED_MIN = 1 << 20  # bytes; less is sent again rather than gone on with
KEPT_SECONDS = 24 * 3600  # that an upload is kept which nobody goes on with
QUIET_SECONDS = 600  # without a byte, after which nobody is thought to be at work on it
UPLOADS_MAX = 256  # of one repository, at a time
_REREAD = 4 << 20  # bytes


class Upload:
    """The file `path`, of which no other process or request holds the lock, cut to `begin` bytes. Raises OSError.

    `written` bytes are there. Used by one thread at a time.
    """

    def __init__(self, fd: int, path: str, size: int, begin: int) -> None:
        self.path, self.size = path, size
        self._fd = fd
        os.ftruncate(fd, begin)
        self.written = begin
        self._hasher = blake3()
        for at in range(0, begin, _REREAD):
            self._hasher.update(os.pread(fd, min(_REREAD, begin - at), at))

    def write(self, parts: Sequence[bytes]) -> None:
        """The next bytes. Raises OSError."""
        for part in parts:
            view = memoryview(part)
            self._hasher.update(view)
            while view:
                count = os.pwrite(self._fd, view, self.written)
                self.written += count
                view = view[count:]

    def is_whole(self, digest: bytes) -> bool:
        """Whether all came, and is what was meant."""
        return self.written == self.size and self._hasher.digest() == digest

    def close(self, keep: bool = False) -> None:
        """Let go of it. Unless it is worth keeping, the file goes."""
        if not (keep and self.written >= RESUMED_MIN):
            os.unlink(self.path)
        os.close(self._fd)

    def sync(self) -> None:
        """All that came is durable, and never written to again. Raises OSError."""
        os.fchmod(self._fd, 0o400)
        os.fsync(self._fd)
        os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_DONTNEED)  # it is read seldom


@dataclass(frozen=True, slots=True)
class Kept:
    """A file of an upload: its `path`, what size the object will have, and how the file is now."""

    path: str
    size: int
    status: os.stat_result

    @property
    def finished(self) -> bool:
        """It is an object already; whoever stored it was killed before this name went."""
        return self.status.st_nlink > 1

    @property
    def takes(self) -> int:
        """Bytes to reckon with: of one that seems to go on those it will have, else those that are here."""
        return self.size if time.time() - self.status.st_mtime < QUIET_SECONDS else self.status.st_size

    @property
    def old(self) -> bool:
        """Nobody wrote to it for `KEPT_SECONDS`."""
        return time.time() - self.status.st_mtime > KEPT_SECONDS


@dataclass(frozen=True, slots=True)
class Wanted:
    """An object that somebody wants to put: its size in bytes, the BLAKE3 digest of all of it, and where the bytes
    that are sent begin."""

    name: str
    size: int
    digest: bytes
    begin: int = 0

    def path_in(self, folder: str) -> str:
        """The file of its upload; a second, while that is in use, has something behind."""
        return os.path.join(folder, f"{blake3(self.name.encode() + self.digest).hexdigest(16)}-{self.size}")


def opened(path: str) -> tuple[int, str]:
    """A file for an upload, held, and where it is: `path`, unless somebody is at work on that. Raises OSError."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(path, flags, 0o600)
    if held(fd):
        return fd, path
    os.close(fd)  # a connection that nobody knows to be dead yet, as a rule
    path = f"{path}-{secrets.token_hex(8)}"
    fd = os.open(path, flags | os.O_EXCL, 0o600)
    held(fd)
    return fd, path


def length_of(path: str) -> int:
    """How many bytes there are to go on from; 0 if there is no such file, or somebody is at work on it."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return 0
    try:
        return os.fstat(fd).st_size if held(fd) else 0
    finally:
        os.close(fd)


def held(fd: int) -> bool:
    """Take the lock of a file, if nobody has it and the file has not gone meanwhile."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return os.fstat(fd).st_nlink > 0


def all_in(folder: str) -> Iterator[Kept]:
    """The uploads there are. Raises OSError."""
    with os.scandir(folder) as entries:
        for entry in entries:
            try:
                status = entry.stat(follow_symlinks=False)
                size = int(entry.name.split("-")[1])
            except (FileNotFoundError, IndexError, ValueError):
                continue
            if stat.S_ISREG(status.st_mode):
                yield Kept(entry.path, size, status)
