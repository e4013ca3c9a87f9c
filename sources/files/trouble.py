"""What the user reads about an entry that could not be backed up whole."""

from __future__ import annotations

import errno
import os

CHANGED = "changed while reading"
REPLACED = "turned into something else while reading"
VANISHED = "vanished while reading"

_TEXTS = {
    errno.ENOENT: VANISHED,
    errno.ESTALE: VANISHED,
    errno.ELOOP: REPLACED,  # what O_NOFOLLOW answers for a symbolic link
    errno.ENOTDIR: REPLACED,
    errno.EINVAL: REPLACED,  # what readlink answers for what is no symbolic link any more
    errno.EXDEV: REPLACED,  # what openat2 answers for a way out
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.EIO: "input/output error",
}


def describe(number: int) -> str:
    """The text for an errno."""
    return _TEXTS.get(number) or os.strerror(number).lower()
