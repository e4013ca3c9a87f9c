"""Several actors on one store, one operation at a time: any interleaving can be had, and had again."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from repository.store import Bytes, Store
from repository.store.wrapped import WrappedStore

Choose = Callable[[list[str]], str]
"""Of those who wait for a turn, sorted, the one whose turn it is."""


def by_chance(rng: random.Random) -> Choose:
    """Anybody's turn, though one is likely to go on."""
    stay = rng.choice([0.0, 0.8, 0.95, 0.99])
    last = ""

    def choose(names: list[str]) -> str:
        nonlocal last
        if last not in names or rng.random() >= stay:
            last = rng.choice(names)
        return last

    return choose


def by_script(*steps: tuple[str, int]) -> Choose:
    """(actor, how many operations), one after the other; then whoever is left."""
    left = list(steps)

    def choose(names: list[str]) -> str:
        while left and (left[0][1] == 0 or left[0][0] not in names):
            left.pop(0)
        if not left:
            return names[0]
        name, count = left[0]
        left[0] = (name, count - 1)
        return name

    return choose


class Stage:
    """Runs actors in threads and hands out turns as `choose` says."""

    def __init__(self, choose: Choose) -> None:
        self._choose = choose
        self.turns: Counter[str] = Counter()  # that each actor has had
        self._turn = threading.Condition()
        self._waiting: Counter[str] = Counter()  # threads of each actor
        self._running: set[str] = set()
        self._allowed: str | None = None
        self.errors: dict[str, BaseException] = {}

    def store(self, inner: Store, name: str) -> Store:
        """`inner` as the actor `name` sees it."""
        return _Turns(inner, self, name)

    def play(self, actors: dict[str, Callable[[], None]]) -> None:
        """All of them to their end; what they raise is in `errors`."""
        self._running = set(actors)
        threads = [threading.Thread(target=self._act, args=item, daemon=True) for item in actors.items()]
        for thread in threads:
            thread.start()
        with self._turn:
            while self._running:
                if not self._turn.wait_for(self._all_wait, timeout=60):
                    raise AssertionError(
                        f"stuck: {[name for name in self._running if not self._waiting[name]]} neither acts nor ends"
                    )
                if self._running:
                    self._allowed = self._choose(sorted(self._running))
                    self.turns[self._allowed] += 1
                    self._turn.notify_all()
        for thread in threads:
            thread.join()

    def _all_wait(self) -> bool:
        return self._allowed is None and all(self._waiting[name] for name in self._running)

    def _act(self, name: str, action: Callable[[], None]) -> None:
        try:
            action()
        except BaseException as error:
            self.errors[name] = error
        with self._turn:
            self._running.discard(name)
            self._turn.notify_all()

    def await_turn(self, name: str) -> None:
        """Returns when it is the turn of `name`; the next one's comes once it waits again or ends."""
        with self._turn:
            if name not in self._running:  # before or after the play
                return
            self._waiting[name] += 1
            self._turn.notify_all()
            self._turn.wait_for(lambda: self._allowed == name)
            self._allowed = None
            self._waiting[name] -= 1
            self._turn.notify_all()  # others of the same actor may be waiting


class _Turns(WrappedStore):
    def __init__(self, inner: Store, stage: Stage, name: str) -> None:
        super().__init__(inner)
        self._stage = stage
        self._name = name

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        self._stage.await_turn(self._name)
        return super().get(name, offset, length)

    def put(self, name: str, parts: Sequence[Bytes]) -> None:
        self._stage.await_turn(self._name)
        super().put(name, parts)

    def list(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        self._stage.await_turn(self._name)
        return iter(list(super().list(prefix)))

    def size(self, name: str) -> int:
        self._stage.await_turn(self._name)
        return super().size(name)

    def written(self, name: str) -> int | None:
        self._stage.await_turn(self._name)
        return super().written(name)

    def delete(self, name: str) -> None:
        self._stage.await_turn(self._name)
        super().delete(name)
