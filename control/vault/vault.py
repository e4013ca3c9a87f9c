"""The room for all repositories of a server, below one folder: ``<tenant>/<repository>/``."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from itertools import islice
from uuid import UUID

from control.vault.shelf import Shelf
from model.errors import StoreError
from repository.store.local import translated

_REMEMBERED = 1024
REMOVED = ".removed"  # what is being deleted; no tenant


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

    def tidy(self, recount: bool = False) -> bool:
        """See `Shelf.tidy`; of all repositories, whatever is wrong with one. Raises the first StoreError at the end."""
        trouble: StoreError | None = None
        counted = True
        for path in self._paths():
            try:
                counted &= Shelf(path, None).tidy(recount)
            except StoreError as error:
                trouble = trouble or error
        if trouble is not None:
            raise trouble
        return counted

    def give_up(self, tenant: UUID, repository: UUID, most: int = 1_000) -> tuple[int, bool]:
        """Delete up to `most` objects of a repository for good: the bytes they took, and whether there are more.

        What goes is moved aside first, so that nobody finds half of it, and a server that was killed goes on there.
        Raises StoreError.
        """
        aside = os.path.join(self.folder, REMOVED, str(repository))
        with self._lock:
            self._shelves.pop((tenant, repository), None)
        with translated(aside, writing=True):
            os.makedirs(os.path.dirname(aside), mode=0o700, exist_ok=True)
            if not os.path.isdir(aside):
                with contextlib.suppress(FileNotFoundError):
                    os.rename(self._path(tenant, repository), aside)
            size = _emptied(aside, most)[1]
            return size, os.path.isdir(aside)

    def _path(self, tenant: UUID, repository: UUID) -> str:
        return os.path.join(self.folder, str(tenant), str(repository))

    def _paths(self) -> Iterator[str]:
        for tenant in _folders(self.folder):
            yield from _folders(tenant)


def _folders(path: str) -> list[str]:
    try:
        with os.scandir(path) as entries:
            there = [each for each in entries if each.is_dir(follow_symlinks=False) and not each.name.startswith(".")]
    except FileNotFoundError:
        return []
    return sorted(each.path for each in there)


def _emptied(folder: str, most: int) -> tuple[int, int]:
    """Delete up to `most` files and folders below `folder`, and it too if it is empty then: how many, their bytes."""
    count, size = 0, 0
    with contextlib.suppress(FileNotFoundError):
        with os.scandir(folder) as entries:
            some = list(islice(entries, most))
        for entry in some:
            if count >= most:
                return count, size
            if entry.is_dir(follow_symlinks=False):
                gone, freed = _emptied(entry.path, most - count)
            else:
                gone, freed = 1, entry.stat(follow_symlinks=False).st_size
                os.unlink(entry.path)
            count, size = count + gone, size + freed
        if len(some) < most and count < most:
            os.rmdir(folder)
            count += 1
    return count, size
