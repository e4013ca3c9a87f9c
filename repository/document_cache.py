"""Small sealed objects of which there are many (snapshots, notes, trash): read at once, and through a local cache.

    cache file = sealed object, under a name no object of a store has: length of JSON | JSON | bytes
    JSON = names and lengths of the objects, and with the bytes what they say

The store's listing decides what there is; the cache saves reading again what cannot have changed: names are never
used for other content. It is disposable: a file that does not open with the key of the repository, or was written by
somebody else, counts for nothing and is replaced.
"""

from __future__ import annotations

import os
import sys
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
Packed = tuple[object, bytes]
"""What is kept of many objects: JSON, and beside it bytes for what JSON would be slow to read."""

_VERSION = 2
_LENGTH = 4  # bytes of the length of the JSON
_PARALLEL = 16  # requests under way to a remote store


@dataclass(frozen=True, slots=True)
class Family(Generic[T]):
    """Objects of one kind below one prefix.

    `load` reads the object of a name and raises as `Repository.get_object` does. `pack` makes one of many, `unpack`
    gives back the same in the same order; numbers may have the byte order of this host. What is not `lasting` is read
    each time.
    """

    prefix: str
    load: Callable[[Repository, str], T]
    pack: Callable[[Sequence[T]], Packed]
    unpack: Callable[[Sequence[str], object, bytes], Iterable[T]]
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
    there = list(repository.store.list(family.prefix) if listed is None else listed)
    cache = None if cache_dir is None else _CacheFile(repository, cache_dir, family.file)
    known = {} if cache is None else _known(cache, family)
    # One of another length was cut off or exchanged since: what it says now counts.
    fresh, unreadable = _read(repository, family, [one[0] for one in there if one not in known])
    if not fresh and list(known) == there:
        return Loaded({name: value for (name, _), value in known.items()}, [])
    found = {one[0]: known[one] if one in known else fresh[one[0]] for one in there if one in known or one[0] in fresh}
    if cache is not None and (any(map(family.lasting, fresh.values())) or len(known) > 2 * len(found)):
        cache.write(*_packed(family, [(one, found[one[0]]) for one in there if one[0] in found]))
    return Loaded(found, unreadable)


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


def _known(cache: _CacheFile, family: Family[T]) -> dict[tuple[str, int], T]:
    """What the cache has, by name and length."""
    try:
        document, body = cache.read()
        names = [family.prefix + name for name in take(document, "names", list, family.file)]
        sizes = take(document, "sizes", list, family.file)
        values = family.unpack(names, document.get("values"), body)
        return dict(zip(zip(names, sizes, strict=True), values, strict=True))
    except (OSError, LoxError, ValueError, TypeError, KeyError, IndexError, AttributeError):
        return {}


def _packed(family: Family[T], found: Iterable[tuple[tuple[str, int], T]]) -> tuple[Document, bytes]:
    lasting = {one: value for one, value in found if family.lasting(value)}
    values, body = family.pack(list(lasting.values()))
    names = [name.removeprefix(family.prefix) for name, _ in lasting]
    return {**_STAMP, "names": names, "sizes": [size for _, size in lasting], "values": values}, body


_STAMP: Document = {"version": _VERSION, "order": sys.byteorder}


class _CacheFile:
    """A document in a file of the local cache, sealed as objects of the repository are."""

    def __init__(self, repository: Repository, cache_dir: Path, file: str) -> None:
        self._cipher = repository.cipher
        self._folder = cache_dir / repository.id.hex()
        self._path = self._folder / file
        self._name = "cache/" + file  # part of what is authenticated: no object of a store can stand in

    def read(self) -> tuple[Document, bytes]:
        """What was written. Raises OSError if there is nothing; ValueError, Damaged if this user did not write it with
        this repository's key, or another version did."""
        fd = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as source:
            status = os.fstat(fd)
            if status.st_uid != os.geteuid() or status.st_size > OBJECT_MAX:
                raise ValueError("not ours")
            sealed = source.read(OBJECT_MAX)
        plain = self._cipher.open_object(ObjectKind.SNAPSHOT, self._name, sealed)
        end = _LENGTH + int.from_bytes(plain[:_LENGTH], "little")
        document = decode_document(plain[_LENGTH:end], self._name, PLAIN_MAX)
        if {key: document.get(key) for key in _STAMP} != _STAMP:
            raise ValueError("another version")
        return document, plain[end:]

    def write(self, document: Document, body: bytes) -> None:
        """Replace the file. A full or read-only disk costs the cache, not the run."""
        head = encode_document(document)
        plain = b"".join((len(head).to_bytes(_LENGTH, "little"), head, body))
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
