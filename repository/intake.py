"""What becomes of receipts: their chunks count as stored, and index objects list them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Protocol

from model.batches import Receipt
from model.entries import U8
from repository.index import save_index
from repository.repository import Repository


class Claims(Protocol):
    """What is told that chunks are stored: `ClaimTable`."""

    def add(self, ids: U8) -> None: ...


class Intake:
    """Takes the receipts of one run. Thread-safe, and served to the hosts of a cluster.

    `on_receipt` hears of each of them, one at a time.
    """

    def __init__(
        self,
        repository: Repository,
        claims: Claims,
        dry_run: bool = False,
        on_receipt: Callable[[Receipt], None] = lambda receipt: None,
    ) -> None:
        self._repository = repository
        self._claims = claims
        self._dry_run = dry_run
        self._on_receipt = on_receipt
        self._receipts: list[Receipt] = []
        self._lock = threading.Lock()
        self.bytes_stored = 0

    def take(self, receipts: Iterable[Receipt]) -> None:
        """These packs are stored: what is in them is anyone's to rely on."""
        with self._lock:
            for receipt in receipts:
                self._on_receipt(receipt)
                self._claims.add(receipt.ids)
                self._receipts.append(receipt)
                self.bytes_stored += receipt.pack_size

    def write_index(self) -> None:
        """Make the packs stored so far findable: an interrupted run leaves nothing to be sent twice. StoreError."""
        with self._lock:
            if self._receipts and not self._dry_run:
                save_index(self._repository, self._receipts)
            self._receipts.clear()
