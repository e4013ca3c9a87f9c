"""hash: name each chunk by its content; verify is its reverse."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

import kernels
from model.batches import Chunked, Hashed
from model.entries import Bool
from model.errors import LoxError
from model.orders import Expanded, Order, Verified
from repository.pack import pack_name
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
    """Recomputes the id of every wanted chunk before anything of it is written.

    What one pack does not give as it should be is taken from another that has it too, if there is one.
    """

    def __init__(self, access: RepositoryAccess) -> None:
        self.access = access

    def open(self, context: Context) -> None:
        self._key = self.access.repository.keys.id_key
        self.access.report_to(context)

    def push(self, item: Expanded) -> Iterator[Verified]:
        order, trouble, plain = item.order, dict(item.trouble), item.plain
        good = np.zeros(len(order.ids), dtype=bool)
        for number, chunks in enumerate(order.chunks_by_segment()):
            if number not in trouble and (why := self._prove(order, chunks, plain[number], good)):
                trouble[number] = why
        if not good.all():
            plain = self._from_others(order, list(plain), good, trouble)
        yield Verified(order, plain, good, trouble)

    def _prove(self, order: Order, chunks: slice, plain: bytes | memoryview, good: Bool) -> str:
        """Mark which chunks of a segment are good; what is wrong with it, or ""."""
        offset, length = order.chunk_offset[chunks].astype(np.int64), order.chunk_length[chunks]
        if not (offset + length <= len(plain)).all():
            return "the index points past the end of a segment"
        ids = kernels.hash_chunks(self._key, memoryview(plain), offset, length)
        good[chunks] = (ids == order.ids[chunks]).all(axis=1)
        return "" if good[chunks].all() else "a chunk is not what its id says"

    def _from_others(
        self, order: Order, plain: list[bytes | memoryview], good: Bool, trouble: dict[int, str]
    ) -> list[bytes | memoryview]:
        """The plain bytes of all segments, with what other packs have of the chunks that are not good."""
        bad = np.flatnonzero(~good)
        ids = [order.ids[row].tobytes() for row in bad.tolist()]
        try:
            found = self.access.fetcher.fetch_others(ids, order.pack_id, order.segment_ordinal[list(trouble)].tolist())
        except LoxError:  # what is wrong with the pack is what counts
            return plain
        mended: dict[int, bytearray] = {}
        for row, chunk_id in zip(bad.tolist(), ids, strict=True):
            number, begin, chunk = int(order.chunk_segment[row]), int(order.chunk_offset[row]), found.get(chunk_id)
            end = begin + int(order.chunk_length[row])
            if chunk is not None and len(chunk) == end - begin and end <= order.segment_plain[number]:
                if number not in mended:
                    size = int(order.segment_plain[number])
                    mended[number] = bytearray(plain[number]).ljust(size, b"\0")
                mended[number][begin:end] = chunk
                good[row] = True
        for number, chunks in enumerate(order.chunks_by_segment()):
            if number in trouble and good[chunks].all():
                self.access.repository.rereads.spared(pack_name(order.pack_id), trouble.pop(number))
        return [memoryview(mended[number]) if number in mended else one for number, one in enumerate(plain)]
