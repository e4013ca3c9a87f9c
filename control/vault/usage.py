"""How many bytes the objects of a repository take, kept in a small file, so that a quota costs no walk.

Every change is made under a lock of the system, so that several processes agree, and a process that is killed holds it
no longer. A crash between storing an object and counting it is found by the next look (`Shelf.tidy`).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator

_DIGITS = 20


class Usage:
    """The number in the file `path`. Where there is none, `count` finds it out."""

    def __init__(self, path: str, count: Callable[[], int]) -> None:
        self._path = path
        self._count = count

    @contextlib.contextmanager
    def locked(self) -> Iterator[Counter]:
        """Holds the number for the length of the block; nobody else reads or changes it meanwhile. Raises OSError."""
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield Counter(fd, self._count)
        finally:
            os.close(fd)

    def bytes(self) -> int:
        """The number now."""
        with self.locked() as counter:
            return counter.bytes


class Counter:
    """The number while it is held."""

    def __init__(self, fd: int, count: Callable[[], int]) -> None:
        self._fd = fd
        text = os.pread(fd, _DIGITS + 1, 0)
        if len(text) == _DIGITS and text.isdigit():
            self.bytes = int(text)
        else:
            self.set(count())

    def add(self, size: int) -> None:
        """Count `size` bytes more, or fewer. Raises OSError."""
        self.set(max(0, self.bytes + size))

    def set(self, size: int) -> None:
        """It is `size` bytes. Raises OSError."""
        os.pwrite(self._fd, b"%020d" % size, 0)
        self.bytes = size
