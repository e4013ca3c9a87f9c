"""Where the objects of a repository lie. `open_store` turns what the user typed into a `Store`."""

from __future__ import annotations

import os
import re

from model.errors import UsageError
from repository.store.base import Bytes, Leftover, Store
from repository.store.local import LocalStore
from repository.store.measured import MeasuredStore
from repository.store.memory import MemoryStore

__all__ = ["Bytes", "Leftover", "LocalStore", "MemoryStore", "Store", "is_remote", "open_store"]

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):(?!$)")


def open_store(url: str) -> Store:
    """The store at `url`: a path, ``file:///path`` with percent escapes, or s3://, gs://, az://, sftp:// and others.

    Touches nothing yet. What is asked of it is counted (`measured.REQUESTS`). A remote store repeats what fails for
    the moment; LOX_LIMIT_UPLOAD and LOX_LIMIT_DOWNLOAD limit any. Raises UsageError for a location that makes no
    sense, holds a password, or needs a package that is missing.
    """
    store: Store = MeasuredStore(_open(url))
    remote = is_remote(store)
    if os.environ.get("LOX_LIMIT_UPLOAD") or os.environ.get("LOX_LIMIT_DOWNLOAD"):
        from repository.store.throttled import limited

        store = limited(store)
    if remote:
        from repository.store.retrying import RetryingStore

        store = RetryingStore(store)
    return store


def is_remote(store: Store) -> bool:
    """Whether the objects lie behind a URL, not in a folder or in memory of this process."""
    return "://" in store.url and not store.url.startswith("/")


def _open(url: str) -> Store:
    if url.startswith("file://"):
        from urllib.parse import unquote  # most stores are named by a path, and need not wait for it

        path = unquote(url[len("file://") :], errors="surrogateescape")
        if not path.startswith("/"):
            raise UsageError("not a location of a repository", subject=url, hint="write file:///absolute/path")
        return LocalStore(path)
    scheme = _SCHEME.match(url)
    if scheme and url.startswith("//", scheme.end()):
        from repository.store.remote import open_remote

        return open_remote(url)
    if scheme:
        raise UsageError(
            "no such kind of store",
            subject=scheme[1],
            hint=f"use a path, file://, s3:// or sftp://; for a folder of that name write ./{url}",
        )
    if not url or "\0" in url:
        raise UsageError("not a location of a repository", subject=repr(url), hint="give a path, as in /srv/backup")
    return LocalStore(url)
