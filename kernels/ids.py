"""Chunk ids: computing them, and the reference of finding them in a sorted table (``ids.c``)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kernels.buffers import Bytes, bytes_of, check_ranges
from model.entries import I64, U8, U32

U16 = npt.NDArray[np.uint16]

ID_BYTES = 32
_BLOCK = 64  # bytes SHA-256 takes at a time: the length HMAC pads its key to


def hash_chunks(key: bytes | None, body: Bytes, start: I64, length: U32) -> U8:
    """uint8[m, 32]: HMAC-SHA-256 under `key` of each chunk, SHA-256 without a key (unencrypted repositories).

    OpenSSL does the work and lets other threads run during chunks of 2 KiB and more. ValueError if a chunk does not
    lie in the body.
    """
    view = bytes_of(body).data
    check_ranges(start, length, len(view))
    ends = start + length
    chunks = [view[first:end] for first, end in zip(start.tolist(), ends.tolist(), strict=True)]
    digests = [hashlib.sha256(chunk).digest() for chunk in chunks] if key is None else _hmac_all(key, chunks)
    return np.frombuffer(bytearray().join(digests), dtype=np.uint8).reshape(-1, ID_BYTES)


def hmac_pads(key: bytes) -> bytes:
    """The inner and the outer key block of HMAC-SHA-256 (RFC 2104), 64 bytes each."""
    padded = (hashlib.sha256(key).digest() if len(key) > _BLOCK else key).ljust(_BLOCK, b"\0")
    return bytes(byte ^ 0x36 for byte in padded) + bytes(byte ^ 0x5C for byte in padded)


def _hmac_all(key: bytes, chunks: list[memoryview]) -> list[bytes]:
    """HMAC of each chunk. As in RFC 2104, but the two key blocks are hashed once: half the time of `hmac.digest`
    on small chunks."""
    pads = hmac_pads(key)
    inner, outer = hashlib.sha256(pads[:_BLOCK]).copy, hashlib.sha256(pads[_BLOCK:]).copy
    digests = []
    for chunk in chunks:
        message = inner()
        message.update(chunk)
        whole = outer()
        whole.update(message.digest())
        digests.append(whole.digest())
    return digests


def find_ids(table: Bytes, queries: U8) -> I64:
    """int64[m]: the row of each of the ids uint8[m, 32] in `table`, n ids of 32 bytes in sorted order, or -1.

    ValueError unless both hold whole ids.
    """
    rows = bytes_of(table)
    if len(rows) % ID_BYTES or queries.size % ID_BYTES:
        raise ValueError("a table of ids and its queries hold whole ids")
    known = _comparable(rows)
    wanted = _comparable(np.ascontiguousarray(queries).reshape(-1))
    at = np.searchsorted(known, wanted)
    hit = at < len(known)
    hit[hit] = known[at[hit]] == wanted[hit]
    return np.where(hit, at, -1).astype(np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Guide:
    """The filter in front of a sorted table of n ids: says where an id would be, and nearly always if it is not there.

    Ids are evenly spread, so the first 64 bits of one times the number of buckets b, a fixed-point number with 64 bits
    behind the point, gives its bucket; the next 16 bits are its mark. Rows ``starts[k] : starts[k + 1]`` are those of
    bucket k, ``marks[row]`` the mark of each. With `PER_BUCKET` ids in a bucket, one unknown id in 16,384 meets its
    mark by chance and has to be compared.
    """

    starts: U32  # [b + 1]
    marks: U16  # [n]


PER_BUCKET = 4
BUCKETS_STEP = 256  # then ids that begin with another byte are in other buckets: a guide can be made piece by piece


def guide_buckets(rows: int) -> int:
    """How many buckets the guide of a table of so many rows has."""
    return max(1, -(-rows // (PER_BUCKET * BUCKETS_STEP))) * BUCKETS_STEP


def guide_places(ids: U8, buckets: int) -> tuple[U32, U16]:
    """Bucket and mark of each of ``ids[n, 32]``."""
    words = np.ascontiguousarray(ids)[:, :8].copy().view(">u8").ravel().astype(np.uint64)
    low = (words & np.uint64(0xFFFFFFFF)) * np.uint64(buckets) >> np.uint64(32)
    places = (words >> np.uint64(32)) * np.uint64(buckets) + low
    return (places >> np.uint64(32)).astype(np.uint32), (places >> np.uint64(16)).astype(np.uint16)


def find_guided(table: Bytes, guide: Guide, queries: U8) -> I64:
    """As `find_ids`, of a table that has this guide; of equal ids the first is found. What the guide saves is left to
    the compiled kernel. ValueError if it is not the guide of a table as long."""
    if len(guide.starts) < 2 or ID_BYTES * len(guide.marks) != len(bytes_of(table)):
        raise ValueError("not the guide of this table")
    return find_ids(table, queries)


def _comparable(ids: U8) -> npt.NDArray[np.void]:
    """Ids as opaque records, which NumPy orders as whole byte strings (its `S32` would drop trailing zeros)."""
    return ids.view(np.dtype((np.void, ID_BYTES)))
