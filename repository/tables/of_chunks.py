"""The tables of chunks and packs, made of the index and of what the store lists."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from model.entries import I64, U32, Bool
from repository.entry_table import id_array
from repository.index_table import IndexTable
from repository.pack_keys import PackKind
from repository.tables.of_entries import words
from repository.tables.parts import Parts, Progress, silent
from repository.tables.schemas import CHUNKS, PACK_ID, PACKS
from repository.tables.view import View

WINDOW = 1 << 16  # chunks of a batch

F64 = npt.NDArray[np.float64]
_KINDS = {PackKind.DATA: 0, PackKind.META: 1}
KIND_WORDS = ["data", "meta"]


@dataclass(slots=True, eq=False)
class Window:
    """Some chunks of the index. `start` is the number of the first (see `View.rows_of`), `segment` rows of all of the
    index. `stored` is the part of each in its sealed segment, in bytes; 0 where its pack does not count."""

    start: int
    table: IndexTable
    rows: slice
    segment: I64
    length: U32
    counted: Bool
    stored: F64


def windows(view: View, rows: int = WINDOW) -> Iterator[Window]:
    """All chunks of the index, `rows` at a time: what takes memory here does not grow with them."""
    plain = plain_bytes(view)
    segments = view.index.segments
    base = 0
    for table, start in zip(view.index.tables, view.bases.tolist(), strict=False):
        for at in range(0, len(table), rows):
            some = slice(at, min(at + rows, len(table)))
            segment = table.segment[some].astype(np.int64) + base
            counted = view.counted[segment]
            share = table.length[some] / np.maximum(plain[segment], 1)
            stored = np.where(counted, share * segments.stored[segment], 0.0)
            yield Window(start + at, table, some, segment, table.length[some], counted, stored)
        base += len(table.segments)


def plain_bytes(view: View) -> I64:
    """Of each segment, the lengths of its chunks together: what its stored bytes are shared out by."""
    sums = []
    for table in view.index.tables:
        total = np.zeros(len(table.segments), np.int64)
        for at in range(0, len(table), WINDOW):
            some = slice(at, at + WINDOW)
            # Exact as floats: a segment has at most 128 MiB.
            total += np.bincount(table.segment[some], table.length[some], len(table.segments)).astype(np.int64)
        sums.append(total)
    return np.concatenate([np.zeros(0, np.int64), *sums])


def chunks_reader(view: View) -> pa.RecordBatchReader:
    """All chunks in packs that are in the store, in `CHUNKS`, some thousand at a time."""
    return pa.RecordBatchReader.from_batches(CHUNKS, _chunk_batches(view))


def _chunk_batches(view: View) -> Iterator[pa.RecordBatch]:
    segments, packs = view.index.segments, view.index.pack_table
    kinds = _kind_codes(packs["kind"])
    for window in windows(view):
        here = np.flatnonzero(window.counted)
        if not len(here):
            continue
        ids, segment = window.table.ids[window.rows][here], window.segment[here]
        pack = segments.pack[segment]
        columns = [
            id_array(ids),
            pa.array(window.length[here]),
            _pack_ids(packs["id"][pack]),
            words(kinds[pack], KIND_WORDS),
            pa.array(segments.ordinal[segment]),
            pa.array(window.table.offset[window.rows][here]),
            pa.array(segments.plain[segment]),
            pa.array(segments.stored[segment]),
            pa.array(window.stored[here]),
            pa.array(view.rows_of(ids) == window.start + here),
        ]
        yield pa.RecordBatch.from_arrays(columns, schema=CHUNKS)


def packs_table(view: View, live: bool = True, progress: Progress = silent) -> pa.Table:
    """A row for each pack that is in the store or in the index, in `PACKS`.

    With `live` all manifests are read, those of the trash too, to know what is needed. Raises Damaged if one cannot be.
    """
    index = view.index
    names = list(dict.fromkeys([*index.packs, *view.pack_sizes]))  # a pack may be listed twice
    row_of = {pack: row for row, pack in enumerate(names)}
    at = np.array([row_of[pack] for pack in index.packs], np.int64)
    first = np.unique(at, return_index=True)[1]  # of packs listed twice
    counts = np.zeros((len(names), 3), np.int64)  # segments, stored, plain
    once = np.zeros(len(index.packs), bool)
    once[first] = True
    segments = np.flatnonzero(once[index.segments.pack])
    into = at[index.segments.pack[segments]]
    counts[:, 0] = np.bincount(into, minlength=len(names))
    counts[:, 1] = np.bincount(into, index.segments.stored[segments], len(names))
    counts[:, 2] = np.bincount(into, index.segments.plain[segments], len(names))
    kinds, written = np.full(len(names), -1), np.zeros(len(names), bool)
    kinds[at], written[at] = _kind_codes(index.pack_table["kind"]), index.pack_table["written"] != 0
    sizes = [view.pack_sizes.get(pack) for pack in names]
    columns = [
        pa.array(names, PACK_ID),
        words(kinds, KIND_WORDS),
        pa.array(sizes, pa.int64()),
        pa.array(np.isin(np.arange(len(names)), at)),
        pa.array([pack in view.condemned for pack in names], pa.bool_()),
        pa.array(written),
        *(pa.array(counts[:, column]) for column in range(3)),
        pa.array(_count_chunks(view, once, at, len(names))),
        *_live_columns(view, at, counts[:, 1], progress if live else None),
    ]
    return pa.Table.from_arrays(columns, schema=PACKS)


def _count_chunks(view: View, once: Bool, at: I64, packs: int) -> I64:
    counts = np.zeros(packs, np.int64)
    for window in windows(view):
        pack = view.index.segments.pack[window.segment]
        counts += np.bincount(at[pack[once[pack]]], minlength=packs)
    return counts


def _live_columns(view: View, at: I64, stored: I64, progress: Progress | None) -> Sequence[pa.Array]:
    if progress is None:
        return [pa.nulls(len(stored), PACKS.field(name).type) for name in PACKS.names[-4:]]
    needed = needed_chunks(view, progress)
    chunks, plain = np.zeros(len(stored), np.int64), np.zeros(len(stored), np.int64)
    live = np.zeros(len(stored))
    for window in windows(view):
        rows = np.flatnonzero(needed[window.start : window.start + len(window.length)] & window.counted)
        into = at[view.index.segments.pack[window.segment[rows]]]
        chunks += np.bincount(into, minlength=len(stored))
        plain += np.bincount(into, window.length[rows], len(stored)).astype(np.int64)
        live += np.bincount(into, window.stored[rows], len(stored))
    return [pa.array(chunks), pa.array(plain), pa.array(live), pa.array(np.maximum(stored - live, 0.0))]


def needed_chunks(view: View, progress: Progress = silent) -> Bool:
    """Which chunks of the index some snapshot needs, also one in the trash: a byte each. Raises Damaged."""
    parts = Parts(view, [*view.snapshots, *(one.snapshot for one in view.trash)], progress=progress)
    needed = parts.needed
    for part in parts:
        rows = part.places(view)[1]
        needed[rows[rows >= 0]] = True
    return needed


def _kind_codes(kinds: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    codes = np.full(256, -1)
    for kind, code in _KINDS.items():
        codes[kind] = code
    return codes[kinds]


def _pack_ids(ids: npt.NDArray[np.uint8]) -> pa.Array:
    data = pa.py_buffer(np.ascontiguousarray(ids))
    return pa.Array.from_buffers(PACK_ID, len(ids), [None, data], null_count=0)
