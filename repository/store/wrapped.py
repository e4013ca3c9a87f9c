"""What all stores around stores have in common."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from repository.store.base import Bytes, Leftover, Store


class WrappedStore(Store):
    """Passes everything on to `inner`; subclasses change what they are about."""

    def __init__(self, inner: Store) -> None:
        self.inner = inner
        self.url = inner.url

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        return self.inner.get(name, offset, length)

    def put(self, name: str, parts: Sequence[Bytes]) -> None:
        self.inner.put(name, parts)

    def list(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        return self.inner.list(prefix)

    def size(self, name: str) -> int:
        return self.inner.size(name)

    def delete(self, name: str) -> None:
        self.inner.delete(name)

    def put_unasked(self, name: str, parts: Sequence[Bytes]) -> None:
        self.inner.put_unasked(name, parts)

    def written(self, name: str) -> int | None:
        return self.inner.written(name)

    def keeps_deleted(self, name: str) -> bool | None:
        return self.inner.keeps_deleted(name)

    def rules_for_deleted(self) -> str:
        return self.inner.rules_for_deleted()

    def leftovers(self) -> Iterator[Leftover]:
        return self.inner.leftovers()

    def remove_leftover(self, leftover: Leftover) -> None:
        self.inner.remove_leftover(leftover)
