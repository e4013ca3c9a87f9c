"""New files with secrets in them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from model.errors import UsageError

KEY_FILE_NOTE = (
    "Whoever can read this file can read all backups. Name it in LOX_PASSWORD_FILE. Should it be lost, any other\n"
    "key or recovery code opens the repository."
)


@contextmanager
def private_file(path: Path | None) -> Iterator[int | None]:
    """A new file that only its owner can read (mode 0600), as a descriptor; durable at the end, gone if that fails.

    None for no path. Raises UsageError if there is something already, or no file can be made there.
    """
    if path is None:
        yield None
        return
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        why = (error.strerror or "").lower()
        raise UsageError("cannot make the file", subject=str(path), why=why, hint="name a file that is new") from error
    try:
        _sync_folder(path.parent)
        yield file
        os.fsync(file)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    finally:
        os.close(file)


def _sync_folder(folder: Path) -> None:
    """The name of a new file would not outlive a power failure by what is synced of the file alone."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:  # a folder that one may add to and not read
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_key(file: int, text: str) -> None:
    """A key as one line, on the disk before anything relies on it. Raises OSError."""
    write_all(file, text.encode() + b"\n")
    os.fsync(file)


def write_all(file: int, data: bytes) -> None:
    """All of `data` into a descriptor. Raises OSError."""
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]
