"""The store contract: named immutable objects of bytes. tests/contracts/store.py is its executable half."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from model.errors import Missing

Bytes = bytes | bytearray | memoryview

_PART = re.compile(r"[a-z0-9][a-z0-9._-]{0,127}")
_NAME = re.compile(rf"{_PART.pattern}(?:/{_PART.pattern}){{0,7}}")


@dataclass(frozen=True, slots=True)
class Leftover:
    """What a put left behind that was interrupted, or is under way: no object, but it takes room.

    `written` is when it was last added to, by the clock of the store, in ns since the epoch.
    """

    path: str  # from the root of the store
    size: int
    written: int


class Store(ABC):
    """Objects by name. A name is one to eight parts of ``[a-z0-9._-]`` joined by ``/``, none beginning with a dot.

    Objects never change once they are there. All methods may be called from several threads at once. Errors are
    `model.errors.StoreError`: Missing, Exists, StoreFull, Refused, Transient, or the class itself for the rest.
    """

    url: str  # gives an equal store to `open_store`, also in another process

    @abstractmethod
    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """At most `length` bytes from `offset`; fewer only where the object ends. Raises Missing.

        Whoever reads what others may have written gives a `length`, so that a huge object cannot fill the memory.
        """

    @abstractmethod
    def put(self, name: str, parts: Sequence[Bytes]) -> None:
        """Store the joined `parts` under a name that is free; durable once this returns, else nothing is there.

        Raises Exists if the name is taken, StoreFull, Refused.
        """

    @abstractmethod
    def list(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        """(name, size) of every object whose name begins with `prefix`, sorted by name. Half-written ones are not."""

    @abstractmethod
    def size(self, name: str) -> int:
        """Length in bytes. Raises Missing."""

    @abstractmethod
    def delete(self, name: str) -> None:
        """Remove the object, durably. Raises Missing, Refused."""

    def put_unasked(self, name: str, parts: Sequence[Bytes]) -> None:
        """As `put`, without asking first whether the name is free: whether it is refused is up to the server alone.

        Only for finding out what a server does; it may overwrite.
        """
        self.put(name, parts)

    def written(self, name: str) -> int | None:
        """When the object was stored, by the clock of the store, in ns since the epoch; None: the store does not tell.

        Raises Missing.
        """
        self.size(name)
        return None

    def keeps_deleted(self, name: str) -> bool | None:
        """Whether the bytes of an object stay after it is deleted, hidden, because the store keeps versions.

        None: not known. Raises Missing.
        """
        return False

    def rules_for_deleted(self) -> str:
        """In words, how long the store keeps what was deleted; empty if it does not, or does not tell."""
        return ""

    def leftovers(self) -> Iterator[Leftover]:
        """What interrupted puts left, and what puts under way have written so far. Raises StoreError."""
        return iter(())

    def remove_leftover(self, leftover: Leftover) -> None:
        """Give its room back; one that is gone is no error. Raises Refused, StoreError."""
        raise AssertionError("a store that has leftovers removes them")

    def exists(self, name: str) -> bool:
        """Whether there is such an object."""
        try:
            self.size(name)
        except Missing:
            return False
        return True


def is_part(text: str) -> bool:
    """Whether `text` may stand between the slashes of a name; what does not was not put there by us."""
    return _PART.fullmatch(text) is not None


def check_name(name: str) -> str:
    """`name` if it is a valid object name; names come from our own code, so anything else is a programmer's error."""
    if not _NAME.fullmatch(name):
        raise AssertionError(f"not an object name: {name!r}")
    return name
