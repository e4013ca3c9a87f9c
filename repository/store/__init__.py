"""Where the objects of a repository lie. `open_store` turns what the user typed into a `Store`."""

from __future__ import annotations

import re
from urllib.parse import unquote

from model.errors import UsageError
from repository.store.base import Bytes, Store
from repository.store.local import LocalStore
from repository.store.memory import MemoryStore

__all__ = ["Bytes", "LocalStore", "MemoryStore", "Store", "open_store"]

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):(?!$)")


def open_store(url: str) -> Store:
    """The store at `url`: a path, or ``file:///path`` with percent escapes. Touches nothing yet.

    Raises UsageError for an empty location or a scheme this version does not speak.
    """
    if url.startswith("file://"):
        path = unquote(url[len("file://") :], errors="surrogateescape")
        if not path.startswith("/"):
            raise UsageError("not a location of a repository", subject=url, hint="write file:///absolute/path")
        return LocalStore(path)
    scheme = _SCHEME.match(url)
    if scheme:
        raise UsageError(
            "no such kind of store",
            subject=scheme[1],
            hint=f"use a path or file://; for a folder of that name write ./{url}",
        )
    if not url or "\0" in url:
        raise UsageError("not a location of a repository", subject=repr(url), hint="give a path, as in /srv/backup")
    return LocalStore(url)
