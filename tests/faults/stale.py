"""A store whose answers lag behind: listings and reads of one connection show it as it was some time ago."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from model.errors import Missing
from repository.store import Bytes, Store
from repository.store.wrapped import WrappedStore


class StaleStore(WrappedStore):
    """One connection to an eventually consistent store. Writes of others are seen once `catch_up` is called.

    Listings below `prefixes` are those of the last time: what was stored since is missing, what was deleted since is
    still listed. With `reads` too, getting what is too new fails with Missing. What goes through this connection itself
    is seen at once.
    """

    def __init__(self, inner: Store, prefixes: tuple[str, ...] = ("",), reads: bool = False) -> None:
        super().__init__(inner)
        self._prefixes = prefixes
        self._reads = reads
        self.catch_up()

    def catch_up(self) -> None:
        """From here on what is there now is seen."""
        self._known = dict(self.inner.list())

    def list(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        fresh = {name: size for name, size in self.inner.list(prefix) if not name.startswith(self._prefixes)}
        stale = {
            name: size
            for name, size in self._known.items()
            if name.startswith(prefix) and name.startswith(self._prefixes)
        }
        return iter(sorted((fresh | stale).items()))

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        self._visible(name)
        return super().get(name, offset, length)

    def size(self, name: str) -> int:
        self._visible(name)
        return super().size(name)

    def put(self, name: str, parts: Sequence[Bytes]) -> None:
        super().put(name, parts)
        self._known[name] = super().size(name)

    def delete(self, name: str) -> None:
        super().delete(name)
        self._known.pop(name, None)

    def _visible(self, name: str) -> None:
        if self._reads and name.startswith(self._prefixes) and name not in self._known:
            raise Missing("not there yet", subject=name)
