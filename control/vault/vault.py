"""The room for all repositories of a server, below one folder: ``<tenant>/<repository>/``."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from uuid import UUID

from control.vault.shelf import Shelf
from model.errors import StoreError

_REMEMBERED = 1024


class Vault:
    """Blocks, as its shelves do. Thread-safe."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._shelves = OrderedDict[tuple[UUID, UUID], Shelf]()
        self._lock = threading.Lock()

    def shelf(self, tenant: UUID, repository: UUID, quota: int | None) -> Shelf:
        """The place of a repository, made if need be. Raises StoreError."""
        key = (tenant, repository)
        with self._lock:
            shelf = self._shelves.get(key)
            if shelf is not None:
                self._shelves.move_to_end(key)
                shelf.quota = quota
                return shelf
        shelf = Shelf(self._path(tenant, repository), quota)
        shelf.make()
        with self._lock:
            shelf = self._shelves.setdefault(key, shelf)
            while len(self._shelves) > _REMEMBERED:
                self._shelves.popitem(last=False)
        return shelf

    def used(self, tenant: UUID, repository: UUID) -> int:
        """Bytes of the objects of a repository; 0 if nothing was ever put."""
        path = self._path(tenant, repository)
        return Shelf(path, None).used() if os.path.isdir(path) else 0

    def tidy(self, recount: bool = False) -> None:
        """See `Shelf.tidy`; of all repositories, whatever is wrong with one. Raises the first StoreError at the end."""
        trouble: StoreError | None = None
        for path in self._paths():
            try:
                Shelf(path, None).tidy(recount)
            except StoreError as error:
                trouble = trouble or error
        if trouble is not None:
            raise trouble

    def _path(self, tenant: UUID, repository: UUID) -> str:
        return os.path.join(self.folder, str(tenant), str(repository))

    def _paths(self) -> Iterator[str]:
        for tenant in _folders(self.folder):
            yield from _folders(tenant)


def _folders(path: str) -> list[str]:
    try:
        with os.scandir(path) as entries:
            return sorted(entry.path for entry in entries if entry.is_dir(follow_symlinks=False))
    except FileNotFoundError:
        return []
