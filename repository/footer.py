"""What a pack holds, as its footer says: a columnar table, parsed with every length checked beforehand."""

from __future__ import annotations

import struct

import numpy as np

from model.batches import Receipt
from model.errors import Damaged

SEGMENTS_MAX = 1 << 16  # segments in a pack
CHUNKS_MAX = 1 << 22  # chunks in a pack
SEGMENT_PLAIN_MAX = 128 << 20  # bytes of an opened segment
PACK_MAX = 1 << 30  # bytes of a pack
FOOTER_PLAIN_MAX = 256 << 20  # bytes of an opened footer

_COUNTS = struct.Struct("<II")
_SEGMENT = np.dtype([("offset", "<u4"), ("stored", "<u4"), ("plain", "<u4"), ("codec", "u1"), ("zero", "u1", 3)])
_CHUNK_SIZE = 32 + 3 * 4
assert _SEGMENT.itemsize == 16


def encode_footer(receipt: Receipt) -> bytes:
    """The footer's bytes: counts, segment records, then the chunk columns one after the other."""
    segments = np.zeros(len(receipt.segment_offset), _SEGMENT)
    segments["offset"] = receipt.segment_offset
    segments["stored"] = receipt.segment_stored
    segments["plain"] = receipt.segment_plain
    segments["codec"] = receipt.segment_codec
    columns = (receipt.segment, receipt.offset, receipt.length)
    return b"".join(
        [
            _COUNTS.pack(len(segments), len(receipt.ids)),
            segments.tobytes(),
            np.ascontiguousarray(receipt.ids, dtype=np.uint8).tobytes(),
            *(column.astype("<u4").tobytes() for column in columns),
        ]
    )


def decode_footer(plain: bytes, pack_id: bytes, pack_kind: int, pack_size: int, subject: str) -> Receipt:
    """The receipt in `plain`, consistent in itself. Raises Damaged naming `subject`."""
    if len(plain) < _COUNTS.size:
        raise _damaged(subject, "too short")
    segment_count, chunk_count = _COUNTS.unpack_from(plain)
    if segment_count > SEGMENTS_MAX or chunk_count > CHUNKS_MAX:
        raise _damaged(subject, "too many records")
    if len(plain) != _COUNTS.size + segment_count * _SEGMENT.itemsize + chunk_count * _CHUNK_SIZE:
        raise _damaged(subject, "its length does not fit its counts")
    segments = np.frombuffer(plain, _SEGMENT, segment_count, _COUNTS.size)
    at = _COUNTS.size + segments.nbytes
    ids = np.frombuffer(plain, np.uint8, chunk_count * 32, at).reshape(chunk_count, 32)
    columns = np.frombuffer(plain, "<u4", chunk_count * 3, at + ids.nbytes).reshape(3, chunk_count)
    receipt = Receipt(
        pack_id=pack_id,
        pack_kind=pack_kind,
        pack_size=pack_size,
        segment_offset=segments["offset"].astype(np.uint32),
        segment_stored=segments["stored"].astype(np.uint32),
        segment_plain=segments["plain"].astype(np.uint32),
        segment_codec=segments["codec"].copy(),
        ids=ids,
        segment=columns[0],
        offset=columns[1],
        length=columns[2],
    )
    check_receipt(receipt, subject)
    return receipt


def check_receipt(receipt: Receipt, subject: str) -> None:
    """Raises Damaged if segments overlap or leave the pack, or chunks leave their segment."""
    begin = receipt.segment_offset.astype(np.int64)
    end = begin + receipt.segment_stored
    if np.any(begin[1:] != end[:-1]) or (len(end) and int(end[-1]) > receipt.pack_size):
        raise _damaged(subject, "its segments do not follow each other within the pack")
    if np.any(receipt.segment_plain > SEGMENT_PLAIN_MAX):
        raise _damaged(subject, f"a segment is larger than {SEGMENT_PLAIN_MAX} bytes")
    if np.any(receipt.segment >= len(begin)):
        raise _damaged(subject, "a chunk lies in no segment")
    if np.any(receipt.offset.astype(np.int64) + receipt.length > receipt.segment_plain[receipt.segment]):
        raise _damaged(subject, "a chunk leaves its segment")


def _damaged(subject: str, why: str) -> Damaged:
    return Damaged("the table of the pack is not valid", subject=subject, why=why)
