"""Where manifests are stored: as chunks in metadata packs, deduplicated like all others."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from model.batches import Receipt
from model.entries import U8, Bool
from repository.chunk_writer import ChunkWriter
from repository.entry_table import chunks_of
from repository.own_history import OwnHistory
from repository.pack import PackKind
from repository.repository import Repository

PACK_BYTES = 16 << 20


class Claims(Protocol):
    """What is stored already: `ClaimTable` or a proxy of it."""

    def resolved(self, ids: U8) -> Bool: ...


class MetadataStore:
    """Stores plain bytes as chunks. For one thread; the receipts are the caller's to report and to index.

    Nothing is claimed and no claim is trusted: a file may hold the very bytes of a manifest, and whoever stores the
    one must not wait for the other, which may be stored last of all. In a dry run all is done but storing. A
    write-only machine remembers in its `history` what it stores, because it cannot read it back.
    """

    def __init__(
        self, repository: Repository, claims: Claims, dry_run: bool = False, history: OwnHistory | None = None
    ) -> None:
        self._repository = repository
        self._claims = claims
        self._history = None if dry_run else history
        self._writer = ChunkWriter(repository, PackKind.META, PACK_BYTES, dry_run)

    def store(self, plain: bytes) -> bytes:
        """The id of `plain` as a chunk; it is durable once a receipt says so. Raises StoreError."""
        chunk_id = self._repository.keys.chunk_id(plain)
        if self._history is not None:
            self._history.keep(chunk_id, plain)
        if chunk_id not in self._writer:
            stored = self._claims.resolved(np.frombuffer(chunk_id, np.uint8).reshape(1, 32))[0]
            if not stored:
                self._writer.take(chunk_id, plain)
        return chunk_id

    def take_over(self, rows: pa.Table) -> None:
        """Rows of an earlier manifest go into this one: what lists the chunks of their files is needed still."""
        if self._history is not None and (rows["depth"].to_numpy() != 0).any():
            lists = chunks_of(rows.filter(pc.equal(rows["depth"], 1)))
            self._history.use(row.tobytes() for row in lists.ids)

    def receipts(self) -> list[Receipt]:
        """Receipts of packs stored since the last call."""
        return self._writer.receipts()

    def finish(self) -> list[Receipt]:
        """Store what is left; receipts of packs stored since the last call."""
        return self._writer.finish()
