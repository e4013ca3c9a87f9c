"""unpack, repack: segments of one repository become segments of another, decompressed only where they must be.

A segment that is wanted whole, and whose chunks keep their ids, is passed on compressed. Of others the wanted chunks
are taken out and gathered into new segments.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np

import kernels
from model.batches import Compressed, Segment
from model.entries import U8, Bool
from model.errors import RepositoryError
from model.orders import Moved, Opened, Order, Unpacked
from repository.codecs import Codec, decompress_into
from runtime.stage import Context, Stage
from stages.access import RepositoryAccess
from stages.compress import Gatherer
from stages.room import Room


class Claims(Protocol):
    """Who stores which chunk in the target: `ClaimTable`, or a proxy of one."""

    def claim(self, ids: U8, owner: str) -> Bool: ...


class Unpacker(Stage[Opened, Unpacked]):
    """Decides which chunks to store, and takes segments apart where needed, proving each chunk by its id.

    With `renamed` the chunks have other ids in the target: then every segment is decompressed, and what is stored
    already is known only after that. `expand_all`: decompress and prove whatever is copied.
    """

    def __init__(self, source: RepositoryAccess, renamed: bool, expand_all: bool) -> None:
        self.source = source
        self.renamed = renamed
        self.expand_all = expand_all

    def open(self, context: Context) -> None:
        self._claims: Claims = context.services["claims"]
        self._owner = context.lane_name
        self._key = self.source.repository.keys.id_key
        self._room = Room()

    def push(self, item: Opened) -> Iterator[Unpacked]:
        order, trouble = item.order, dict(item.trouble)
        wanted = np.ones(len(order.ids), dtype=bool)
        wanted[np.isin(order.chunk_segment, list(trouble))] = False
        if not self.renamed:
            rows = np.flatnonzero(wanted)
            wanted[rows] = self._claims.claim(order.ids[rows], self._owner)
        rooms = self._room.slices(order.segment_plain)
        plain: list[memoryview | None] = []
        for number, chunks in enumerate(order.chunks_by_segment()):
            mine, out = np.flatnonzero(wanted[chunks]) + chunks.start, None
            if len(mine) and (self.expand_all or self.renamed or not is_whole(order, number, chunks, wanted)):
                out = rooms[number]
                try:
                    self._expand(item, number, out)
                    good = self._prove(order, mine, out)
                except RepositoryError as error:
                    trouble[number], out, good = str(error), None, np.zeros(len(mine), dtype=bool)
                wanted[mine] = good
                if out is not None and not good.all():
                    trouble[number] = "a chunk is not what its id says"
            plain.append(out)
        yield Unpacked(order, item.data, plain, wanted, trouble)

    @staticmethod
    def _expand(item: Opened, number: int, out: memoryview) -> None:
        decompress_into(int(item.order.segment_codec[number]), item.data[number], out)

    def _prove(self, order: Order, chunks: np.ndarray, plain: memoryview) -> Bool:
        offset, length = order.chunk_offset[chunks].astype(np.int64), order.chunk_length[chunks]
        good: Bool = offset + length <= len(plain)
        offset, length = np.where(good, offset, 0), np.where(good, length, 0).astype(np.uint32)
        good &= (kernels.hash_chunks(self._key, plain, offset, length) == order.ids[chunks]).all(axis=1)
        return good


class Repacker(Stage[Unpacked, Compressed[Moved]]):
    """Passes whole segments on and gathers single chunks into new ones.

    With `recompress` every segment that was decompressed is compressed anew.
    """

    def __init__(
        self, target: RepositoryAccess, renamed: bool, codec: Codec, level: int | None, recompress: bool
    ) -> None:
        self.target = target
        self.renamed = renamed
        self.codec = codec
        self.level = level
        self.recompress = recompress

    def open(self, context: Context) -> None:
        self._claims: Claims = context.services["claims"]
        self._owner = context.lane_name
        self._key = self.target.repository.keys.id_key
        self._gatherer = Gatherer(self.codec, self.level)
        self._passed = 0  # segments of this lane that were passed on as they were
        self._held: list[Moved] = []  # whose last chunks wait in the gatherer

    def push(self, item: Unpacked) -> Iterator[Compressed[Moved]]:
        order = item.order
        ids, old, wanted = self._named(item)
        ordinal = order.segment_ordinal.tolist()
        trouble = {int(ordinal[number]): text for number, text in item.trouble.items()}
        moved = Moved(order.seq, order.pack_id, old, ids[item.wanted] if self.renamed else old, trouble=trouble)
        moved.decompressed = sum(plain is not None for plain in item.plain)
        gathered = False
        for number, chunks in enumerate(order.chunks_by_segment()):
            mine = np.flatnonzero(wanted[chunks]) + chunks.start
            if not len(mine):
                continue
            moved.chunks += len(mine)
            moved.plain += int(order.chunk_length[mine].sum(dtype=np.int64))
            plain = item.plain[number]
            if plain is None or (not self.recompress and is_whole(order, number, chunks, wanted)):
                moved.copied += 1
                self._passed += 1
                yield Compressed(None, [_as_it_is(item, number, chunks, ids)])
            else:
                moved.repacked += 1
                gathered = True
                start, length = order.chunk_offset[mine].astype(np.int64), order.chunk_length[mine]
                yield from self._emitted(self._gatherer.take(plain, ids[mine], start, length))
        if gathered and self._gatherer.waiting:
            self._held.append(moved)
        else:
            yield Compressed(moved, [], self._made if moved.chunks else 0)

    def flush(self) -> Iterator[Compressed[Moved]]:
        yield from self._emitted(self._gatherer.rest())

    @property
    def _made(self) -> int:
        return self._gatherer.made + self._passed

    def _emitted(self, segments: Iterator[Segment]) -> Iterator[Compressed[Moved]]:
        """The segments; behind each, whatever waited for it."""
        for segment in segments:
            yield Compressed(None, [segment])
            held, self._held = self._held, []
            for moved in held:
                yield Compressed(moved, [], self._made)

    def _named(self, item: Unpacked) -> tuple[U8, U8, Bool]:
        """The ids of all chunks in the target, those renamed as the source knows them, and which are to be stored."""
        order = item.order
        if not self.renamed:
            return order.ids, order.ids[:0], item.wanted
        ids = np.zeros_like(order.ids)
        for number, chunks in enumerate(order.chunks_by_segment()):
            mine, plain = np.flatnonzero(item.wanted[chunks]) + chunks.start, item.plain[number]
            if plain is not None and len(mine):
                offset = order.chunk_offset[mine].astype(np.int64)
                ids[mine] = kernels.hash_chunks(self._key, plain, offset, order.chunk_length[mine])
        read = np.flatnonzero(item.wanted)
        wanted = np.zeros_like(item.wanted)
        wanted[read] = self._claims.claim(ids[read], self._owner)
        return ids, order.ids[read], wanted


def is_whole(order: Order, number: int, chunks: slice, wanted: Bool) -> bool:
    """Whether the `wanted` among the chunks of a segment are all there is in it, side by side."""
    if not wanted[chunks].all():
        return False
    offset, length = order.chunk_offset[chunks].astype(np.int64), order.chunk_length[chunks]
    ends = offset + length
    return bool(offset[0] == 0 and (offset[1:] == ends[:-1]).all() and ends[-1] == order.segment_plain[number])


def _as_it_is(item: Unpacked, number: int, chunks: slice, ids: U8) -> Segment:
    order = item.order
    codec, plain = int(order.segment_codec[number]), int(order.segment_plain[number])
    offset, length = order.chunk_offset[chunks], order.chunk_length[chunks]
    return Segment(codec, plain, item.data[number], ids[chunks], offset, length)
