"""hash: name each chunk by its content; verify is its reverse."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

import kernels
from model.batches import Chunked, Hashed
from model.orders import Expanded, Verified
from runtime.stage import Context, Stage
from stages.access import RepositoryAccess


class Hasher(Stage[Chunked, Hashed]):
    """HMAC-SHA-256 under the repository's id key, SHA-256 if it is not encrypted."""

    def __init__(self, access: RepositoryAccess) -> None:
        self.access = access

    def open(self, context: Context) -> None:
        self._key = self.access.repository.keys.id_key

    def push(self, item: Chunked) -> Iterator[Hashed]:
        ids = kernels.hash_chunks(self._key, item.body, item.start, item.length)
        yield Hashed(item.listing, item.body, item.row, item.start, item.length, ids)


class Verifier(Stage[Expanded, Verified]):
    """Recomputes the id of every wanted chunk before anything of it is written."""

    def __init__(self, access: RepositoryAccess) -> None:
        self.access = access

    def open(self, context: Context) -> None:
        self._key = self.access.repository.keys.id_key

    def push(self, item: Expanded) -> Iterator[Verified]:
        order, trouble = item.order, dict(item.trouble)
        good = np.zeros(len(order.ids), dtype=bool)
        ends = np.searchsorted(order.chunk_segment, np.arange(len(item.plain)), side="right").tolist()
        begin = 0
        for number, (plain, end) in enumerate(zip(item.plain, ends, strict=True)):
            chunks, begin = slice(begin, end), end
            if number in trouble:
                continue
            offset, length = order.chunk_offset[chunks].astype(np.int64), order.chunk_length[chunks]
            inside = offset + length <= len(plain)
            if not inside.all():
                trouble[number] = "the index points past the end of a segment"
                continue
            ids = kernels.hash_chunks(self._key, memoryview(plain), offset, length)
            good[chunks] = (ids == order.ids[chunks]).all(axis=1)
            if not good[chunks].all():
                trouble[number] = "a chunk is not what its id says"
        yield Verified(order, item.plain, good, trouble)
