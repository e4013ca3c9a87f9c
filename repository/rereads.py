"""Reading again what did not open: one wrong read is no damage.

What does not authenticate is fetched once more before it counts as damaged. If it opens then, the bytes in the store
are right, and something on the way to us is not: that is counted, and told at the end of the command. So is a pack
that is damaged, if all that was wanted of it lay in others as well.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from model.errors import Damaged, Revoked

T = TypeVar("T")

NAMES_KEPT = 20
DAMAGED_KEPT = 1_000


class Rereads:
    """What was read wrong once and right then, of one repository in this process. Thread-safe.

    `counted_at` is set where lanes of another process's run are: that process counts what they met.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.count = 0
        self.names: list[str] = []  # of the first objects
        self.damaged: dict[str, str] = {}  # packs of which others had what was wanted, and what is wrong with them
        self.counted_at: Rereads | None = None  # or what stands for it

    def note(self, name: str) -> None:
        """The object `name` was read wrong, and right when it was read again."""
        with self._lock:
            self.count += 1
            if len(self.names) < NAMES_KEPT and name not in self.names:
                self.names.append(name)
        if self.counted_at is not None:
            self.counted_at.note(name)

    def spared(self, name: str, why: str) -> None:
        """The pack `name` is damaged, and what was wanted of it was found in others."""
        with self._lock:
            new = name not in self.damaged and len(self.damaged) < DAMAGED_KEPT
            if new:
                self.damaged[name] = why
        if new and self.counted_at is not None:
            self.counted_at.spared(name, why)

    def read(self, name: str, attempt: Callable[[], T]) -> T:
        """What `attempt` gives, which fetches from the object `name` and opens; made twice if it finds damage.

        Raises as the second one.
        """
        try:
            return attempt()
        except Revoked:  # it opens, and does not count
            raise
        except Damaged:
            pass
        result = attempt()
        self.note(name)
        return result
