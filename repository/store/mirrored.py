"""A store that sends packs and index objects on to further stores, for a repository that lies in several places.

Only what is large goes along. Everything else, snapshots above all, comes to a mirror through `repository.mirror.sync`,
which looks at what is there: so no snapshot is ever in a mirror that lacks what it needs, whatever failed before.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from model.errors import Exists, LoxError
from repository.store.base import Bytes, Store
from repository.store.wrapped import WrappedStore

SENT_ALONG = ("packs/", "index/")
AT_ONCE = 64  # puts into one mirror; as many lanes as ever put at once


@dataclass(slots=True)
class Mirror:
    """A further store. After the first trouble nothing more is sent to it: it has to catch up anyway."""

    store: Store
    trouble: LoxError | None = None

    def put(self, name: str, parts: Sequence[Bytes]) -> None:
        """Store the object, or take note of why not."""
        if self.trouble is not None:
            return
        try:
            self.store.put(name, parts)
        except Exists:  # names are never used again: it is this object
            pass
        except LoxError as error:
            self.trouble = error


class MirroredStore(WrappedStore):
    """`inner`, which alone counts, and the `mirrors` that follow it as well as they can."""

    def __init__(self, inner: Store, mirrors: Sequence[Mirror]) -> None:
        super().__init__(inner)
        self.mirrors = tuple(mirrors)
        self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="mirror")

    def put(self, name: str, parts: Sequence[Bytes]) -> None:
        """Returns when `inner` has it and no mirror is at it any more: the bytes may then be used for others."""
        under_way: list[Future[None]] = []
        if name.startswith(SENT_ALONG):
            under_way = [self._pool.submit(mirror.put, name, parts) for mirror in self.mirrors]
        try:
            self.inner.put(name, parts)
        finally:
            for future in under_way:
                future.result()

    def close(self) -> None:
        """Let go of the threads; nothing is under way."""
        self._pool.shutdown()
