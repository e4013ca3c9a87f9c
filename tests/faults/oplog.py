"""The operations that change a store, recorded in order, so that a crash can be put after each of them.

A log is played back into memory up to any operation; the last one may be torn. A `Harm` is what a disk did, not we:
it is played back like the rest.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from repository.store import Bytes, MemoryStore
from repository.store.wrapped import WrappedStore

LATER = 2 * 3600 * 10**9  # ns
GARBAGE = b"\xa5garbage behind the end"


@dataclass(frozen=True, slots=True)
class Put:
    """An object was stored."""

    name: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Delete:
    """An object was deleted."""

    name: str


@dataclass(frozen=True, slots=True)
class Harm:
    """An object is no longer what was stored; None: it is gone."""

    name: str
    data: bytes | None


Operation = Put | Delete | Harm


class OpLogStore(WrappedStore):
    """Keeps every operation that changed `inner`, after it did."""

    def __init__(self, inner: MemoryStore) -> None:
        super().__init__(inner)
        self.log: list[Operation] = []

    def put(self, name: str, parts: Sequence[Bytes]) -> None:
        super().put(name, parts)
        self.log.append(Put(name, b"".join(parts)))

    def delete(self, name: str) -> None:
        super().delete(name)
        self.log.append(Delete(name))

    def harm(self, name: str, data: bytes | None) -> None:
        """Damage an object, or lose it."""
        self.inner.delete(name)
        if data is not None:
            self.inner.put(name, [data])
        self.log.append(Harm(name, data))


def objects_after(log: Iterable[Operation]) -> dict[str, bytes]:
    """What is in an empty store after these operations."""
    objects: dict[str, bytes] = {}
    for operation in log:
        if isinstance(operation, Delete) or operation.data is None:
            del objects[operation.name]
        else:
            objects[operation.name] = operation.data
    return objects


class LaterStore(MemoryStore):
    """A store found with these objects, two hours after the crash that left them."""

    def __init__(self, objects: dict[str, bytes]) -> None:
        super().__init__()
        self._written: dict[str, int] = {}
        for name, data in objects.items():
            super().put(name, [data])

    def put(self, name: str, parts: Sequence[Bytes]) -> None:
        super().put(name, parts)
        self._written[name] = time.time_ns()

    def written(self, name: str) -> int | None:
        self.size(name)
        return self._written.get(name, time.time_ns() - LATER)


def store_of(objects: dict[str, bytes]) -> MemoryStore:
    """A store that holds these objects."""
    store = MemoryStore()
    for name, data in objects.items():
        store.put(name, [data])
    return store


def torn(data: bytes) -> Iterator[tuple[str, bytes]]:
    """What a store may have of an object whose put was cut off, with a name for each kind; never the object itself."""
    half = len(data) // 2
    kinds = [
        ("empty", b""),
        ("one byte", data[:1]),
        ("half", data[:half]),
        ("one byte short", data[:-1]),
        ("garbage behind", data + GARBAGE),
        ("zero tail", data[:half] + bytes(len(data) - half)),
    ]
    for kind, left in kinds:
        if left != data:
            yield kind, left
