"""encrypt: seal segments into packs; decrypt is its reverse."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic

import numpy as np

from model.batches import Compressed, PackBytes, R, Sealed
from model.errors import RepositoryError, StoreError
from model.orders import Fetched, Opened
from repository.pack import HEADER_SIZE, OVERHEAD, PackBuffers, PackKeys, PackKind, PackWriter, pack_name
from runtime.stage import Context, Stage
from stages.access import RepositoryAccess
from stages.room import Room

PACK_CHUNKS = 1 << 16  # chunks with which a pack is full, however small: rows wait in memory until theirs are stored


class Encryptor(Stage[Compressed[R], Sealed[R]], Generic[R]):
    """Every lane fills a pack of its own, under a key made for it.

    Each segment is opened again and compared with the bytes it came from before it can leave this host: a flipped
    bit in memory or a broken codec is found while the source is still there.
    """

    def __init__(self, access: RepositoryAccess, pack_bytes: int, kind: PackKind = PackKind.DATA) -> None:
        self.access = access
        self.pack_bytes = pack_bytes
        self.kind = kind

    def open(self, context: Context) -> None:
        self._buffers = PackBuffers()
        self._pack: PackWriter | None = None  # none until there is something for it: the last may be stored by then
        self._in_pack = 0
        self._chunks = 0
        self._sealed = 0

    def push(self, item: Compressed[R]) -> Iterator[Sealed[R]]:
        packs: list[PackBytes] = []
        for segment in item.segments:
            if self._pack is None:
                self._pack = PackWriter(self.access.repository.keys, self.kind, self.pack_bytes, self._buffers)
            if segment.plain is not None:
                self._pack.add(segment, verify_against=segment.plain)
            else:  # it came compressed, and is passed on so
                self._pack.add(segment, verify_against=segment.data, as_packed=True)
            self._in_pack += 1
            self._chunks += len(segment.ids)
            if self._pack.full or self._chunks >= PACK_CHUNKS:
                packs.append(self._finish(self._pack))
        if item.content is not None or packs:
            yield Sealed(item.content, packs, item.needs, self._sealed)

    def flush(self) -> Iterator[Sealed[R]]:
        if self._pack is not None:
            pack = self._finish(self._pack)
            yield Sealed(None, [pack], 0, self._sealed)

    def _finish(self, writer: PackWriter) -> PackBytes:
        self._sealed += self._in_pack
        self._in_pack = self._chunks = 0
        self._pack = None
        return writer.finish()


class Decryptor(Stage[Fetched, Opened]):
    """Authenticates and decrypts each segment; one that does not open is reported, the others go on."""

    def __init__(self, access: RepositoryAccess) -> None:
        self.access = access

    def open(self, context: Context) -> None:
        self._keys: tuple[bytes, PackKeys] | None = None
        self._room = Room()
        self.access.report_to(context)

    def push(self, item: Fetched) -> Iterator[Opened]:
        order, trouble = item.order, dict(item.trouble)
        rooms = self._room.slices(np.maximum(order.segment_stored, OVERHEAD) - np.uint32(OVERHEAD))
        data: list[bytes | memoryview] = []
        for number, (sealed, out) in enumerate(zip(item.sealed, rooms, strict=True)):
            if number not in trouble:
                try:
                    self._open_segment(item, number, sealed, out)
                except (RepositoryError, StoreError) as error:
                    trouble[number] = str(error)
            data.append(out if number not in trouble else b"")
        yield Opened(order, data, trouble)

    def _open_segment(self, item: Fetched, number: int, sealed: memoryview, out: memoryview) -> None:
        """Fill `out`; head and segment are fetched again should they not open as they came."""
        order, store = item.order, self.access.repository.store
        ordinal, codec = int(order.segment_ordinal[number]), int(order.segment_codec[number])
        name, came = pack_name(order.pack_id), [(item.head, sealed)]

        def attempt() -> None:
            if came:
                head, data = came.pop()
            else:
                self._keys = None
                head = store.get(name, 0, HEADER_SIZE)
                begin, stored = int(order.segment_offset[number]), int(order.segment_stored[number])
                data = memoryview(store.get(name, begin, stored))
            keys = self._keys_of(order.pack_id, head)
            if len(data) != len(out) + OVERHEAD:
                raise keys.damaged(ordinal)
            keys.open_into(ordinal, codec, int(order.segment_plain[number]), data, out)

        self.access.repository.rereads.read(name, attempt)

    def _keys_of(self, pack_id: bytes, head: bytes) -> PackKeys:
        if self._keys is None or self._keys[0] != pack_id:
            self._keys = pack_id, self.access.repository.packs.open_header(head, pack_id)
        return self._keys[1]
