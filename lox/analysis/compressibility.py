"""How well content compresses: what is stored now by codec and kind of file, and what other levels would make of it.

Samples are compressed as a backup does it, many files together in segments of 4 MiB, but of one kind of file each, so
that the kinds can be told apart; in the store kinds share segments, which helps small files of different kinds less.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import pyarrow as pa

from lox.analysis.contents import Body, Clock
from lox.analysis.lots import Drawn, Lot
from model.entries import I64
from model.errors import UsageError
from repository.codecs import Codec, by_name, compressor
from repository.pack_keys import PackKind
from repository.tables.parts import Progress, silent
from repository.tables.view import View

T = TypeVar("T")

SEGMENT = 4 << 20
KINDS = 12  # kinds of files that are told apart, those with the most bytes
OTHERS = "(others)"
ITEMS_MAX = 4000  # of one kind in the sample
KINDS_MAX = 2000  # followed while files are looked for
CODECS: tuple[tuple[str, int | None], ...] = (
    ("lz4", 0), ("zstd", 1), ("zstd", 2), ("zstd", 3), ("zstd", 6), ("zstd", 9), ("gzip", 6)
)  # fmt: skip
RESAMPLES = 200

_BOUNDED = ("compressed_per_logical", "compressed_per_logical_low", "compressed_per_logical_high")
_MEASURED = (*_BOUNDED, "cpu_seconds_per_gb")
STORED_SCHEMA = pa.schema(
    [("codec", pa.string()), ("segments", pa.int64()), ("unique", pa.int64()), ("stored", pa.int64())]
)
SAMPLE_SCHEMA = pa.schema(
    [("group", pa.string()), ("logical", pa.int64()), ("codec", pa.string()), ("level", pa.int64())]
    + [("sampled", pa.int64()), ("compressed", pa.int64())]
    + [(name, pa.float64()) for name in _MEASURED]
)


def stored_by_codec(view: View) -> pa.Table:
    """Segments of content by codec, in `STORED_SCHEMA`. What is stored raw did not get smaller, or was not to."""
    segments = view.index.segments
    content = view.counted & (view.index.pack_table["kind"][segments.pack] == PackKind.DATA)
    rows = []
    for codec in Codec:
        mine = content & (segments.codec == codec)
        if mine.any():
            plain, stored = (int(column[mine].sum(dtype=np.int64)) for column in (segments.plain, segments.stored))
            rows.append({"codec": codec.name.lower(), "segments": int(mine.sum()), "unique": plain, "stored": stored})
    return pa.Table.from_pylist(rows, schema=STORED_SCHEMA)


def kind_of(path: bytes) -> str:
    """The extension of a file for the eye, in lower case, with its dot; ``(none)`` if it has none."""
    from lox.escape import shown

    name = path.rpartition(b"/")[2]
    stem, dot, extension = name.rpartition(b".")
    return f".{shown(extension).lower()}" if stem and dot and 0 < len(extension) <= 16 else "(none)"


class KindLots(Lot[T], Generic[T]):
    """A sample of each kind of file of at most `limit` bytes each."""

    def __init__(self, limit: int, path_of: Callable[[T], bytes], seed: int = 0) -> None:
        super().__init__(1, seed)
        self._path_of = path_of
        self._each = limit
        self._seed = seed
        self.kinds: dict[str, Lot[T]] = {}

    def offer(self, cluster: bytes, thing: T, size: int, copies: bool = False) -> None:
        """A thing that may be drawn."""
        self.offered += 1
        self.offered_bytes += size
        kind = kind_of(self._path_of(thing))
        if kind not in self.kinds and len(self.kinds) >= KINDS_MAX:
            kind = OTHERS
        if kind not in self.kinds:
            self.kinds[kind] = Lot(self._each, self._seed, ITEMS_MAX)
        self.kinds[kind].offer(self._path_of(thing) + b"\0" + cluster, thing, size)  # copies need not be together

    def largest(self) -> dict[str, tuple[int, list[Drawn[T]]]]:
        """The kinds with the most bytes: their bytes and what was drawn; all others as one."""
        order = sorted(self.kinds, key=lambda kind: (kind == OTHERS, -self.kinds[kind].offered_bytes))
        found = {kind: (self.kinds[kind].offered_bytes, self._drawn(self.kinds[kind])) for kind in order[:KINDS]}
        if rest := [self.kinds[kind] for kind in order[KINDS:]]:
            total, drawn, room = sum(lot.offered_bytes for lot in rest), [], self._each
            for lot in rest:
                share = self._each * lot.offered_bytes / max(total, 1)
                for one in self._drawn(lot):
                    if room <= 0 or share <= 0:
                        break
                    drawn.append(one)
                    share, room = share - one.size, room - one.size
            found[OTHERS] = total, drawn
        return found

    @staticmethod
    def _drawn(lot: Lot[T]) -> list[Drawn[T]]:
        return [one for _, some in lot.rounds() for one in some]


@dataclass(slots=True)
class _Tried:
    """Segments of one kind under one codec: plain and compressed bytes of each, and CPU seconds for all."""

    plain: list[int]
    compressed: list[int]
    seconds: float = 0.0


def compressibility(
    lots: KindLots[T],
    read: Callable[[Sequence[Drawn[T]]], Iterator[Body]],
    codecs: Sequence[tuple[str, int | None]] = CODECS,
    seconds: float | None = None,
    progress: Progress = silent,
    seed: int = 0,
) -> pa.Table:
    """Compress samples of each kind of file with each codec, in `SAMPLE_SCHEMA`; last a row for all kinds together,
    weighted by their bytes. `sampled` and `compressed` are bytes of the sample; between the bounds lie nine of ten
    resamples of segments. CPU seconds are for 10^9 plain bytes in one thread.

    All kinds have their turn, segment by segment, until `seconds` are over: then less of each is compressed, and a kind
    that had no turn yet is in no row. Raises ConfigError for a codec or level there is not,
    UsageError if nothing could be read, and what reading or `progress` raises.
    """
    named = [by_name(name, level) for name, level in codecs]
    functions = [compressor(codec, level) for codec, level in named]
    clock, rng = Clock(seconds), np.random.default_rng(seed)
    kinds = lots.largest()
    results = {kind: [_Tried([], []) for _ in functions] for kind in kinds}
    done, total = 0, sum(one.size for _, drawn in kinds.values() for one in drawn)
    for kind, segment in _in_turns({kind: _segments(read(drawn)) for kind, (_, drawn) in kinds.items()}):
        if done and clock.over:
            break
        progress("compressing samples", done, total)
        _compress(segment, functions, results[kind])
        done += len(segment)
    tried = {kind: (logical, results[kind]) for kind, (logical, _) in kinds.items() if results[kind][0].plain}
    if not tried:
        raise UsageError("nothing could be read of the sample", hint="look at the permissions of the files")
    rows = [
        _row(kind, logical, codec, level, result, rng)
        for kind, (logical, results) in tried.items()
        for (codec, level), result in zip(named, results, strict=True)
    ]
    rows += [_total(rows, codec, level) for codec, level in named]
    return pa.Table.from_pylist(rows, schema=SAMPLE_SCHEMA)


def _in_turns(parts: dict[str, Iterator[bytes]]) -> Iterator[tuple[str, bytes]]:
    """One of each, again and again, until all are at their end."""
    while parts:
        for name in list(parts):
            if (part := next(parts[name], None)) is None:
                del parts[name]
            else:
                yield name, part


def _compress(segment: bytes, functions: Sequence[Callable[[bytes], bytes]], results: Sequence[_Tried]) -> None:
    for result, compress in zip(results, functions, strict=True):
        begin = time.thread_time()
        size = len(compress(segment))
        result.seconds += time.thread_time() - begin
        result.plain.append(len(segment))
        result.compressed.append(min(size, len(segment)))


def _segments(bodies: Iterator[Body]) -> Iterator[bytes]:
    """Content back to back in segments; the last may be short."""
    waiting = bytearray()
    for body in bodies:
        for start, length in zip(body.start.tolist(), body.length.tolist(), strict=True):
            waiting += body.data[start : start + max(0, length)]
            while len(waiting) >= SEGMENT:
                yield bytes(waiting[:SEGMENT])
                del waiting[:SEGMENT]
    if waiting:
        yield bytes(waiting)


def _row(
    kind: str, logical: int, codec: Codec, level: int, tried: _Tried, rng: np.random.Generator
) -> dict[str, object]:
    plain, compressed = np.array(tried.plain), np.array(tried.compressed)
    picks: I64 = rng.integers(0, len(plain), (RESAMPLES, len(plain)))
    ratios = compressed[picks].sum(axis=1) / plain[picks].sum(axis=1)
    low, high = np.percentile(ratios, (5, 95)).tolist() if len(plain) > 1 else (None, None)
    return {
        "group": kind,
        "logical": logical,
        "codec": codec.name.lower(),
        "level": level,
        "sampled": int(plain.sum()),
        "compressed": int(compressed.sum()),
        "compressed_per_logical": float(compressed.sum() / plain.sum()),
        "compressed_per_logical_low": low,
        "compressed_per_logical_high": high,
        "cpu_seconds_per_gb": tried.seconds / float(plain.sum()) * 1e9,
    }


def _total(rows: list[dict[str, object]], codec: Codec, level: int) -> dict[str, object]:
    """All kinds together: each counts as many times as it has bytes."""
    mine = [row for row in rows if (row["codec"], row["level"]) == (codec.name.lower(), level)]
    weights = np.array([row["logical"] for row in mine], np.float64)
    weights /= weights.sum()

    def mean(name: str) -> float | None:
        values = [row[name] for row in mine]
        return None if None in values else float(weights @ np.array(values, np.float64))

    return {
        "group": "(all)",
        **{name: sum(int(str(row[name])) for row in mine) for name in ("logical", "sampled", "compressed")},
        "codec": codec.name.lower(),
        "level": level,
        **{name: mean(name) for name in _MEASURED},
    }
