"""What travels between the stages of a backup, in order; each class is the output of one stage.

    Listing → Blocks → Chunked → Hashed → Claimed → Compressed → Sealed → Stored
     scan      read     chunk     hash     dedup     compress     encrypt   upload

Rows are columns (NumPy), bytes lie in one body. Items are never changed after they were handed on; a body is valid
until the stage that received it returns, so whoever keeps it longer copies it (`detach`). From compress on, a copy
between repositories takes the same way; what is left of an item once its bytes are in segments is `R`: here `Content`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

from model.entries import I32, I64, U8, U32, Bool, Fresh, Kind

if TYPE_CHECKING:
    import pyarrow as pa

R = TypeVar("R")

BODY_MAX = 8 << 20  # bytes of content one batch carries
ROWS_MAX = 4096  # rows one batch carries
OVERREAD = 512 << 10  # bytes read past a piece, so that its last chunk can be ended without another read


@dataclass(slots=True, frozen=True)
class Piece:
    """A range of a large file, cut into pieces of `BODY_MAX` so that many lanes share it.

    Offsets count in the file's content: its bytes, or its data extents joined if it is sparse. A piece owns the
    chunks that start in ``[offset, offset + length)``.
    """

    file: int  # number of the large file in this run; pieces of one file share it
    index: int
    count: int
    offset: int
    length: int
    extents: I64 | None = None  # (k, 2) offset, length of the file's data if it is sparse


@dataclass(slots=True, eq=False)
class Listing:
    """A run of manifest rows as the scan found them: carried rows come from the parent snapshot, fresh rows are read.

    ``carried_at`` and ``fresh_at`` are the positions of each among the rows of this listing and together are
    0..rows-1. A listing with a `piece` has exactly one fresh row; that of piece 0 counts in the manifest, the others
    only bring more of its content.
    """

    seq: int
    fresh: Fresh
    fresh_at: I32
    carried: pa.Table | None = None
    carried_at: I32 = field(default_factory=lambda: np.zeros(0, dtype=np.int32))
    borders: I32 = field(default_factory=lambda: np.zeros(0, dtype=np.int32))  # rows where a manifest part may begin
    piece: Piece | None = None

    def __getstate__(self) -> dict[str, object]:
        # Arrow pickles a slice with all of the table it was cut from.
        state = {column.name: getattr(self, column.name) for column in fields(self)}
        return state | {"carried": None if self.carried is None else _stream_of(self.carried)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)
        if self.carried is not None:
            self.carried = _table_of(self.carried)

    @property
    def rows(self) -> int:
        if self.piece is not None and self.piece.index > 0:
            return 0
        return len(self.fresh_at) + len(self.carried_at)

    @property
    def apart(self) -> bool:
        """Whether lanes should take these in turns: what a piece needs to know is found out by the one before it."""
        return self.piece is not None

    @property
    def _to_read(self) -> Bool:
        to_read: Bool = (self.fresh.kinds == Kind.FILE) & ~self.fresh.same_as
        return to_read

    @property
    def nbytes(self) -> int:
        """Bytes of content to read, as far as the scan knows."""
        return self.piece.length if self.piece is not None else int(self.fresh.stat["size"][self._to_read].sum())


def _stream_of(table: pa.Table) -> pa.Buffer:
    from pyarrow import BufferOutputStream, ipc  # with the table it is loaded already

    stream = BufferOutputStream()
    with ipc.new_stream(stream, table.schema) as writer:
        writer.write_table(table)
    return stream.getvalue()


def _table_of(stream: pa.Buffer) -> pa.Table:
    from pyarrow import ipc

    return ipc.open_stream(stream).read_all()


class _WithBody:
    """What has a body, which is copied if it is to wait; `memory` is what it takes then."""

    __slots__ = ()
    body: memoryview

    @property
    def memory(self) -> int:
        return len(self.body)


def _own(body: memoryview, start: I64, length: I64 | U32, after: int = 0) -> memoryview:
    """A copy of the body as far as anything lies in it, and so many bytes more."""
    end = int((start + length).max()) + after if len(start) else 0
    return memoryview(bytes(body[:end]))


@dataclass(slots=True, eq=False)
class Blocks(_WithBody):
    """Content of the fresh rows: row i lies in ``body[start[i] : start[i] + length[i]]``.

    Of a piece, `start` is where its own bytes begin; up to 63 bytes of the file before it and up to `OVERREAD`
    bytes after it lie around them in the body.
    """

    listing: Listing
    body: memoryview
    start: I64
    length: I64
    after: int = 0  # bytes read past a piece

    def detach(self) -> Blocks:
        return replace(self, body=_own(self.body, self.start, self.length, self.after))

    @property
    def nbytes(self) -> int:
        """Bytes of content."""
        return int(self.length.sum())


@dataclass(slots=True, eq=False)
class Chunked(_WithBody):
    """m chunks in row order, back to back within a row: chunk j is ``body[start[j] : start[j] + length[j]]``."""

    listing: Listing
    body: memoryview
    row: I32
    start: I64
    length: U32

    def detach(self) -> Chunked:
        return replace(self, body=_own(self.body, self.start, self.length))

    @property
    def nbytes(self) -> int:
        """Bytes of content."""
        return int(self.length.sum(dtype=np.int64))


@dataclass(slots=True, eq=False)
class Hashed(_WithBody):
    """`Chunked` with the id of each chunk: ``ids`` is uint8[m, 32]."""

    listing: Listing
    body: memoryview
    row: I32
    start: I64
    length: U32
    ids: U8

    def detach(self) -> Hashed:
        return replace(self, body=_own(self.body, self.start, self.length))

    @property
    def nbytes(self) -> int:
        """Bytes of content."""
        return int(self.length.sum(dtype=np.int64))


@dataclass(slots=True, eq=False)
class Claimed(_WithBody):
    """`Hashed` with the answer of the index: chunk j is ours to store where ``mine[j]``."""

    listing: Listing
    body: memoryview
    row: I32
    start: I64
    length: U32
    ids: U8
    mine: Bool

    def detach(self) -> Claimed:  # nobody asks for bytes that others store
        return replace(self, body=_own(self.body, self.start[self.mine], self.length[self.mine]))

    @property
    def nbytes(self) -> int:
        """Bytes of content."""
        return int(self.length.sum(dtype=np.int64))


@dataclass(slots=True, eq=False)
class Content:
    """Rows with the chunk list of each: all that is left of a batch once its bytes are in segments."""

    listing: Listing
    row: I32
    length: U32
    ids: U8
    new_bytes: int = 0  # plain bytes this batch claimed


@dataclass(slots=True, eq=False)
class Segment:
    """New chunks compressed as one: chunk j is ``plain[offset[j] : offset[j] + length[j]]``."""

    codec: int
    plain_length: int
    data: bytes | memoryview
    ids: U8
    offset: U32
    length: U32
    plain: memoryview | None = None  # the bytes themselves, while they are in memory: for reading back before upload

    def detach(self) -> Segment:
        plain = None if self.plain is None else memoryview(bytes(self.plain))
        return replace(self, data=bytes(self.data), plain=plain)


@dataclass(slots=True, eq=False)
class Compressed(Generic[R]):
    """Rows whose chunks are in this lane's first `needs` segments, and the segments completed on the way.

    Both may be absent: rows come before the segment that holds their last chunk is complete.
    """

    content: R | None
    segments: list[Segment]
    needs: int = 0

    def detach(self) -> Compressed[R]:
        return replace(self, segments=[segment.detach() for segment in self.segments])

    @property
    def memory(self) -> int:
        return sum(len(segment.data) + len(segment.plain or b"") for segment in self.segments)

    @property
    def nbytes(self) -> int:
        """Bytes of compressed segments."""
        return sum(len(segment.data) for segment in self.segments)


def _nothing() -> None:
    pass


@dataclass(slots=True, eq=False)
class PackBytes:
    """A finished pack, ready to be stored, and what it holds. Once it is stored, or will not be, `release` it."""

    pack_id: bytes
    parts: list[bytes | memoryview]
    size: int
    receipt: Receipt
    release: Callable[[], None] = _nothing  # gives back the memory it lies in

    def detach(self) -> PackBytes:
        whole = b"".join(self.parts)
        self.release()
        return replace(self, parts=[whole], release=_nothing)


@dataclass(slots=True, eq=False)
class Sealed(Generic[R]):
    """As `Compressed`, but the segments are sealed in packs; `sealed` counts this lane's segments in finished packs."""

    content: R | None
    packs: list[PackBytes]
    needs: int = 0
    sealed: int = 0

    def detach(self) -> Sealed[R]:
        return replace(self, packs=[pack.detach() for pack in self.packs])

    @property
    def nbytes(self) -> int:
        """Bytes of finished packs."""
        return sum(pack.size for pack in self.packs)


@dataclass(slots=True, eq=False)
class Receipt:
    """What one stored pack holds: m chunks in k segments. The index is made of these."""

    pack_id: bytes  # 16 bytes
    pack_kind: int  # repository.pack.PackKind
    pack_size: int
    segment_offset: U32  # [k] where each sealed segment begins in the pack
    segment_stored: U32  # [k] its length there
    segment_plain: U32  # [k] its length when opened
    segment_codec: U8  # [k]
    ids: U8  # [m, 32]
    segment: U32  # [m] ordinal of the chunk's segment in the pack
    offset: U32  # [m] where it lies in the opened segment
    length: U32  # [m]
    written: bool = False  # by a write-only machine: others do not rely on it unproved


@dataclass(slots=True, eq=False)
class Stored(Generic[R]):
    """Rows all of whose own chunks are durable in the store, and the receipts of packs stored meanwhile."""

    contents: list[R]
    receipts: list[Receipt]

    @property
    def nbytes(self) -> int:
        """Bytes stored."""
        return sum(receipt.pack_size for receipt in self.receipts)
