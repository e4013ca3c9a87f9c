"""A store that moves no more bytes a second than it is allowed to, over all lanes of the process together."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence

from model.errors import UsageError
from repository.store.base import Bytes, Store
from repository.store.limits import parse_limit
from repository.store.wrapped import WrappedStore

UPLOAD, DOWNLOAD, SHARE = "LOX_LIMIT_UPLOAD", "LOX_LIMIT_DOWNLOAD", "LOX_LIMIT_SHARE"
_PORTION = 0.1  # seconds: a change of the limit is felt after about this long
_LOOK = 1.0  # seconds between looks at the file that holds the limit
_LIMIT_MAX = 4096  # bytes of such a file


class Bucket:
    """Tokens of bytes that all lanes draw from; one token a byte, none saved up while nothing moves.

    `text` is a limit, or ``@FILE`` for a file that holds one: it may be rewritten while the bucket is in use. Several
    processes that share a limit have a bucket each, of its `share`-th part. Raises UsageError for a text that is
    neither. `clock`, `sleep` and `minute` (of the day, local time) are there for tests.
    """

    def __init__(
        self,
        text: str,
        share: int = 1,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        minute: Callable[[], int] | None = None,
    ) -> None:
        self._clock, self._sleep, self._minute = clock, sleep, minute or _minute_now
        self._share = share
        self._lock = threading.Lock()
        self._paid = clock()  # the moment up to which bytes are handed out
        self._file = text[1:] if text.startswith("@") else ""
        self._looked = clock()
        self._limit = parse_limit(_read(self._file) if self._file else text)

    def change(self, text: str) -> None:
        """A new limit for all that is still to come. Raises UsageError."""
        limit = parse_limit(text)
        with self._lock:
            self._limit = limit

    @property
    def rate(self) -> float | None:
        """Bytes a second that may move just now; None: no limit."""
        with self._lock:
            return self._rate(self._clock())

    def take(self, nbytes: int) -> None:
        """Returns once `nbytes` may move; at once where there is no limit now."""
        while nbytes > 0:
            with self._lock:
                now = self._clock()
                rate = self._rate(now)
                if rate is None:
                    self._paid = now
                    return
                portion = min(nbytes, max(1, int(rate * _PORTION)))
                self._paid = max(self._paid, now) + portion / rate
                wait = self._paid - now
            self._sleep(wait)
            nbytes -= portion

    def _rate(self, now: float) -> float | None:
        if self._file and now - self._looked >= _LOOK:
            self._looked = now
            try:
                self._limit = parse_limit(_read(self._file))
            except UsageError:
                pass  # half-written, or gone: what was said last holds
        rate = self._limit.rate_at(self._minute())
        return None if rate is None else rate / self._share


class ThrottledStore(WrappedStore):
    """Pays for an object before it is sent, and for what was received after it came.

    So the rate holds from pack to pack; within one pack the line is as fast as it is.
    """

    def __init__(self, inner: Store, up: Bucket | None, down: Bucket | None) -> None:
        super().__init__(inner)
        self._up, self._down = up, down

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        data = self.inner.get(name, offset, length)
        if self._down is not None:
            self._down.take(len(data))
        return data

    def put(self, name: str, parts: Sequence[Bytes]) -> None:
        self._pay(parts)
        self.inner.put(name, parts)

    def put_unasked(self, name: str, parts: Sequence[Bytes]) -> None:
        self._pay(parts)
        self.inner.put_unasked(name, parts)

    def _pay(self, parts: Sequence[Bytes]) -> None:
        if self._up is not None:
            self._up.take(sum(memoryview(part).nbytes for part in parts))


_buckets: dict[tuple[str, str, int], Bucket] = {}
_making = threading.Lock()


def limited(store: Store) -> Store:
    """`store` under the limits of the environment; all stores of this process share one bucket for each direction."""
    up, down = _bucket(UPLOAD), _bucket(DOWNLOAD)
    return store if up is None and down is None else ThrottledStore(store, up, down)


def _bucket(variable: str) -> Bucket | None:
    text = os.environ.get(variable, "").strip()
    if not text:
        return None
    share = os.environ.get(SHARE, "")
    key = (variable, text, int(share) if share.isdigit() and int(share) else 1)
    with _making:
        if key not in _buckets:
            _buckets[key] = Bucket(text, key[2])
        return _buckets[key]


def _read(file: str) -> str:
    try:
        with open(file, encoding="utf-8") as opened:
            text = opened.read(_LIMIT_MAX)
    except (OSError, UnicodeError) as error:
        raise UsageError("cannot read the limit", subject=file, hint="the file holds a rate such as 50Mbit") from error
    return ", ".join(line.strip() for line in text.splitlines() if line.strip())


def _minute_now() -> int:
    now = time.localtime()
    return now.tm_hour * 60 + now.tm_min
