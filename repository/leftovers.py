"""What writers that were killed left half-written in a store: no objects, found by nobody, but they take room.

Only what no living writer can still be at is removed. A file is left alone for as long as the longest session may
take, and as long as a session that is older than it has not ended. A writer that is suspended for longer and has no
session (who adds a key, who copies objects) finds its file gone and fails, with nothing stored.
"""

from __future__ import annotations

from collections.abc import Collection

from repository.session_state import SessionState
from repository.store import Leftover, Store

LONGEST_WRITER = 25 * 3600 * 10**9  # ns: a day, and an hour by which a store's times may be wrong


def old_leftovers(store: Store, now: int, live: Collection[SessionState]) -> list[Leftover]:
    """Those that belong to nobody any more. `now` is the time by the clock of the store, in ns since the epoch, `live`
    are the sessions that have not ended. Raises StoreError."""
    limit = now - LONGEST_WRITER
    for state in live:
        if state.since is None:  # nobody knows when it began
            return []
        limit = min(limit, state.since)
    return [each for each in store.leftovers() if each.written < limit]


def remove_leftovers(store: Store, leftovers: Collection[Leftover]) -> None:
    """Give their room back. Raises Refused, StoreError."""
    for each in leftovers:
        store.remove_leftover(each)
