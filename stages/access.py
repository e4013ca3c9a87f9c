"""How a stage on another process reaches the repository: by reference here, by a private file of secrets elsewhere."""

from __future__ import annotations

import json
import os
import threading
from base64 import b64decode, b64encode
from typing import Any

from repository.cache import default_cache_dir
from repository.condemned import condemned_packs
from repository.index import ChunkIndex
from repository.repository import Credentials, Repository
from repository.store import open_store
from repository.store.mirrored import Mirror, MirroredStore

SECRET_MAX = 1 << 20  # bytes; a credentials file is a few hundred

_opened: dict[tuple[str, tuple[str, ...], str], Repository] = {}
_opening = threading.Lock()


class RepositoryAccess:
    """A repository that can be handed to any lane.

    In this process it is the open repository itself. Before it can be pickled for another process `secure` writes
    the credentials to a file only this user can read; what travels is the path, never a key.
    """

    def __init__(self, repository: Repository | None, condemned: frozenset[bytes] | None = None) -> None:
        self._repository = repository  # None: for a plan that is only looked at, or not attached here yet
        self._index: ChunkIndex | None = None
        self._condemned = condemned  # packs not to be relied on; None: not known yet
        self._url = repository.store.url if repository is not None else ""
        self._mirrors = _mirrors_of(repository)
        self._secret_path = ""

    @property
    def repository(self) -> Repository:
        """The open repository, attached to on first use in this process."""
        if self._repository is None:
            self._repository = _attach(self._url, self._mirrors, self._secret_path)
        return self._repository

    @property
    def index(self) -> ChunkIndex:
        """The index as it was when it was first asked for in this process, without packs that are lost or condemned."""
        if self._index is None:
            if self._condemned is None:
                self._condemned = condemned_packs(self.repository)  # before the index: later ones are not relied on
            self._index = ChunkIndex.load(
                self.repository, default_cache_dir(), only_present=True, without=self._condemned
            )
        return self._index

    @property
    def reading_index(self) -> ChunkIndex:
        """As `index`, with copies in condemned packs as the last resort: for reading, not for relying on."""
        if not (index := self.index) or not self._condemned:
            return index
        return ChunkIndex.load(self.repository, default_cache_dir(), only_present=True).doubting_packs(self._condemned)

    def secure(self, directory: str) -> None:
        """Write the credentials into `directory`, which must be private (0700) and goes away with the run."""
        self._secret_path = os.path.join(directory, f"repository-{self.repository.id.hex()}")
        fd = os.open(self._secret_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(_to_bytes(self.repository.credentials()))

    def __getstate__(self) -> dict[str, Any]:
        assert self._secret_path, "secure() comes before a repository leaves the process"
        fresh: dict[str, Any] = {"_repository": None, "_index": None, "_condemned": None}
        return fresh | {"_url": self._url, "_mirrors": self._mirrors, "_secret_path": self._secret_path}


def _mirrors_of(repository: Repository | None) -> tuple[str, ...]:
    if repository is None or not isinstance(repository.store, MirroredStore):
        return ()
    return tuple(mirror.store.url for mirror in repository.store.mirrors)


def _attach(url: str, mirrors: tuple[str, ...], secret_path: str) -> Repository:
    with _opening:
        key = url, mirrors, secret_path
        if key not in _opened:
            with open(secret_path, "rb") as file:
                repository = Repository.attach(url, _from_bytes(file.read(SECRET_MAX)))
            if mirrors:
                repository.store = MirroredStore(repository.store, [Mirror(open_store(one)) for one in mirrors])
            _opened[key] = repository
        return _opened[key]


def _to_bytes(credentials: Credentials) -> bytes:
    master = None if credentials.master is None else b64encode(credentials.master).decode()
    fields = {"repo_id": credentials.repo_id.hex(), "config": b64encode(credentials.config).decode(), "master": master}
    return json.dumps(fields).encode()


def _from_bytes(data: bytes) -> Credentials:
    fields = json.loads(data)
    master = None if fields["master"] is None else b64decode(fields["master"])
    return Credentials(bytes.fromhex(fields["repo_id"]), b64decode(fields["config"]), master)
