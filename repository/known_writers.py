"""The write-only machines as an open repository knows them: what they wrote counts until they are revoked.

`repository.writers` is imported by who meets one: most repositories have none, and opening is part of every command.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from model.errors import LoxError

if TYPE_CHECKING:
    from repository.repository import Repository
    from repository.writers import Writer, WriterKey

WRITERS_SECONDS = 60.0  # after which it is looked again who was revoked


class KnownWriters:
    """The write-only machines of one repository. Thread-safe."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._known: tuple[float, dict[bytes, Writer]] | None = None  # when they were read; of the store

    def load(self, on_damage: Callable[[LoxError], None] | None = None) -> list[Writer]:
        """All of them as the store has them now. Raises as `writers.load_writers`."""
        from repository.writers import load_writers

        return load_writers(self._repository, on_damage)

    def valid(self) -> list[bytes]:
        """The ids of those that were not revoked. Raises as `load`."""
        return [writer.id for writer in self.load() if writer.revoked is None]

    def accepts(self, writer: bytes, name: str) -> bool:
        """Whether what a write-only machine wrote counts: all until it was revoked, then what was there already."""
        now = time.monotonic()
        if self._known is None or now - self._known[0] > WRITERS_SECONDS:
            self._known = now, {one.id: one for one in self.load(lambda error: None)}
        found = self._known[1].get(writer)
        return found is None or found.revoked is None or name in found.accepted

    def issue(self, label: str) -> WriterKey:
        """A key for a further one. Raises as `writers.issue_writer`."""
        from repository.writers import issue_writer

        return issue_writer(self._repository, label)

    def revoke(self, writer: Writer) -> int:
        """As `writers.revoke_writer`."""
        from repository.writers import revoke_writer

        count = revoke_writer(self._repository, writer)
        self._known = None
        return count
