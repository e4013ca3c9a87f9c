"""Chunk ids: computing them, and the reference of finding them in a sorted table (``ids.c``)."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

from kernels.buffers import Bytes, bytes_of, check_ranges
from model.entries import I64, U8, U32

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


def _comparable(ids: U8) -> npt.NDArray[np.void]:
    """Ids as opaque records, which NumPy orders as whole byte strings (its `S32` would drop trailing zeros)."""
    return ids.view(np.dtype((np.void, ID_BYTES)))
