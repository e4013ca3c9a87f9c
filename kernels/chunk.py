"""Content-defined chunking: the specification, in NumPy. ``chunk*.c`` does the same faster.

The *gear value* at position p (a cut "before byte p") depends on the 64 bytes before p only:

    value(p) = sum of T[byte[p - 1 - j]] << j for j in 0..63, modulo 2**64

A position is a *loose* candidate where its value is below ``params.loose_limit``, *strict* where it is below
``params.strict_limit`` as well. From the last cut, a chunk ends at the first strict candidate with
``minimum <= length < average``, else at the first loose one with ``average <= length < maximum``, else at `maximum`.
So cut points are a pure function of content: ranges of a file can be looked at in parallel (each with 63 bytes of
context), and a file is cut the same by one lane as by many.
"""

from __future__ import annotations

import hashlib
import hmac

import numpy as np

from kernels.buffers import Bytes, bytes_of, check_ranges
from model.chunking import WINDOW, ChunkerParams
from model.entries import I32, I64, U8, U64

PUBLIC_KEY = b"\0" * 32  # chunker key of unencrypted repositories
SPAN = 1 << 20  # positions looked at together: bounds the memory of the reference
POSITION_MAX = 1 << 61
CUTS_MAX = 1 << 26  # that one call may make of a range without candidates: bounds its memory


def gear_table(key: bytes) -> U64:
    """The 256 words of the rolling value for a chunker key: the first eight bytes of HMAC-SHA-256 over the byte."""
    words = [hmac.digest(key, b"lox gear v1" + bytes([byte]), hashlib.sha256)[:8] for byte in range(256)]
    return np.array([int.from_bytes(word, "little") for word in words], dtype=np.uint64)


def candidates(data: Bytes, table: U64, params: ChunkerParams, context: int = 0) -> I64:
    """Loose candidates in ``data[context:]``, in order, each encoded as ``position * 2 + is_strict``.

    Positions count from `context` and lie in ``(0, len(data) - context]``. The first `context` bytes only fill the
    window; 63 are enough. Without them the first 63 positions see a shorter window, and no chunk can end there anyway.
    Fixed chunking has no candidates. ValueError if the context does not lie in the data.
    """
    content = bytes_of(data)
    if not 0 <= context <= len(content):
        raise ValueError("the context must lie in the data")
    _check_table(table)
    if params.kind == "fixed":
        return np.zeros(0, dtype=np.int64)
    parts = [np.zeros(0, dtype=np.int64)]
    for lo in range(context, len(content), SPAN):
        warm = max(0, lo - WINDOW)
        values = _gear_values(content[warm : lo + SPAN], table)[lo - warm :]
        found = np.flatnonzero(values <= _largest(params.loose_limit))
        strict = values[found] <= _largest(params.strict_limit)
        parts.append((found + 1 + lo - context) * 2 + strict)
    return np.concatenate(parts)


def _gear_values(content: U8, table: U64) -> U64:
    """The value after each byte. Windows are doubled: of 1 byte, of 2, ... of 64."""
    values: U64 = table[content]
    for width in (1, 2, 4, 8, 16, 32):
        older = values[:-width] << np.uint64(width)
        values[width:] += older
    return values


def _largest(limit: int) -> np.uint64:
    return np.uint64(min(limit, 1 << 64) - 1)


def _check_table(table: U64) -> None:
    if table.shape != (256,):
        raise ValueError("table must have 256 words")


def select(candidates: I64, params: ChunkerParams, start: int, end: int, final: bool) -> I64:
    """Cut positions after the cut at `start`, given all candidates in ``(start, end]``.

    Candidates are encoded as by `candidates`, in the same coordinates as `start` and `end`, in order. Only cuts that
    more data cannot change are given; with `final` the content ends at `end`, which is then the last cut (unless
    it is `start`). ValueError unless ``0 <= start <= end``, or if the range holds more than 2**26 full chunks.
    """
    if not 0 <= start <= end <= POSITION_MAX:
        raise ValueError("need 0 <= start <= end")
    if (end - start) // _full_length(params) > CUTS_MAX:
        raise ValueError("the range is too long for one call")
    cuts = [start]
    for code in candidates.tolist() if params.kind == "gear" else []:
        position, strict = code >> 1, code & 1
        if not cuts[-1] < position <= end:
            continue
        _fill(cuts, params, position)
        length = position - cuts[-1]
        if length >= params.minimum and (strict or length >= params.average):
            cuts.append(position)
    _fill(cuts, params, end)
    if final and cuts[-1] < end:
        cuts.append(end)
    return np.array(cuts[1:], dtype=np.int64)


def _fill(cuts: list[int], params: ChunkerParams, position: int) -> None:
    """Cuts of the full length, as nothing else ends a chunk before `position`."""
    full = _full_length(params)
    while position - cuts[-1] >= full:
        cuts.append(cuts[-1] + full)


def _full_length(params: ChunkerParams) -> int:
    return params.average if params.kind == "fixed" else params.maximum


def cut_files(body: Bytes, start: I64, length: I64, table: U64, params: ChunkerParams) -> tuple[I64, I32]:
    """Cuts n files, each on its own: file i is ``body[start[i] : start[i] + length[i]]``.

    Returns the ends of all chunks (positions in the body, file after file) and int32[n], how many chunks each file has.
    An empty file has none. ValueError if a file does not lie in the body.
    """
    content = bytes_of(body)
    check_ranges(start, length, len(content))
    _check_table(table)
    # No chunk is shorter than the window, so a value that mixes two files can never be selected.
    found = candidates(content, table, params) if len(length) and length.max() > params.minimum else _NONE
    positions = found >> 1
    ends = [_NONE]
    for first, size in zip(start.tolist(), length.tolist(), strict=True):
        lo, hi = np.searchsorted(positions, [first + params.minimum, first + size])
        ends.append(select(found[lo:hi], params, first, first + size, final=True))
    counts = np.array([len(cuts) for cuts in ends[1:]], dtype=np.int32)
    return np.concatenate(ends), counts


_NONE: I64 = np.zeros(0, dtype=np.int64)
