"""Small sealed objects of which there are many (snapshots, notes, trash): read at once, and through a local cache.

    cache file = sealed object, under a name no object of a store has: names and lengths of the objects | what they say

The store's listing decides what there is; the cache saves reading again what cannot have changed: names are never
used for other content. It is disposable: a file that does not open with the key of the repository, or was written by
somebody else, counts for nothing and is replaced.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from model.errors import Damaged, LoxError, Missing, NewerFormat, Revoked
from repository.documents import Document, decode_document, encode_document, take
from repository.seal import OBJECT_MAX, PLAIN_MAX, ObjectKind
from repository.store import is_remote

if TYPE_CHECKING:
    from repository.repository import Repository

T = TypeVar("T")
R = TypeVar("R")
Listed = Sequence[tuple[str, int]]
"""Names and lengths of objects, as a store lists them."""

_VERSION = 1
_PARALLEL = 16  # requests under way to a remote store


@dataclass(frozen=True, slots=True)
class Family(Generic[T]):
    """Objects of one kind below one prefix.

    `load` reads the object of a name and raises as `Repository.get_object` does. `pack` makes JSON of many, `unpack`
    gives back the same in the same order. What is not `lasting` is read each time.
    """

    prefix: str
    load: Callable[[Repository, str], T]
    pack: Callable[[Sequence[T]], object]
    unpack: Callable[[Sequence[str], object], Iterable[T]]
    lasting: Callable[[T], bool] = lambda value: True

    @property
    def file(self) -> str:
        return self.prefix.strip("/").replace("/", "-") + ".cache"


@dataclass(slots=True)
class Loaded(Generic[T]):
    """Objects by name, in the order of their names, and why others could not be read."""

    found: dict[str, T]
    unreadable: list[tuple[str, LoxError]]


def load_family(
    repository: Repository, family: Family[T], cache_dir: Path | None, listed: Listed | None = None
) -> Loaded[T]:
    """All objects of the family as they are in the store now; `listed` is its listing if that was made already.

    Objects that vanish meanwhile are left out. Raises StoreError.
    """
    names = dict(repository.store.list(family.prefix) if listed is None else listed)
    cache = None if cache_dir is None else _CacheFile(repository, cache_dir, family.file)
    known = {} if cache is None else _known(cache, family)
    fresh, unreadable = _read(repository, family, [name for name, size in names.items() if _stale(known, name, size)])
    found = {name: fresh[name] if name in fresh else known[name][1] for name in names if name in fresh or name in known}
    if cache is not None and (fresh or len(known) > 2 * len(found)):
        lasting = {name: (names[name], value) for name, value in found.items() if family.lasting(value)}
        cache.write(_packed(family, lasting))
    return Loaded(found, unreadable)


def _stale(known: dict[str, tuple[int, T]], name: str, size: int) -> bool:
    if name in known and known[name][0] != size:  # cut off or exchanged since: what it says now counts
        del known[name]
    return name not in known


def _read(
    repository: Repository, family: Family[T], names: Sequence[str]
) -> tuple[dict[str, T], list[tuple[str, LoxError]]]:
    unreadable: list[tuple[str, LoxError]] = []

    def read(name: str) -> T | LoxError | None:
        try:
            return family.load(repository, name)
        except (Missing, Revoked):  # deleted since it was listed, or written by somebody who must not any more
            return None
        except (Damaged, NewerFormat) as error:
            return error

    fresh: dict[str, T] = {}
    for name, value in zip(names, each(repository, read, names), strict=True):
        if isinstance(value, LoxError):
            unreadable.append((name, value))
        elif value is not None:
            fresh[name] = value
    return fresh, unreadable


def each(repository: Repository, read: Callable[[str], R], names: Sequence[str]) -> Iterator[R]:
    """What `read` gives for each of `names`, in their order; many at once if the store is remote.

    Local objects are read one after the other: opening one is mostly Python, which runs once at a time.
    """
    if not is_remote(repository.store) or len(names) < 2:
        yield from map(read, names)
        return
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(_PARALLEL, "read-objects") as pool:
        yield from pool.map(read, names)


def _known(cache: _CacheFile, family: Family[T]) -> dict[str, tuple[int, T]]:
    document = cache.read()
    if document is None:
        return {}
    try:
        names = [family.prefix + name for name in take(document, "names", list, family.file)]
        values = family.unpack(names, document.get("values"))
        sizes = take(document, "sizes", list, family.file)
        return {name: (size, value) for name, size, value in zip(names, sizes, values, strict=True)}
    except (LoxError, ValueError, TypeError, KeyError, IndexError, AttributeError):
        return {}


def _packed(family: Family[T], found: dict[str, tuple[int, T]]) -> Document:
    return {
        "version": _VERSION,
        "names": [name.removeprefix(family.prefix) for name in found],
        "sizes": [size for size, _ in found.values()],
        "values": family.pack([value for _, value in found.values()]),
    }


class _CacheFile:
    """A document in a file of the local cache, sealed as objects of the repository are."""

    def __init__(self, repository: Repository, cache_dir: Path, file: str) -> None:
        self._cipher = repository.cipher
        self._folder = cache_dir / repository.id.hex()
        self._path = self._folder / file
        self._name = "cache/" + file  # part of what is authenticated: no object of a store can stand in

    def read(self) -> Document | None:
        """The document; None if there is none, or none that this user wrote with this repository's key."""
        try:
            fd = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            with os.fdopen(fd, "rb") as source:
                status = os.fstat(fd)
                if status.st_uid != os.geteuid() or status.st_size > OBJECT_MAX:
                    return None
                sealed = source.read(OBJECT_MAX)
            document = decode_document(
                self._cipher.open_object(ObjectKind.SNAPSHOT, self._name, sealed), self._name, PLAIN_MAX
            )
        except (OSError, LoxError):
            return None
        return document if document.get("version") == _VERSION else None

    def write(self, document: Document) -> None:
        """Replace the file. A full or read-only disk costs the cache, not the run."""
        plain = encode_document(document)
        if len(plain) > PLAIN_MAX:
            return
        sealed = self._cipher.seal_object(ObjectKind.SNAPSHOT, self._name, plain)
        import tempfile  # brings much along that reading does not need

        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            fd, temporary = tempfile.mkstemp(prefix=".new-", dir=self._folder)  # 0600
            try:
                with os.fdopen(fd, "wb") as out:
                    out.write(sealed)
                os.rename(temporary, self._path)
            except BaseException:
                os.unlink(temporary)
                raise
        except OSError:
            return
