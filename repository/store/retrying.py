"""A store that repeats what may work if repeated. Of all stores only this one waits because something failed."""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from model.errors import Exists, Missing, Transient
from repository.store.base import Bytes, Leftover, Store
from repository.store.wrapped import WrappedStore

T = TypeVar("T")
BUDGET, FIRST_BUDGET = 300.0, 20.0  # seconds of trouble in one call; the smaller before the store has ever answered
BASE, CAP = 0.5, 30.0  # seconds: the first wait is at most BASE, and twice that each time, up to CAP
TRIES_LEAST = 3  # whatever the time, so that one request that hung for long is repeated too
_COMPARED = 8 << 20  # bytes read at once to compare


class RetryingStore(WrappedStore):
    """Repeats a call of `inner` that raised Transient, after a wait drawn from 0 to 0.5, 1, 2, ... 30 seconds.

    If the error says how long the store asks to wait, it waits at least that long. After `budget` seconds of trouble
    the last error is raised. A put whose answer got lost finds its own object on the next attempt: that counts as
    success only if size and SHA-256 are those of what was sent. `sleep`, `clock` and `draw` are there for tests.
    """

    def __init__(
        self,
        inner: Store,
        budget: float = BUDGET,
        *,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
        draw: Callable[[float, float], float] = random.uniform,
    ) -> None:
        super().__init__(inner)
        self._budget = budget
        self._sleep, self._clock, self._draw = sleep, clock, draw
        self._answered = False

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        return self._repeated(lambda tries: self.inner.get(name, offset, length))

    def put(self, name: str, parts: Sequence[Bytes]) -> None:
        def attempt(tries: int) -> None:
            try:
                self.inner.put(name, parts)
            except Exists:
                if not tries or not self._is_what_was_sent(name, parts):
                    raise

        self._repeated(attempt)

    def list(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        """Begins again where it broke off: what was yielded before is not yielded twice."""
        last = ""
        found = self._repeated(lambda tries: self.inner.list(prefix))

        def step(tries: int) -> tuple[str, int] | None:
            nonlocal found
            if tries:
                found = self.inner.list(prefix)
            return next((each for each in found if each[0] > last), None)

        while (each := self._repeated(step)) is not None:
            last = each[0]
            yield each

    def size(self, name: str) -> int:
        return self._repeated(lambda tries: self.inner.size(name))

    def delete(self, name: str) -> None:
        def attempt(tries: int) -> None:
            try:
                self.inner.delete(name)
            except Missing:
                if not tries:  # else an earlier attempt did it, and its answer got lost
                    raise

        self._repeated(attempt)

    def written(self, name: str) -> int | None:
        return self._repeated(lambda tries: self.inner.written(name))

    def keeps_deleted(self, name: str) -> bool | None:
        return self._repeated(lambda tries: self.inner.keeps_deleted(name))

    def leftovers(self) -> Iterator[Leftover]:
        return iter(self._repeated(lambda tries: list(self.inner.leftovers())))

    def remove_leftover(self, leftover: Leftover) -> None:
        self._repeated(lambda tries: self.inner.remove_leftover(leftover))

    def _repeated(self, attempt: Callable[[int], T]) -> T:
        """The result of `attempt`, which is told how many attempts failed before it."""
        tries, began = 0, self._clock()
        while True:
            try:
                result = attempt(tries)
            except Transient as error:
                tries += 1
                wait = self._wait(tries, error)
                spent = self._clock() - began
                budget = self._budget if self._answered else min(FIRST_BUDGET, self._budget)
                if tries >= TRIES_LEAST and spent + wait > budget:
                    hint = error.hint or f"the store did not recover in {spent:.0f} seconds and {tries} attempts"
                    raise Transient(error.what, subject=error.subject, why=error.why, hint=hint) from error
                self._sleep(wait)
            else:
                self._answered = True
                return result

    def _wait(self, tries: int, error: Transient) -> float:
        jitter = self._draw(0.0, min(CAP, BASE * 2 ** (tries - 1)))
        return jitter + min(error.retry_after or 0.0, self._budget)

    def _is_what_was_sent(self, name: str, parts: Sequence[Bytes]) -> bool:
        sent, there = hashlib.sha256(), hashlib.sha256()
        length = sum(memoryview(part).nbytes for part in parts)
        if self.inner.size(name) != length:
            return False
        for part in parts:
            sent.update(part)
        for offset in range(0, length, _COMPARED):
            there.update(self.inner.get(name, offset, _COMPARED))
        return there.digest() == sent.digest()
