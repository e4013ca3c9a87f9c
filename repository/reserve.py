"""The reserve: room that is held so that a store which is full can still be cleaned up.

    gc/reserve/<32 hex digits> = random bytes

Whoever makes room has to write first: its session, marks, what takes the place of index objects. Where not even that
fits, the reserve is given up; once there is room again, a new one is held. It says nothing and nobody relies on it: a
repository without one is as good, until its store is full.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from model.errors import Missing, Refused, StoreError, StoreFull
from repository.store import Store

T = TypeVar("T")

RESERVE_PREFIX = "gc/reserve/"
RESERVE_BYTES = 1 << 20  # marks of 50,000 packs, or the trash of some hundred snapshots

_HINT = "make room elsewhere on the store, a MiB is enough, and run it again; nothing was lost"


def hold_reserve(store: Store) -> bool:
    """Hold a reserve if there is none; whether there is one now. That it cannot be had is no error."""
    try:
        if not any(True for _ in store.list(RESERVE_PREFIX)):
            # Random: file systems that compress would give no room for zeros, and get none back.
            store.put(RESERVE_PREFIX + os.urandom(16).hex(), [os.urandom(RESERVE_BYTES)])
    except StoreError:
        return False
    return True


def give_up_reserve(store: Store) -> bool:
    """Let go of the reserve; whether that gave room. Raises StoreError, but not if it may not be deleted."""
    given = False
    for name, _ in list(store.list(RESERVE_PREFIX)):
        with suppress(Missing, Refused):
            store.delete(name)
            given = True
    return given


def drawing_on_reserve(store: Store, work: Callable[[], T]) -> T:
    """What `work` gives, which makes room in the end; should the store be full it is done again without the reserve.

    Raises StoreFull that says what to do if that does not help, and as `work`.
    """
    try:
        return work()
    except StoreFull as error:
        full = error
    given = False
    with suppress(StoreError):
        given = give_up_reserve(store)
    if given:
        try:
            return work()
        except StoreFull as error:  # others were faster, or need more
            full = error
    raise StoreFull(full.what, subject=full.subject, why=full.why, hint=_HINT) from full
