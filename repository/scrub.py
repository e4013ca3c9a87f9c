"""Everything that can be known about one whole pack: is each byte, segment and chunk what it should be."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from blake3 import blake3

import kernels
from model.batches import Receipt
from model.errors import Damaged, NewerFormat
from repository.footer import PACK_MAX, check_receipt
from repository.keyring import KeyRing
from repository.pack import HEADER_SIZE, PackReader, pack_name
from repository.seal import CHECKSUM_SIZE

if TYPE_CHECKING:
    from repository.repository import Repository


@dataclass(slots=True)
class PackVerdict:
    """`problems` in words, and the chunks that cannot be had from this pack any more."""

    pack_id: bytes
    receipt: Receipt | None = None  # what the footer says, or the one given if the footer is damaged
    problems: list[str] = field(default_factory=list)
    lost: list[bytes] = field(default_factory=list)  # chunk ids
    lost_segments: set[int] = field(default_factory=set)  # ordinals of those that do not open at all
    wrong: list[tuple[int, bytes]] = field(default_factory=list)  # ordinal and id of single chunks
    size: int = 0  # bytes that were read
    newer: NewerFormat | None = None  # the pack may be sound, and only newer than we are

    @property
    def sound(self) -> bool:
        return not self.problems


def check_bytes(pack_id: bytes, data: bytes) -> str:
    """Why the pack's bytes are not those that were written, or "". Needs no key."""
    if len(data) < HEADER_SIZE + CHECKSUM_SIZE:
        return "it is cut off"
    view = memoryview(data)
    if blake3(view[:-CHECKSUM_SIZE]).digest() != view[-CHECKSUM_SIZE:]:
        return "its bytes do not match its checksum"
    return "" if data[24:40] == pack_id else "it is another pack"


def verify_pack(keys: KeyRing, pack_id: bytes, data: bytes, indexed: Receipt | None = None) -> PackVerdict:
    """Open all of a pack and recompute every chunk id. Never raises for damage.

    `indexed` is what the index says about the pack: what readers go by, and so what is looked for in it. Without it
    the pack's own footer says what should be there.
    """
    verdict = PackVerdict(pack_id, indexed)
    if trouble := check_bytes(pack_id, data):
        verdict.problems.append(trouble)
    reader = PackReader(keys)
    try:
        opened = reader.open_header(data[:HEADER_SIZE], pack_id)
    except (Damaged, NewerFormat) as error:
        _blame(verdict, error)
        if indexed is not None:
            verdict.lost = [bytes(row) for row in indexed.ids]
            verdict.lost_segments = set(range(len(indexed.segment_offset)))
        return verdict
    try:
        verdict.receipt = reader.open_footer(opened, data, len(data))
        if indexed is not None and not _same(verdict.receipt, indexed):
            verdict.problems.append("its table is not what the index says")
    except (Damaged, NewerFormat) as error:
        _blame(verdict, error)
    receipt = indexed or verdict.receipt
    if receipt is not None:
        _verify_chunks(keys, reader, data, verdict, receipt)
    return verdict


def verify_stored(repository: Repository, indexed: Receipt) -> PackVerdict:
    """Read a pack whole and verify it against what the index says; one that is not sound is read a second time.

    Raises StoreError.
    """
    name = pack_name(indexed.pack_id)

    def read() -> PackVerdict:
        data = repository.store.get(name, 0, PACK_MAX + 1)
        verdict = verify_pack(repository.keys, indexed.pack_id, data, indexed)
        verdict.size = len(data)
        return verdict

    verdict = read()
    if verdict.sound or verdict.newer is not None:
        return verdict
    verdict = read()
    if verdict.sound:
        repository.rereads.note(name)
    return verdict


def _blame(verdict: PackVerdict, error: Damaged | NewerFormat) -> None:
    verdict.problems.append(str(error))
    if isinstance(error, NewerFormat):
        verdict.newer = error


def _verify_chunks(keys: KeyRing, reader: PackReader, data: bytes, verdict: PackVerdict, receipt: Receipt) -> None:
    try:
        check_receipt(receipt, pack_name(receipt.pack_id))
        opened = reader.open_header(data[:HEADER_SIZE], receipt.pack_id)
    except (Damaged, NewerFormat) as error:
        _blame(verdict, error)
        verdict.lost_segments = set(range(len(receipt.segment_offset)))
        return
    view = memoryview(data)
    for ordinal in range(len(receipt.segment_offset)):
        rows = np.flatnonzero(receipt.segment == ordinal)
        begin, stored = int(receipt.segment_offset[ordinal]), int(receipt.segment_stored[ordinal])
        codec, plain_length = int(receipt.segment_codec[ordinal]), int(receipt.segment_plain[ordinal])
        try:
            plain = reader.open_segment(opened, ordinal, codec, plain_length, view[begin : begin + stored])
        except (Damaged, NewerFormat) as error:
            _blame(verdict, error)
            verdict.lost_segments.add(ordinal)
            verdict.lost += [receipt.ids[row].tobytes() for row in rows]
            continue
        ids = kernels.hash_chunks(keys.id_key, plain, receipt.offset[rows].astype(np.int64), receipt.length[rows])
        for row in rows[np.any(ids != receipt.ids[rows], axis=1)]:
            chunk_id = receipt.ids[row].tobytes()
            verdict.problems.append(f"chunk {chunk_id.hex()} in segment {ordinal} is not what its id says")
            verdict.lost.append(chunk_id)
            verdict.wrong.append((ordinal, chunk_id))


def _same(one: Receipt, other: Receipt) -> bool:
    columns = ("segment_offset", "segment_stored", "segment_plain", "segment_codec", "ids", "segment", "offset")
    same = all(getattr(one, name).tobytes() == getattr(other, name).tobytes() for name in (*columns, "length"))
    return same and one.pack_size == other.pack_size and one.pack_kind == other.pack_kind
