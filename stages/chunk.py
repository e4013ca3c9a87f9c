"""chunk: cut content where the content says so; join is its reverse."""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator
from typing import Protocol

import numpy as np

import kernels
from model.batches import BODY_MAX, OVERREAD, Blocks, Chunked, Listing, Piece
from model.chunking import WINDOW, ChunkerParams
from model.entries import I64
from model.orders import Joined, Verified
from runtime.stage import Context, Stage
from sources.files.opening import NotRegularError
from sources.files.read import read_range
from sources.files.trouble import REPLACED, describe
from stages.access import RepositoryAccess
from stages.ledger import UNKNOWN

KEPT = 2  # pieces a lane keeps that came before their turn
PATIENCE = 5.0  # seconds to wait for the neighbour before doing its work
SHORT_PATIENCE = 0.25  # where the neighbour may be waiting behind this very piece


class Ledger(Protocol):
    """What chunk asks of its neighbours: `CutLedger`, or a proxy of one."""

    def start_of(self, file: int, index: int) -> int: ...
    def latest_before(self, file: int, index: int) -> tuple[int, int]: ...
    def publish(self, file: int, index: int, start: int) -> None: ...


class Chunker(Stage[Blocks, Chunked]):
    """Cuts whole files in one kernel call per batch, and pieces of large files in step with their neighbours.

    Unless pieces come `in_order`, as they do from the lane that read them, one that comes too early is kept: the piece
    before it may be next on this very lane.
    """

    def __init__(self, access: RepositoryAccess, root: bytes = b"/", in_order: bool = True) -> None:
        self.access = access
        self.root = root
        self.in_order = in_order

    def open(self, context: Context) -> None:
        repository = self.access.repository
        self._params: ChunkerParams = repository.chunker
        self._table = kernels.gear_table(repository.keys.chunker_key)
        self._ledger: Ledger = context.services["ledger"]
        self._kept: list[tuple[Piece, Blocks]] = []

    def push(self, item: Blocks) -> Iterator[Chunked]:
        piece = item.listing.piece
        if piece is None or self._params.kind == "fixed":
            yield self._cut_files(item)
        elif self.in_order or self._is_next(piece):
            yield self._cut_piece(item, piece)
        else:
            self._kept.append((piece, item.detach()))
        yield from self._kept_ones(KEPT)

    def flush(self) -> Iterator[Chunked]:
        yield from self._kept_ones(0)

    def _kept_ones(self, most: int) -> Iterator[Chunked]:
        """Those kept whose turn it is, and the first ones whether it is or not, until at most so many are left."""
        self._kept.sort(key=lambda kept: (kept[0].file, kept[0].index))
        while self._kept:
            turn = next((n for n, (piece, _) in enumerate(self._kept) if self._is_next(piece)), 0)
            if len(self._kept) <= most and not self._is_next(self._kept[turn][0]):
                return
            piece, blocks = self._kept.pop(turn)
            yield self._cut_piece(blocks, piece)

    def _is_next(self, piece: Piece) -> bool:
        return self._ledger.start_of(piece.file, piece.index) != UNKNOWN

    def _cut_files(self, blocks: Blocks) -> Chunked:
        ends, counts = kernels.cut_files(blocks.body, blocks.start, blocks.length, self._table, self._params)
        row = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
        start = np.empty(len(ends), dtype=np.int64)
        start[1:] = ends[:-1]
        nonempty = np.flatnonzero(counts)
        start[np.cumsum(counts)[nonempty] - counts[nonempty]] = blocks.start[nonempty]
        return Chunked(blocks.listing, blocks.body, row, start, (ends - start).astype(np.uint32))

    def _cut_piece(self, blocks: Blocks, piece: Piece) -> Chunked:
        start, length = int(blocks.start[0]), int(blocks.length[0])
        known = length + blocks.after
        candidates = self._candidates(blocks.body, start, known)
        # A file that was cut short and has grown again may have lost bytes before this piece: it has a problem then.
        begin = max(0, self._begin(blocks.listing, piece) - piece.offset)
        body, ends = blocks.body, np.zeros(0, dtype=np.int64)
        if begin < length:
            owned = self._owned(candidates, begin, length, known, at_end=blocks.after < OVERREAD)
            if owned is None:
                body, start, owned = self._with_more(blocks, piece, begin)
            ends = owned
        last = int(ends[-1]) if len(ends) else max(begin, 0)
        self._ledger.publish(piece.file, piece.index + 1, piece.offset + last)
        starts = np.concatenate([np.array([begin], dtype=np.int64), ends[:-1]]) if len(ends) else ends
        return Chunked(
            blocks.listing, body, np.zeros(len(ends), dtype=np.int32), starts + start, (ends - starts).astype(np.uint32)
        )

    def _candidates(self, body: memoryview, start: int, known: int) -> I64:
        context = min(WINDOW - 1, start)
        return kernels.candidates(body[start - context : start + known], self._table, self._params, context)

    def _owned(self, candidates: I64, begin: int, length: int, known: int, at_end: bool) -> I64 | None:
        """Ends of the chunks that start in ``[begin, length)``, or None if more bytes are needed to know the last."""
        ends: I64 = kernels.select(candidates, self._params, begin, known, at_end)
        starts = np.concatenate([np.array([begin], dtype=np.int64), ends])
        owned = int(np.searchsorted(starts, length))  # chunks that start below length
        return None if owned > len(ends) else ends[:owned]

    def _with_more(self, blocks: Blocks, piece: Piece, begin: int) -> tuple[memoryview, int, I64]:
        """Content without cut points for longer than `OVERREAD`: read on to where the longest chunk could end."""
        start, length = int(blocks.start[0]), int(blocks.length[0])
        have = length + blocks.after
        want = self._params.maximum + OVERREAD - blocks.after
        more = self._read(blocks.listing, piece, piece.offset + have, want)
        body = memoryview(bytes(blocks.body[: start + have]) + more)
        known = have + len(more)
        ends = self._owned(self._candidates(body, start, known), begin, length, known, len(more) < want)
        assert ends is not None, "a chunk ends at its longest length"
        return body, start, ends

    def _begin(self, listing: Listing, piece: Piece) -> int:
        """Content offset where this piece's first chunk begins; waits for the neighbour, or does its work."""
        deadline = time.monotonic() + (PATIENCE if self.in_order else SHORT_PATIENCE)
        while (start := self._ledger.start_of(piece.file, piece.index)) == UNKNOWN:
            if time.monotonic() > deadline:
                return self._begin_alone(listing, piece)
            time.sleep(0.0005)
        return start

    def _read(self, listing: Listing, piece: Piece, offset: int, length: int) -> bytes:
        """More of the file than the piece brought; what cannot be read any more counts as cut off."""
        fresh = listing.fresh
        try:
            return read_range(self.root, fresh.paths[0], piece, offset, length)
        except NotRegularError:
            fresh.problems.setdefault(0, REPLACED)
        except OSError as error:
            fresh.problems.setdefault(0, describe(error.errno or errno.EIO))
        return b""

    def _begin_alone(self, listing: Listing, piece: Piece) -> int:
        index, start = self._ledger.latest_before(piece.file, piece.index)
        while index < piece.index:
            offset = index * BODY_MAX
            begin = max(0, start - offset)
            if begin < BODY_MAX:
                context = min(WINDOW - 1, offset)
                want = BODY_MAX + self._params.maximum
                data = self._read(listing, piece, offset - context, context + want)
                known = len(data) - context
                if begin < known:
                    candidates = kernels.candidates(data, self._table, self._params, context)
                    ends = self._owned(candidates, begin, min(BODY_MAX, known), known, at_end=known < want)
                    if ends is not None and len(ends):
                        start = offset + int(ends[-1])
            index += 1
            self._ledger.publish(piece.file, index, start)
        return start


class Joiner(Stage[Verified, Joined]):
    """Picks the parts whose chunks are all good; a file with any other part will not look as if it were whole."""

    def push(self, item: Verified) -> Iterator[Joined]:
        order = item.order
        if item.good.all():
            yield Joined(order, item.plain, np.arange(len(order.part_file), dtype=np.int32), {})
            return
        bad = np.flatnonzero(~item.good)
        first = order.chunk_offset[bad].astype(np.int64)
        last = first + order.chunk_length[bad]
        begin = order.part_offset.astype(np.int64)
        spoiled = np.zeros(len(begin), dtype=bool)
        failed: dict[int, str] = {}
        for segment, low, high in zip(order.chunk_segment[bad].tolist(), first.tolist(), last.tolist(), strict=True):
            hit = (order.part_segment == segment) & (begin < high) & (begin + order.part_length > low)
            spoiled |= hit
            why = item.trouble.get(segment, "damaged")
            failed.update(dict.fromkeys(order.part_file[hit].tolist(), why))
        yield Joined(order, item.plain, np.flatnonzero(~spoiled).astype(np.int32), failed)
