"""Stores behind a URL: which library speaks which scheme, and what all of them share.

Object stores (s3, gs, az) go through obstore, SFTP through asyncssh, and every other scheme through fsspec. Why these
three: docs/decisions/013-stores.md. Nothing here is imported before a URL asks for it.
"""

from __future__ import annotations

import contextlib
import importlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from urllib.parse import unquote, urlsplit

from model.errors import UsageError
from repository.store.base import Store, is_part

OBJECT_SCHEMES = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "az": "az", "abfs": "az", "abfss": "az"}
SFTP_SCHEMES = ("sftp", "ssh")
VAULT_SCHEME = "lox+https"
PACKAGE = "lox-backup"


@dataclass(frozen=True, slots=True)
class Location:
    """The parts of a URL. `path` has no percent escapes and no slash at its end."""

    scheme: str
    host: str
    port: int | None
    user: str | None
    path: str
    url: str  # what was given, without slashes at the end


def open_remote(url: str) -> Store:
    """The store at a URL with ``://`` in it; connects to nothing yet.

    Raises UsageError for a URL that holds a password or options, a scheme nobody knows, or a package that is missing.
    """
    place = parse_url(url)
    if place.scheme in OBJECT_SCHEMES:
        from repository.store.objects import ObjectStore

        return ObjectStore(place)
    if place.scheme in SFTP_SCHEMES:
        from repository.store.sftp import SftpStore

        return SftpStore(place)
    if place.scheme == VAULT_SCHEME:
        from repository.store.vault import VaultStore

        return VaultStore(place)
    from repository.store.filesystems import FilesystemStore

    return FilesystemStore(place)


def parse_url(url: str) -> Location:
    """Split and check. A message about a URL with a secret in it never repeats the URL. Raises UsageError."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise UsageError("not a URL", why="its host or port makes no sense", hint=_EXAMPLES) from error
    scheme = parts.scheme.lower()
    if parts.password is not None or (scheme in OBJECT_SCHEMES and parts.username is not None):
        raise UsageError("a URL with a password", subject=f"{scheme}://", why="it would end up in logs", hint=_SECRETS)
    if parts.query or parts.fragment:
        raise UsageError(
            "a URL with options or a token", subject=f"{scheme}://", why="it would end up in logs", hint=_SECRETS
        )
    host = parts.hostname or ""
    if scheme in OBJECT_SCHEMES:
        host = parts.netloc  # a bucket is not lower-cased
    path = unquote(parts.path).rstrip("/")
    if "\0" in path or any(part in (".", "..") for part in path.split("/")):
        raise UsageError("not a location of a repository", subject=url, hint=_EXAMPLES)
    return Location(scheme, host, port, parts.username, path, url.rstrip("/"))


_EXAMPLES = "write for example s3://bucket/folder or sftp://user@host/srv/backup"
_SECRETS = (
    "leave it out: credentials come from the environment (AWS_ACCESS_KEY_ID, ...), from the provider's own files, "
    "or from ~/.ssh"
)


def backend(module: str, extra: str, scheme: str) -> ModuleType:
    """The imported `module`. Raises UsageError with the line that installs it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UsageError(
            f"a store at {scheme}:// needs a package that is not installed",
            subject=module.partition(".")[0],
            hint=f"pip install '{PACKAGE}[{extra}]'",
        ) from error


def is_ours(name: str) -> bool:
    """Whether a listed name can have been put there by us."""
    return bool(name) and all(is_part(part) for part in name.split("/"))


class NameLocks:
    """One writer of a name at a time in this process, so that check-then-put is safe among its lanes.

    Lanes that write different names never wait for each other.
    """

    def __init__(self) -> None:
        self._busy: set[str] = set()
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def held(self, name: str) -> Iterator[None]:
        """Holds `name` for the length of the block."""
        with self._changed:
            while name in self._busy:
                self._changed.wait()
            self._busy.add(name)
        try:
            yield
        finally:
            with self._changed:
                self._busy.discard(name)
                self._changed.notify_all()
