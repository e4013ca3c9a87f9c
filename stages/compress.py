"""compress: gather new chunks into solid segments and compress each as one; expand is its reverse."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

import kernels
from model.batches import Claimed, Compressed, Content, Segment
from model.entries import I64, U8, U32
from model.errors import RepositoryError
from model.orders import Expanded, Opened
from repository.codecs import Codec, compressor, decompress_into
from runtime.stage import Context, Stage
from stages.room import Room

SEGMENT_BYTES = 4 << 20
WORTH_IT = 0.97  # of the plain length: a segment that compresses to more is stored raw
SAMPLES, SAMPLE_BYTES = 8, 16 << 10


class Compressor(Stage[Claimed, Compressed]):
    """Rows pass at once; their new bytes leave with the segment they were gathered into.

    Small files compress far better together than alone, and the store sees neither chunk sizes nor their number.
    """

    def __init__(self, codec: Codec, level: int | None, segment_bytes: int = SEGMENT_BYTES) -> None:
        self.codec = codec
        self.level = level
        self.segment_bytes = segment_bytes

    def open(self, context: Context) -> None:
        self._compress = compressor(self.codec, self.level)
        self._probe = compressor(Codec.ZSTD, 1)
        self._buffer = memoryview(bytearray(self.segment_bytes))
        self._used = 0
        self._made = 0  # segments this lane has emitted
        self._gathered: list[tuple[U8, U32, U32]] = []  # ids, offsets, lengths in the open segment

    def push(self, item: Claimed) -> Iterator[Compressed]:
        mine = np.flatnonzero(item.mine)
        ids, start, length = item.ids[mine], item.start[mine], item.length[mine]
        ends = np.cumsum(length, dtype=np.int64)
        done = 0
        while done < len(mine):
            base = int(ends[done - 1]) if done else 0
            fit = int(np.searchsorted(ends, base + self.segment_bytes - self._used, side="right"))
            if fit == done and not self._used:  # a chunk longer than a segment is one by itself
                begin, size = int(start[done]), int(length[done])
                self._gathered.append((ids[done : done + 1], np.zeros(1, np.uint32), length[done : done + 1]))
                yield self._segment(item.body[begin : begin + size])
                done += 1
                continue
            if fit > done:
                whole = self._whole_segment(item.body, start[done:fit], length[done:fit], last=fit == len(mine))
                offsets = (ends[done:fit] - length[done:fit] - base + self._used).astype(np.uint32)
                self._gathered.append((ids[done:fit], offsets, length[done:fit]))
                if whole is None:
                    self._copy(item.body, start[done:fit], length[done:fit])
                done = fit
            else:
                whole = self._buffer[: self._used]
            if done < len(mine):
                yield self._segment(whole if whole is not None else self._buffer[: self._used])
        waiting = len(mine) > 0 and self._used > 0
        content = Content(item.listing, item.row, item.length, item.ids, int(ends[-1]) if len(mine) else 0)
        needs = self._made + 1 if waiting else self._made if len(mine) else 0
        yield Compressed(content, [], needs)

    def flush(self) -> Iterator[Compressed]:
        if self._used:
            yield self._segment(self._buffer[: self._used])

    def _whole_segment(self, body: memoryview, start: I64, length: U32, last: bool) -> memoryview | None:
        """The chunks as they lie in the body, if they are a whole segment side by side: no copy needed."""
        begin, end = int(start[0]), int(start[-1]) + int(length[-1])
        if last or self._used or end - begin != int(length.sum()):
            return None
        return body[begin:end]

    def _copy(self, body: memoryview, start: I64, length: U32) -> None:
        self._used += kernels.gather(body, start, length, self._buffer[self._used :])

    def _segment(self, plain: memoryview) -> Compressed:
        codec, data = self._best(plain)
        ids = np.concatenate([part[0] for part in self._gathered])
        offset = np.concatenate([part[1] for part in self._gathered])
        length = np.concatenate([part[2] for part in self._gathered])
        self._gathered.clear()
        self._used = 0
        self._made += 1
        return Compressed(None, [Segment(codec, len(plain), data, ids, offset, length, plain)])

    def _best(self, plain: memoryview) -> tuple[int, bytes | memoryview]:
        if self.codec == Codec.NONE or looks_incompressible(plain, self._probe):
            return Codec.NONE, plain
        data = self._compress(plain)
        if len(data) > len(plain) * WORTH_IT:
            return Codec.NONE, plain
        return self.codec, data


def looks_incompressible(plain: memoryview, probe: Callable[[memoryview], bytes]) -> bool:
    """True if none of a few samples spread over `plain` gets smaller: then compressing it all is wasted time."""
    if len(plain) < 2 * SAMPLES * SAMPLE_BYTES:
        return False
    step = (len(plain) - SAMPLE_BYTES) // (SAMPLES - 1)
    samples = (plain[at : at + SAMPLE_BYTES] for at in range(0, SAMPLES * step, step))
    return all(len(probe(sample)) > SAMPLE_BYTES * WORTH_IT for sample in samples)


class Expander(Stage[Opened, Expanded]):
    """Decompresses segments to exactly the length their seal vouches for, into a buffer used again for each order."""

    def open(self, context: Context) -> None:
        self._room = Room()

    def push(self, item: Opened) -> Iterator[Expanded]:
        order, trouble = item.order, dict(item.trouble)
        plain: list[bytes | memoryview] = []
        rooms = self._room.slices(order.segment_plain)
        for number, data in enumerate(item.data):
            out = rooms[number]
            if number in trouble:
                out = out[:0]
            elif order.segment_codec[number] == Codec.NONE and len(data) == len(out):
                out = memoryview(data)
            else:
                try:
                    decompress_into(int(order.segment_codec[number]), data, out)
                except RepositoryError as error:
                    trouble[number], out = str(error), out[:0]
            plain.append(out)
        yield Expanded(order, plain, trouble)
