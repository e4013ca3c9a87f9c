"""What travels between the stages of a restore, in order; each class is the output of one stage.

    Order → Fetched → Opened → Expanded → Verified → Joined → Written
    locate  download  decrypt  decompress  verify    join     write

An order is a few neighbouring segments of one pack and everything that is wanted of them, so that each range of the
store is fetched once, whatever the number of files it serves. Trouble with a segment is data: what it was to bring is
reported as damaged, the rest goes on. A copy between repositories turns off after decrypt: Opened → Unpacked, and goes
on as a backup does; its orders are for chunks and name no files.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from model.entries import I32, I64, U8, U32, Bool, Paths, Stats


@dataclass(slots=True, eq=False)
class Order:
    """k segments of a pack, the m chunks wanted of them, and p parts of f files made of these chunks.

    A part is a run of content that lies side by side in one segment: `part_length` bytes from `part_offset` of
    segment `part_segment` go to content offset `part_at` of file `part_file`.
    A `whole` file has exactly one part, which is all of it.
    """

    seq: int
    window: int  # which window of the snapshot's entries `rows` count in
    pack_id: bytes
    segment_ordinal: U32  # [k]
    segment_offset: U32  # [k] in the pack
    segment_stored: U32  # [k]
    segment_plain: U32  # [k]
    segment_codec: U8  # [k]
    chunk_segment: I32  # [m] index into the segments above
    chunk_offset: U32  # [m] in the opened segment
    chunk_length: U32  # [m]
    ids: U8  # [m, 32]
    part_segment: I32  # [p]
    part_offset: U32  # [p]
    part_length: I64  # [p]
    part_file: I32  # [p] index into the files below
    part_at: I64  # [p]
    rows: I32  # [f] rows of the window
    paths: Paths  # [f]
    stat: Stats  # STAT[f]
    whole: Bool  # [f]
    extents: dict[int, I64] = field(default_factory=dict)  # of sparse files

    def chunks_by_segment(self) -> Iterator[slice]:
        """Of each segment, its chunks."""
        ends = np.searchsorted(self.chunk_segment, np.arange(len(self.segment_ordinal)), side="right").tolist()
        for begin, end in zip([0, *ends], ends, strict=False):
            yield slice(begin, end)

    @property
    def nbytes(self) -> int:
        """Bytes to fetch."""
        return int(self.segment_stored.sum(dtype=np.int64))


@dataclass(slots=True, eq=False)
class Fetched:
    """The sealed bytes of each segment, and the head of the pack that holds its keys."""

    order: Order
    head: bytes
    sealed: list[memoryview]
    trouble: dict[int, str] = field(default_factory=dict)  # segment → why it cannot be had

    @property
    def nbytes(self) -> int:
        """Sealed bytes."""
        return sum(map(len, self.sealed))


@dataclass(slots=True, eq=False)
class Opened:
    """The authenticated, still compressed bytes of each segment; empty where there is trouble."""

    order: Order
    data: list[bytes | memoryview]
    trouble: dict[int, str]

    def detach(self) -> Opened:
        return replace(self, data=[bytes(part) for part in self.data])

    @property
    def nbytes(self) -> int:
        """Compressed bytes."""
        return sum(map(len, self.data))


@dataclass(slots=True, eq=False)
class Expanded:
    """The plain bytes of each segment; empty where there is trouble."""

    order: Order
    plain: list[bytes | memoryview]
    trouble: dict[int, str]

    def detach(self) -> Expanded:
        return replace(self, plain=[bytes(part) for part in self.plain])

    @property
    def nbytes(self) -> int:
        """Plain bytes."""
        return sum(map(len, self.plain))


@dataclass(slots=True, eq=False)
class Verified:
    """As `Expanded`; ``good[m]`` says which chunks are what their id says."""

    order: Order
    plain: list[bytes | memoryview]
    good: Bool
    trouble: dict[int, str]

    def detach(self) -> Verified:
        return replace(self, plain=[bytes(part) for part in self.plain])

    @property
    def nbytes(self) -> int:
        """Plain bytes."""
        return sum(map(len, self.plain))


@dataclass(slots=True, eq=False)
class Joined:
    """The parts that can be written: all of theirs is good. `failed` maps files (index) to why they are not whole."""

    order: Order
    plain: list[bytes | memoryview]
    parts: I32
    failed: dict[int, str]

    def detach(self) -> Joined:
        return replace(self, plain=[bytes(part) for part in self.plain])

    @property
    def nbytes(self) -> int:
        """Plain bytes."""
        return sum(map(len, self.plain))


@dataclass(slots=True, eq=False)
class Written:
    """Per file of the order: bytes written now, and whether the file is finished with its metadata."""

    seq: int
    window: int
    rows: I32
    written: I64
    finished: Bool
    problems: dict[int, str]  # row of the window → text
    damaged: bool = False

    @property
    def nbytes(self) -> int:
        """Bytes written."""
        return int(self.written.sum())


@dataclass(slots=True, eq=False)
class Unpacked:
    """As `Opened`, on the way to another repository: segments that must be taken apart are decompressed, their chunks
    proved; the others go on as they are.
    """

    order: Order
    data: list[bytes | memoryview]
    plain: list[memoryview | None]  # None: not decompressed
    wanted: Bool  # [m] the chunks to store
    trouble: dict[int, str]

    def detach(self) -> Unpacked:
        plain = [None if part is None else memoryview(bytes(part)) for part in self.plain]
        return replace(self, data=[bytes(part) for part in self.data], plain=plain)

    @property
    def memory(self) -> int:
        """Bytes it takes while it waits."""
        return sum(map(len, self.data)) + sum(len(part) for part in self.plain if part is not None)

    @property
    def nbytes(self) -> int:
        """Bytes to store: plain where decompressed, else compressed."""
        return sum(len(data if plain is None else plain) for data, plain in zip(self.data, self.plain, strict=True))


@dataclass(slots=True, eq=False)
class Moved:
    """What is left of an order once its chunks are in packs of the other repository.

    ``old[n, 32]`` and ``new[n, 32]`` are the ids of all chunks that were read well, there and here, if they differ.
    """

    seq: int
    pack_id: bytes
    old: U8
    new: U8
    chunks: int = 0  # stored for this order; those that others stored do not count
    plain: int = 0  # their bytes
    copied: int = 0  # segments that were sealed anew as they were
    repacked: int = 0  # segments taken apart
    decompressed: int = 0
    trouble: dict[int, str] = field(default_factory=dict)  # ordinal of a segment in the pack → what is wrong with it
