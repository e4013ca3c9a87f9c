"""locate: where in the store the content of entries lies, as orders; the reverse of scan.

All of a window's chunks are looked up at once, runs that lie side by side become parts, and parts are grouped by the
segment they lie in, so each segment is fetched and opened once for all files it serves.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa

from model.entries import I32, I64, STAT, U8, U32, Bool, Paths, Stats
from model.orders import Order
from repository.entry_table import paths_of
from repository.index import Locations, SegmentTable

ORDER_BYTES = 4 << 20  # stored bytes one order fetches
ORDER_PLAIN = 4 << 20  # plain bytes one order opens to, unless a single segment is larger: what is still in the
# processor's cache when it is written; and zeros compress without end
GAP_BYTES = 128 << 10  # bytes not wanted that are fetched rather than asking twice


class Lookup(Protocol):
    """Where chunks lie: `ChunkIndex`."""

    def lookup(self, ids: U8) -> Locations: ...


@dataclass(slots=True, eq=False)
class Wanted:
    """The files of one window whose content is to be fetched: f files with m chunks in file order."""

    window: int
    rows: I32  # [f] rows of the window
    paths: pa.Array  # binary [f]
    stat: Stats  # STAT[f]
    file: I32  # [m] file of each chunk, ascending
    ids: U8  # [m, 32]
    length: U32  # [m]
    extents: dict[int, I64]


@dataclass(slots=True, eq=False)
class _Parts:
    """Runs of chunks that lie side by side, both in a file and in a segment; sorted by place in the store."""

    segment: I64  # place of the segment: row of the index's segment table
    offset: I64
    length: I64
    file: I32
    at: I64


def missing_files(wanted: Wanted, found: Bool) -> I32:
    """Files with a chunk that the index does not know."""
    files: I32 = np.unique(wanted.file[~found])
    return files


def locate(wanted: Wanted, where: Locations, first_seq: int) -> Iterator[Order]:
    """Orders for everything in `wanted`, in the order it lies in the store. Files with missing chunks are left out."""
    broken = np.zeros(len(wanted.rows), dtype=bool)
    broken[missing_files(wanted, where.found)] = True
    keep = np.flatnonzero(~broken[wanted.file])
    if not len(keep):
        return
    parts, whole = _parts(wanted, where, keep)
    chunks = keep[np.lexsort((where.offset[keep], where.segment[keep]))]
    segments = np.unique(parts.segment)
    table = where.segments.take(segments)
    part_ends = np.searchsorted(parts.segment, segments, side="right")
    chunk_ends = np.searchsorted(where.segment[chunks], segments, side="right")
    seq = first_seq
    for start, end in neighbours(table):
        part = slice(int(part_ends[start - 1]) if start else 0, int(part_ends[end - 1]))
        chunk = chunks[int(chunk_ends[start - 1]) if start else 0 : int(chunk_ends[end - 1])]
        chunk = _distinct(chunk, where)
        files, part_file = np.unique(parts.file[part], return_inverse=True)
        paths = wanted.paths.take(pa.array(files))
        yield Order(
            seq=seq,
            window=wanted.window,
            pack_id=where.packs[int(table.pack[start])],
            segment_ordinal=table.ordinal[start:end],
            segment_offset=table.offset[start:end],
            segment_stored=table.stored[start:end],
            segment_plain=table.plain[start:end],
            segment_codec=table.codec[start:end],
            chunk_segment=np.searchsorted(segments[start:end], where.segment[chunk]).astype(np.int32),
            chunk_offset=where.offset[chunk],
            chunk_length=wanted.length[chunk],
            ids=wanted.ids[chunk],
            part_segment=np.searchsorted(segments[start:end], parts.segment[part]).astype(np.int32),
            part_offset=parts.offset[part].astype(np.uint32),
            part_length=parts.length[part],
            part_file=part_file.astype(np.int32),
            part_at=parts.at[part],
            rows=wanted.rows[files],
            paths=paths_of(paths),
            stat=wanted.stat[files],
            whole=whole[files],
            extents={new: wanted.extents[int(old)] for new, old in enumerate(files) if int(old) in wanted.extents},
        )
        seq += 1


def locate_chunks(
    segments: SegmentTable, packs: Sequence[bytes], segment: I64, offset: U32, length: U32, ids: U8, first_seq: int
) -> Iterator[Order]:
    """Orders for m chunks that belong to no file here, ascending by the row of their segment and the offset in it."""
    rows = np.unique(segment)
    table = segments.take(rows)
    ends = np.searchsorted(segment, rows, side="right")
    nothing, none = np.zeros(0, np.int64), np.zeros(0, np.int32)
    for seq, (start, end) in enumerate(neighbours(table), first_seq):
        chunk = slice(int(ends[start - 1]) if start else 0, int(ends[end - 1]))
        yield Order(
            seq=seq,
            window=0,
            pack_id=packs[int(table.pack[start])],
            segment_ordinal=table.ordinal[start:end],
            segment_offset=table.offset[start:end],
            segment_stored=table.stored[start:end],
            segment_plain=table.plain[start:end],
            segment_codec=table.codec[start:end],
            chunk_segment=np.searchsorted(rows[start:end], segment[chunk]).astype(np.int32),
            chunk_offset=offset[chunk],
            chunk_length=length[chunk],
            ids=ids[chunk],
            part_segment=none,
            part_offset=np.zeros(0, np.uint32),
            part_length=nothing,
            part_file=none,
            part_at=nothing,
            rows=none,
            paths=Paths.of([]),
            stat=np.zeros(0, STAT),
            whole=np.zeros(0, bool),
        )


def _parts(wanted: Wanted, where: Locations, keep: I64) -> tuple[_Parts, Bool]:
    file, length = wanted.file[keep], wanted.length[keep].astype(np.int64)
    segment, offset = where.segment[keep], where.offset[keep].astype(np.int64)
    ends = np.cumsum(length)
    goes_on = (file[1:] == file[:-1]) & (segment[1:] == segment[:-1]) & (offset[1:] == offset[:-1] + length[:-1])
    first = np.concatenate([[0], np.flatnonzero(~goes_on) + 1])
    last = np.concatenate([first[1:], [len(keep)]]) - 1
    begin = ends[first] - length[first]
    opens_file = np.concatenate([[True], file[1:] != file[:-1]])
    file_begin = np.zeros(len(wanted.rows), dtype=np.int64)
    file_begin[file[opens_file]] = (ends - length)[opens_file]
    pieces = np.bincount(file[first], minlength=len(wanted.rows))
    order = np.lexsort((offset[first], segment[first]))
    first, last, begin = first[order], last[order], begin[order]
    parts = _Parts(segment[first], offset[first], ends[last] - begin, file[first], begin - file_begin[file[first]])
    return parts, pieces == 1


def neighbours(table: SegmentTable) -> Iterator[tuple[int, int]]:
    """Ranges of segments to fetch at once: neighbours in a pack, up to `ORDER_BYTES` and `ORDER_PLAIN`."""
    pack, offset, stored = table.pack.tolist(), table.offset.tolist(), table.stored.tolist()
    plain_ends = np.cumsum(table.plain, dtype=np.int64).tolist()
    start, plain_start = 0, 0
    for at in range(1, len(pack) + 1):
        if (
            at == len(pack)
            or pack[at] != pack[start]
            or offset[at] + stored[at] - offset[start] > ORDER_BYTES
            or plain_ends[at] - plain_start > ORDER_PLAIN
            or offset[at] - offset[at - 1] - stored[at - 1] > GAP_BYTES
        ):
            yield start, at
            start, plain_start = at, plain_ends[at - 1]


def _distinct(chunks: I64, where: Locations) -> I64:
    """Each chunk once, though many files may want it; `chunks` are sorted by place."""
    same = (where.segment[chunks[1:]] == where.segment[chunks[:-1]]) & (
        where.offset[chunks[1:]] == where.offset[chunks[:-1]]
    )
    first: I64 = chunks[np.concatenate([[True], ~same])]
    return first
