"""What can still be had from damaged packs: chunks that open and are what their id says."""

from __future__ import annotations

from collections.abc import Iterator, Set

import numpy as np

from model.batches import Receipt
from model.errors import Damaged, Missing, NewerFormat
from repository.footer import PACK_MAX, check_receipt
from repository.pack import HEADER_SIZE, pack_name
from repository.repository import Repository


def readable_chunks(repository: Repository, receipt: Receipt, wanted: Set[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """(id, bytes) of those of the `wanted` chunks that can still be had from a pack, each proved. Raises StoreError."""
    packs = repository.packs
    try:
        data = memoryview(repository.store.get(pack_name(receipt.pack_id), 0, PACK_MAX + 1))
        keys = packs.open_header(bytes(data[:HEADER_SIZE]), receipt.pack_id)
        check_receipt(receipt, pack_name(receipt.pack_id))
    except (Damaged, Missing, NewerFormat):
        return
    for ordinal in range(len(receipt.segment_offset)):
        rows = [
            row for row in np.flatnonzero(receipt.segment == ordinal).tolist() if receipt.ids[row].tobytes() in wanted
        ]
        if not rows:
            continue
        begin, stored = int(receipt.segment_offset[ordinal]), int(receipt.segment_stored[ordinal])
        codec, length = int(receipt.segment_codec[ordinal]), int(receipt.segment_plain[ordinal])
        try:
            plain = packs.open_segment(keys, ordinal, codec, length, data[begin : begin + stored])
        except (Damaged, NewerFormat):
            continue
        for row in rows:
            at, chunk_id = int(receipt.offset[row]), receipt.ids[row].tobytes()
            chunk = plain[at : at + int(receipt.length[row])]
            if repository.keys.chunk_id(chunk) == chunk_id:
                yield chunk_id, chunk
