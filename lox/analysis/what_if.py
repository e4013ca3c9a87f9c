"""What other chunk sizes would give: a sample is cut anew, and what is stored, indexed and asked for is estimated.

Every number that depends on the sample has an interval: twice the standard deviation to both sides. It comes from half
samples drawn again and again (a bootstrap over clusters of files without putting back: putting back would make copies
where there are none), and from what another chunker key would change, for each repository cuts at places of its own.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import pyarrow as pa

import kernels
from kernels import guide_buckets
from lox.analysis.contents import MISSED, Body, Clock
from lox.analysis.estimates import SEGMENT, Estimate
from lox.analysis.history import F64, first_places
from lox.analysis.lots import Drawn, Lot
from lox.analysis.unseen import unseen_total
from model.chunking import KIB, MIB, ChunkerParams
from model.entries import I32, I64, U32, U64, Bool
from model.errors import UsageError
from repository.index import OBJECT_CHUNKS
from repository.index_table import CHUNK_BYTES
from repository.tables.parts import Progress, silent

T = TypeVar("T")

HALVES = 40
LIST_BYTES = 36  # of a chunk in the list of a file
FIXED_OBJECTS = 8  # config, key slots, session, snapshot: a first backup writes about so many beside packs and index
DEFAULTS = (
    ChunkerParams(average=16 * KIB),
    ChunkerParams(average=32 * KIB),
    ChunkerParams(average=64 * KIB),
    ChunkerParams(average=128 * KIB),
    ChunkerParams(average=256 * KIB),
    ChunkerParams(average=1 * MIB),
    ChunkerParams("fixed", average=64 * KIB),
)
_ESTIMATES = ("unique", "chunks", "stored", "index_stored", "index_memory", "lists", "packs", "jumps_per_gib")
WHAT_IF_SCHEMA = pa.schema(
    [("kind", pa.string()), ("minimum", pa.int64()), ("average", pa.int64()), ("maximum", pa.int64())]
    + [("logical", pa.int64())]
    + [(name + end, pa.float64()) for name in ("logical_per_unique", *_ESTIMATES) for end in ("", "_low", "_high")]
    + [("requests", pa.int64())]
)


@dataclass(slots=True)
class WhatIf:
    """`table` in `WHAT_IF_SCHEMA`, a row for each of the parameters; of `logical` bytes in `files` files, of which
    `sampled` bytes were read: the `fraction` of all clusters, which are `clusters`. `copies` are bytes of large files
    that were told to be copies without reading them. `compression` is stored bytes for each plain one."""

    table: pa.Table
    files: int
    logical: int
    sampled: int
    fraction: float
    clusters: int
    copies: int
    compression: Estimate


@dataclass(slots=True)
class _Cuts:
    """The chunks of one set of parameters: first 8 bytes of the id, length, and the thing each belongs to."""

    params: ChunkerParams
    keys: list[U64] = field(default_factory=list)
    lengths: list[U32] = field(default_factory=list)
    items: list[I32] = field(default_factory=list)
    rest: bytes = b""  # of a long thing: what is not cut yet

    def add(self, body: Body, base: int, table: U64) -> None:
        """Cut a body; its things are numbered from `base`."""
        if len(body.items) == 1 and (not body.final or self.rest):
            self._cut_long(body, base, table)
            return
        there = np.flatnonzero(body.length > 0)
        ends, counts = kernels.cut_files(body.data, body.start[there], body.length[there], table, self.params)
        starts = np.empty(len(ends), np.int64)
        starts[1:] = ends[:-1]
        starts[np.cumsum(counts) - counts] = body.start[there]
        self._keep(body.data, starts, ends, np.repeat(body.items[there] + base, counts))

    def _cut_long(self, body: Body, base: int, table: U64) -> None:
        data = self.rest + bytes(body.data)
        candidates = kernels.candidates(data, table, self.params)
        ends = kernels.select(candidates, self.params, 0, len(data), body.final)
        starts = np.concatenate([np.zeros(1, np.int64), ends[:-1]])[: len(ends)]
        self._keep(memoryview(data), starts, ends, np.full(len(ends), body.items[0] + base))
        self.rest = data[int(ends[-1]) if len(ends) else 0 :] if not body.final else b""

    def _keep(self, data: memoryview, starts: I64, ends: I64, items: I64) -> None:
        length = (ends - starts).astype(np.uint32)
        ids = kernels.hash_chunks(None, data, starts, length)
        self.keys.append(np.ascontiguousarray(ids[:, :8]).view(np.uint64).ravel())
        self.lengths.append(length)
        self.items.append(items.astype(np.int32))


def what_if(
    lot: Lot[T],
    files: int,
    read: Callable[[Sequence[Drawn[T]]], Iterator[Body]],
    parameters: Sequence[ChunkerParams] = DEFAULTS,
    seconds: float | None = None,
    pack_bytes: int = 64 << 20,
    compression: Estimate | None = None,
    logical: int | None = None,
    progress: Progress = silent,
    seed: int = 0,
) -> WhatIf:
    """Cut what was drawn in `lot` with each of `parameters`. Stops reading after `seconds`, as soon as
    the first, small round was read; of one that was not read whole nothing is used.

    `compression` is what a plain byte takes in the store; a sample has few neighbours, which compress better together,
    so it is estimated elsewhere (`compression_of`, `stored_now`). `logical` bytes are those the ratio is of: what was
    offered, unless versions that were offered once count several times. Memory: 16 bytes for each chunk of the sample
    and parameters. Raises UsageError if nothing could be read, and what reading or `progress` raises.
    """
    sample = _Sample(read, parameters, seed)
    clock = Clock(seconds)
    fraction, total = 0.0, sum(one.size for _, some in lot.rounds() for one in some)
    for high, some in lot.rounds():
        whole = sample.mark()
        for done in sample.take(some):
            progress("cutting a sample", done, total)
            if clock.over and fraction:
                break
        if clock.over and fraction:  # a round of which a part was read is no sample
            sample.back_to(whole)
            break
        if sample.sizes:
            fraction = high
    if not sample.sizes:
        raise UsageError("nothing could be read of the sample", hint="look at the permissions of the files")
    compression = compression or Estimate(1.0, 0.0)
    offered = Offered(lot.offered, lot.offered_bytes, lot.unread_copies(fraction), lot.left_out)
    of = _Circumstances(fraction, offered, logical, pack_bytes, compression, seed)
    rows = [_row(_Counted(cuts, sample), of) for cuts in sample.cuts]
    table = pa.Table.from_pylist(rows, schema=WHAT_IF_SCHEMA)
    clusters = len(set(sample.places))
    sampled = sum(sample.sizes)
    return WhatIf(table, files, logical or offered.logical, sampled, fraction, clusters, offered.left_out, compression)


class _Sample:
    """What was read: size and place of each thing, and the chunks for each set of parameters."""

    def __init__(self, read: Callable[..., Iterator[Body]], parameters: Sequence[ChunkerParams], seed: int) -> None:
        self.sizes: list[int] = []
        self.places: list[float] = []
        self.cuts = [_Cuts(params) for params in parameters]
        self._read = read
        # A repository has a key of its own, which nobody knows before there is one.
        self._table = kernels.gear_table(seed.to_bytes(32, "big") if seed else os.urandom(32))

    def mark(self) -> tuple[int, ...]:
        """How much there is now; see `back_to`."""
        return len(self.sizes), *(len(cuts.keys) for cuts in self.cuts)

    def back_to(self, mark: tuple[int, ...]) -> None:
        """Forget what came after a mark."""
        del self.sizes[mark[0] :], self.places[mark[0] :]
        for cuts, length in zip(self.cuts, mark[1:], strict=True):
            del cuts.keys[length:], cuts.lengths[length:], cuts.items[length:]
            cuts.rest = b""

    def take(self, drawn: Sequence[Drawn[T]]) -> Iterator[int]:
        """Read and cut; bytes read up to now, after each body."""
        base, done = len(self.sizes), sum(self.sizes)
        self.sizes += [one.size for one in drawn]
        self.places += [one.place for one in drawn]
        with ThreadPoolExecutor(min(len(self.cuts), len(os.sched_getaffinity(0)))) as pool:
            for body in self._read(drawn):
                list(pool.map(lambda cuts, now=body: cuts.add(now, base, self._table), self.cuts))
                for number in body.items[body.length == MISSED].tolist():
                    self.sizes[base + number] = 0  # it could not be read: it is in nobody's way
                done += int(np.maximum(body.length, 0).sum())
                yield done


@dataclass(frozen=True, slots=True)
class Offered:
    """What a sample was drawn from."""

    things: int
    bytes: int
    unread_copies: int = 0  # see `Lot.unread_copies`
    left_out: int = 0  # bytes of copies that were not offered

    @property
    def logical(self) -> int:
        """Bytes of all there is."""
        return self.bytes + self.left_out


@dataclass(frozen=True, slots=True)
class _Circumstances:
    """All that the rows have in common."""

    fraction: float
    offered: Offered
    logical: int | None
    pack_bytes: int
    compression: Estimate
    seed: int


def _row(counted: _Counted, of: _Circumstances) -> dict[str, object]:
    logical, params = of.logical or of.offered.logical, counted.params
    unique, chunks = counted.estimates(of.fraction, of.offered, of.seed)
    stored = unique.times(of.compression.value, of.compression.deviation / of.compression.value)
    many = max(1, round(chunks.value))
    memory = (guide_buckets(many) * 4 + many * 2) / many
    listed = len(counted.length) * counted.scale(of.offered) * of.offered.logical / max(of.offered.bytes, 1)
    lists = Estimate(LIST_BYTES * listed, 0.0)
    estimates = {
        "unique": unique,
        "chunks": chunks,
        "stored": stored,
        "index_stored": chunks.times(CHUNK_BYTES),
        "index_memory": chunks.times(memory),
        "lists": lists,
        "packs": stored.times(1 / of.pack_bytes),
        "jumps_per_gib": counted.jumps(),
    }
    row: dict[str, object] = {"kind": params.kind, "average": params.average, "logical": logical}
    row |= {"minimum": params.minimum, "maximum": params.maximum}
    if params.kind == "fixed":
        row |= {"minimum": params.average, "maximum": params.average}
    for name, one in estimates.items():
        row |= {name: one.value, f"{name}_low": one.low, f"{name}_high": one.high}
    for end, size in (("", unique.value), ("_low", unique.high), ("_high", unique.low)):
        row[f"logical_per_unique{end}"] = logical / max(size, 1)
    row["requests"] = math.ceil(stored.value / of.pack_bytes) + math.ceil(many / OBJECT_CHUNKS) + FIXED_OBJECTS
    return row


class _Counted:
    """The chunks of one set of parameters, numbered by content, and the clusters they occur in."""

    def __init__(self, cuts: _Cuts, sample: _Sample) -> None:
        keys = np.concatenate([np.zeros(0, np.uint64), *cuts.keys])
        self.length: I64 = np.concatenate([np.zeros(0, np.uint32), *cuts.lengths]).astype(np.int64)
        self.item: I64 = np.concatenate([np.zeros(0, np.int32), *cuts.items]).astype(np.int64)
        self.params = cuts.params
        _, cluster_of_item = np.unique(np.array(sample.places), return_inverse=True)
        self._sizes: F64 = np.bincount(cluster_of_item, weights=sample.sizes).astype(np.float64)
        self._things: F64 = np.bincount(cluster_of_item).astype(np.float64)
        cluster = cluster_of_item[self.item]
        first, self.chunk = np.unique(keys, return_index=True, return_inverse=True)[1:]
        self._held = self.length[first]
        # Each chunk once for each cluster.
        code = np.unique(self.chunk.astype(np.int64) * len(self._sizes) + cluster)
        self._pair_chunk, self._pair_cluster = code // len(self._sizes), code % len(self._sizes)

    def scale(self, offered: Offered, clusters: Bool | slice = slice(None)) -> float:
        """How many times the chunks of these clusters all things will have: one for each, and for so many bytes."""
        average = self.params.average
        mine = float(self._things[clusters].sum()) + float(self._sizes[clusters].sum()) / average
        return (offered.things + offered.bytes / average) / max(mine, 1.0)

    def estimates(self, fraction: float, offered: Offered, seed: int) -> tuple[Estimate, Estimate]:
        """Unique bytes and chunks of everything, if the sample was drawn from what was `offered`."""
        rng = np.random.default_rng(seed)
        everyone = np.ones(len(self._sizes), dtype=bool)
        whole = self._totals(everyone, fraction, offered)
        squares = np.zeros(2)
        for _ in range(HALVES if fraction < 1.0 and len(self._sizes) > 1 else 0):
            half = np.zeros(len(self._sizes), dtype=bool)
            half[rng.permutation(len(half))[: max(1, len(half) // 2)]] = True
            squares += (self._totals(half, fraction / 2, offered) - whole) ** 2
        # A half differs from the whole as the whole would from everything, but for the part of it that was drawn.
        sampling = squares / HALVES * (1.0 - fraction)
        keys = self._of_keys() / fraction
        spread = np.sqrt(sampling + keys)
        unread = float(offered.unread_copies)
        chunks = Estimate(whole[1], spread[1], below=unread / max(float(self.length.mean()), 1.0))
        return Estimate(whole[0], spread[0], most=float(offered.bytes), below=unread), chunks

    def _totals(self, clusters: Bool, fraction: float, offered: Offered) -> F64:
        """Unique bytes and chunks of everything, judged by these clusters."""
        mine = clusters[self._pair_cluster]
        chunk = self._pair_chunk[mine]
        seen_in = np.bincount(chunk, minlength=len(self._held))
        there = np.flatnonzero(seen_in)
        seen_in, held = seen_in[there], self._held[there]
        # What all clusters hold is known better than the fraction says: their bytes, and their number, were counted.
        scale = offered.bytes / max(float(self._sizes[clusters].sum()), 1.0)
        unique = unseen_total(held, seen_in, fraction, float((held * seen_in).sum()) * scale)
        many = float(seen_in.sum()) * self.scale(offered, clusters)
        chunks = unseen_total(np.ones(len(held)), seen_in, fraction, many)
        return np.array([unique, chunks])

    def _of_keys(self) -> F64:
        """Variance of unique bytes and chunks of the sample from one chunker key to another: the number of cuts of a
        random length, and around each place where copies end a chunk more or less that is a copy. Chunks of one
        length are cut without a key."""
        if self.params.kind == "fixed":
            return np.zeros(2)
        mean = float(self._held.mean()) if len(self._held) else 1.0
        relative = float(self._held.std()) / mean if len(self._held) else 0.0
        repeated = np.bincount(self.chunk, minlength=len(self._held))[self.chunk] > 1
        same_item = self.item[1:] == self.item[:-1]
        edges = float(np.count_nonzero(same_item & (repeated[1:] != repeated[:-1])))
        return np.array([edges * mean**2, len(self._held) * relative**2 + edges])

    def jumps(self) -> Estimate:
        """How often reading all files in order has to go elsewhere, for each GiB: where a chunk is not stored in the
        segment of the one before it or in the next."""
        new = first_places(self.chunk.astype(np.int64))
        place = np.cumsum(np.where(new, self.length, 0)) - np.where(new, self.length, 0)
        segment: I64 = np.zeros(len(self._held), np.int64)
        segment[self.chunk[new]] = place[new] // SEGMENT
        step = np.diff(segment[self.chunk])
        away = ((step < 0) | (step > 1)).astype(np.float64)
        gib = max(float(self.length.sum()) / 2**30, 1e-9)
        return Estimate(float(away.sum()) / gib, math.sqrt(float(away.sum())) / gib)
