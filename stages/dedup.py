"""dedup: ask the index which chunks of a batch are new; the first lane to ask stores it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np

from model.batches import Claimed, Hashed
from model.entries import U8, Bool
from runtime.stage import Context, Stage


class Claims(Protocol):
    """The one question that travels upstream: `ClaimTable`, or a proxy of one."""

    def claim(self, ids: U8, owner: str) -> Bool: ...


class Deduplicator(Stage[Hashed, Claimed]):
    """Advisory: that every chunk of the snapshot is stored is proved at commit, not here.

    One that does not ask has every chunk stored that comes by, however often.
    """

    def __init__(self, asks: bool = True) -> None:
        self.asks = asks

    def open(self, context: Context) -> None:
        self._claims: Claims = context.services["claims"]
        self._owner = context.lane_name

    def push(self, item: Hashed) -> Iterator[Claimed]:
        mine = self._claims.claim(item.ids, self._owner) if self.asks else np.ones(len(item.ids), dtype=bool)
        yield Claimed(item.listing, item.body, item.row, item.start, item.length, item.ids, mine)
