"""Stores around stores: one that records what is asked of it, one that fails as told."""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableSequence, Sequence
from dataclasses import dataclass, field
from threading import Lock

from repository.store.base import Bytes, Store
from repository.store.wrapped import WrappedStore


@dataclass(frozen=True, slots=True)
class Call:
    """One request: `verb` is the method, `nbytes` what it moved, `offset` where a get began."""

    verb: str
    name: str
    nbytes: int = 0
    offset: int = 0


class RecordingStore(WrappedStore):
    """Keeps the list of `calls` that succeeded, in order."""

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self.calls: MutableSequence[Call] = []

    def of(self, verb: str, prefix: str = "") -> Sequence[Call]:
        """The calls of one kind whose names begin with `prefix`."""
        return [call for call in self.calls if call.verb == verb and call.name.startswith(prefix)]

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        data = super().get(name, offset, length)
        self.calls.append(Call("get", name, len(data), offset))
        return data

    def put(self, name: str, parts: Sequence[Bytes]) -> None:
        super().put(name, parts)
        self.calls.append(Call("put", name, sum(memoryview(part).nbytes for part in parts)))

    def list(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        self.calls.append(Call("list", prefix))
        return super().list(prefix)

    def size(self, name: str) -> int:
        size = super().size(name)
        self.calls.append(Call("size", name))
        return size

    def delete(self, name: str) -> None:
        super().delete(name)
        self.calls.append(Call("delete", name))


@dataclass(slots=True)
class Fault:
    """What goes wrong: calls of `verb` on names beginning with `prefix`, after the first `skip`, `times` times.

    Either `error` is raised before anything happens (with `late`, after it happened: the answer got lost), or the
    bytes of a get go through `change`.
    """

    verb: str
    prefix: str = ""
    error: Exception | None = None
    late: bool = False
    change: Callable[[bytes], bytes] | None = None
    skip: int = 0
    times: int = 1 << 62


@dataclass(slots=True)
class _Script:
    faults: list[Fault]
    lock: Lock = field(default_factory=Lock)

    def next(self, verb: str, name: str) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                if fault.verb != verb or not name.startswith(fault.prefix) or fault.times <= 0:
                    continue
                if fault.skip > 0:
                    fault.skip -= 1
                    continue
                fault.times -= 1
                return fault
        return None


class FaultyStore(WrappedStore):
    """Fails as the `faults` say, first match first."""

    def __init__(self, inner: Store, faults: Sequence[Fault]) -> None:
        super().__init__(inner)
        self._script = _Script(list(faults))

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        fault = self._before("get", name)
        data = super().get(name, offset, length)
        if fault and fault.change:
            return fault.change(data)
        return data

    def put(self, name: str, parts: Sequence[Bytes]) -> None:
        fault = self._before("put", name)
        super().put(name, parts)
        _after(fault)

    def list(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        self._before("list", prefix)
        return super().list(prefix)

    def size(self, name: str) -> int:
        self._before("size", name)
        return super().size(name)

    def delete(self, name: str) -> None:
        fault = self._before("delete", name)
        super().delete(name)
        _after(fault)

    def _before(self, verb: str, name: str) -> Fault | None:
        fault = self._script.next(verb, name)
        if fault and fault.error and not fault.late:
            raise fault.error
        return fault


def _after(fault: Fault | None) -> None:
    if fault and fault.error:
        raise fault.error
