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


class Gatherer:
    """Chunks one after the other until they are a segment. For one lane; its buffer is used again for each segment.

    Small files compress far better together than alone, and the store sees neither chunk sizes nor their number.
    """

    def __init__(self, codec: Codec, level: int | None, segment_bytes: int = SEGMENT_BYTES) -> None:
        self.made = 0  # segments given so far
        self._codec = codec
        self._compress = compressor(codec, level)
        self._probe = compressor(Codec.ZSTD, 1)
        self._size = segment_bytes
        self._buffer = memoryview(bytearray(segment_bytes))
        self._used = 0
        self._gathered: list[tuple[U8, U32, U32]] = []  # ids, offsets, lengths in the open segment

    @property
    def waiting(self) -> bool:
        """Whether some chunks taken are in no segment given yet."""
        return self._used > 0

    def take(self, body: memoryview, ids: U8, start: I64, length: U32) -> Iterator[Segment]:
        """Segments that are complete with these chunks, which lie at `start` in `body`."""
        ends = np.cumsum(length, dtype=np.int64)
        done, count = 0, len(ids)
        while done < count:
            base = int(ends[done - 1]) if done else 0
            fit = int(np.searchsorted(ends, base + self._size - self._used, side="right"))
            if fit == done and not self._used:  # a chunk longer than a segment is one by itself
                begin, size = int(start[done]), int(length[done])
                self._gathered.append((ids[done : done + 1], np.zeros(1, np.uint32), length[done : done + 1]))
                yield self._segment(body[begin : begin + size])
                done += 1
                continue
            if fit > done:
                whole = self._whole_segment(body, start[done:fit], length[done:fit], last=fit == count)
                offsets = (ends[done:fit] - length[done:fit] - base + self._used).astype(np.uint32)
                self._gathered.append((ids[done:fit], offsets, length[done:fit]))
                if whole is None:
                    self._copy(body, start[done:fit], length[done:fit])
                done = fit
            else:
                whole = self._buffer[: self._used]
            if done < count:
                yield self._segment(whole if whole is not None else self._buffer[: self._used])

    def rest(self) -> Iterator[Segment]:
        """What was taken and not given yet."""
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

    def _segment(self, plain: memoryview) -> Segment:
        codec, data = self._best(plain)
        ids = np.concatenate([part[0] for part in self._gathered])
        offset = np.concatenate([part[1] for part in self._gathered])
        length = np.concatenate([part[2] for part in self._gathered])
        self._gathered.clear()
        self._used = 0
        self.made += 1
        return Segment(codec, len(plain), data, ids, offset, length, plain)

    def _best(self, plain: memoryview) -> tuple[int, bytes | memoryview]:
        if self._codec == Codec.NONE or looks_incompressible(plain, self._probe):
            return Codec.NONE, plain
        data = self._compress(plain)
        if len(data) > len(plain) * WORTH_IT:
            return Codec.NONE, plain
        return self._codec, data


class Compressor(Stage[Claimed, Compressed[Content]]):
    """Rows pass at once; their new bytes leave with the segment they were gathered into."""

    def __init__(self, codec: Codec, level: int | None, segment_bytes: int = SEGMENT_BYTES) -> None:
        self.codec = codec
        self.level = level
        self.segment_bytes = segment_bytes

    def open(self, context: Context) -> None:
        self._gatherer = Gatherer(self.codec, self.level, self.segment_bytes)

    def push(self, item: Claimed) -> Iterator[Compressed[Content]]:
        mine, gatherer = np.flatnonzero(item.mine), self._gatherer
        length = item.length[mine]
        for segment in gatherer.take(item.body, item.ids[mine], item.start[mine], length):
            yield Compressed(None, [segment])
        new = int(length.sum(dtype=np.int64))
        content = Content(item.listing, item.row, item.length, item.ids, new)
        yield Compressed(content, [], gatherer.made + gatherer.waiting if len(mine) else 0)

    def flush(self) -> Iterator[Compressed[Content]]:
        for segment in self._gatherer.rest():
            yield Compressed(None, [segment])


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
