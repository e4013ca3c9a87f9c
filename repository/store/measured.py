"""What this process asks of stores: how often, how long it took, how it ended, and how many bytes went along."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from threading import Lock
from time import perf_counter
from typing import TypeVar

from model.errors import Exists, Missing, Refused, StoreFull, Transient
from repository.store.base import Bytes, Store
from repository.store.wrapped import WrappedStore

T = TypeVar("T")

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0)  # seconds
_NAMES = 256  # that a listing gives at a time: looking at the clock for each takes as long as the listing
OPERATIONS = ("get", "put", "list", "size", "delete")
OUTCOMES = ("ok", "missing", "exists", "full", "refused", "transient", "error")
_OUTCOME_OF = {Missing: "missing", Exists: "exists", StoreFull: "full", Refused: "refused", Transient: "transient"}


@dataclass(slots=True)
class Spent:
    """Requests of one kind: how many took at most as long as each of `BUCKETS`, or longer; seconds of all of them."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    seconds: float = 0.0


@dataclass(slots=True)
class Tally:
    """Requests by operation and outcome; bytes of those that ended well."""

    requests: dict[tuple[str, str], Spent] = field(default_factory=dict)
    sent: int = 0
    received: int = 0

    def add(self, other: Tally) -> None:
        """Count what `other` counted as well."""
        for key, spent in other.requests.items():
            mine = self.requests.setdefault(key, Spent())
            mine.counts = [one + more for one, more in zip(mine.counts, spent.counts, strict=True)]
            mine.seconds += spent.seconds
        self.sent += other.sent
        self.received += other.received


class Requests:
    """The tally of one process since it was last taken away. Thread-safe."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._tally = Tally()

    def count(self, operation: str, outcome: str, seconds: float, sent: int = 0, received: int = 0) -> None:
        """One more request."""
        with self._lock:
            tally = self._tally
            spent = tally.requests.get((operation, outcome))
            if spent is None:
                spent = tally.requests[operation, outcome] = Spent()
            spent.counts[bisect_left(BUCKETS, seconds)] += 1
            spent.seconds += seconds
            tally.sent += sent
            tally.received += received

    def add(self, tally: Tally) -> None:
        """What another process counted."""
        with self._lock:
            self._tally.add(tally)

    def take(self) -> Tally:
        """All since the last call; counting begins anew."""
        with self._lock:
            tally, self._tally = self._tally, Tally()
        return tally


REQUESTS = Requests()  # of this process


class MeasuredStore(WrappedStore):
    """Counts every request in `requests`. It lies right around the store itself: waiting for a limit, or between two
    attempts, is no request."""

    def __init__(self, inner: Store, requests: Requests = REQUESTS) -> None:
        super().__init__(inner)
        self._requests = requests

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        begin = perf_counter()
        try:
            data = self.inner.get(name, offset, length)
        except BaseException as error:
            self._failed("get", begin, error)
            raise
        self._requests.count("get", "ok", perf_counter() - begin, received=len(data))
        return data

    def put(self, name: str, parts: Sequence[Bytes]) -> None:
        self._sent(self.inner.put, name, parts)

    def put_unasked(self, name: str, parts: Sequence[Bytes]) -> None:
        self._sent(self.inner.put_unasked, name, parts)

    def list(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        """What is done between two names is not the store's time."""
        found, spent, some = iter(self.inner.list(prefix)), 0.0, 1
        try:
            while True:
                begin = perf_counter()
                names = list(islice(found, some))
                spent += perf_counter() - begin
                if not names:
                    break
                yield from names
                some = _NAMES  # whoever asks whether there is any stops at the first
        except Exception as error:
            self._requests.count("list", outcome_of(error), spent)
            raise
        self._requests.count("list", "ok", spent)

    def size(self, name: str) -> int:
        return self._asked("size", lambda: self.inner.size(name))

    def written(self, name: str) -> int | None:
        return self._asked("size", lambda: self.inner.written(name))

    def delete(self, name: str) -> None:
        self._asked("delete", lambda: self.inner.delete(name))

    def _sent(self, put: Callable[[str, Sequence[Bytes]], None], name: str, parts: Sequence[Bytes]) -> None:
        begin = perf_counter()
        try:
            put(name, parts)
        except BaseException as error:
            self._failed("put", begin, error)
            raise
        size = sum(memoryview(part).nbytes for part in parts)
        self._requests.count("put", "ok", perf_counter() - begin, sent=size)

    def _asked(self, operation: str, ask: Callable[[], T]) -> T:
        begin = perf_counter()
        try:
            answer = ask()
        except BaseException as error:
            self._failed(operation, begin, error)
            raise
        self._requests.count(operation, "ok", perf_counter() - begin)
        return answer

    def _failed(self, operation: str, begin: float, error: BaseException) -> None:
        self._requests.count(operation, outcome_of(error), perf_counter() - begin)


def outcome_of(error: BaseException) -> str:
    """Which of `OUTCOMES` an error is."""
    return next((outcome for kind, outcome in _OUTCOME_OF.items() if isinstance(error, kind)), "error")
