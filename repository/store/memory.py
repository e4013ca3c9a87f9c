"""Objects in a dictionary: for tests, and for dry runs that want a repository and leave none behind."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from threading import Lock

from model.errors import Exists, Missing
from repository.store.base import Bytes, Store, check_name


class MemoryStore(Store):
    """A store that lives as long as the object does."""

    def __init__(self) -> None:
        self.url = f"memory:{id(self):x}"  # no other process can open it, and open_store says so
        self._objects: dict[str, bytes] = {}
        self._lock = Lock()

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        data = self._find(name)
        return data[offset:] if length is None else data[offset : offset + length]

    def put(self, name: str, parts: Sequence[Bytes]) -> None:
        data = b"".join(parts)
        with self._lock:
            if check_name(name) in self._objects:
                raise Exists("object exists already", subject=name)
            self._objects[name] = data

    def list(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        with self._lock:
            found = sorted((name, len(data)) for name, data in self._objects.items() if name.startswith(prefix))
        return iter(found)

    def size(self, name: str) -> int:
        return len(self._find(name))

    def delete(self, name: str) -> None:
        with self._lock:
            if self._objects.pop(check_name(name), None) is None:
                raise Missing("no such object", subject=name)

    def _find(self, name: str) -> bytes:
        data = self._objects.get(check_name(name))
        if data is None:
            raise Missing("no such object", subject=name)
        return data
