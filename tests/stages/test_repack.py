"""From one repository to another: whole segments as they are, chunks of others gathered, nothing said too soon."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.batches import Segment
from model.orders import Moved, Opened
from repository.claims import ClaimTable, StoredIds
from repository.codecs import Codec, compressor, decompress
from repository.index import SegmentTable
from repository.keyring import KeyRing
from runtime.stage import Context, NeverStop
from stages.access import RepositoryAccess
from stages.compress import Gatherer
from stages.locate import locate_chunks
from stages.repack import Repacker, Unpacker

SOURCE, RELATED = KeyRing.of(bytes(32), bytes(16)), KeyRing.of(bytes(32), bytes(16))
STRANGER = KeyRing.of(b"x" * 32, b"y" * 16)


class Known(RepositoryAccess):
    """The keys of a repository, and nothing behind them."""

    def __init__(self, keys: KeyRing) -> None:
        super().__init__(None)
        self.keys = keys

    @property
    def repository(self) -> Known:  # type: ignore[override]
        return self


def opened(chunks: list[list[bytes]], wanted: list[list[bool]], seq: int = 0) -> Opened:
    """An order for some of the chunks of these segments, and the segments."""
    plains = [b"".join(some) for some in chunks]
    data = [compressor(Codec.ZSTD)(plain) for plain in plains]
    count = len(chunks)
    sizes = np.array([len(each) + 28 for each in data], np.uint32)
    table = SegmentTable(
        np.zeros(count, np.uint32),
        np.arange(count, dtype=np.uint32),
        (np.cumsum(sizes) - sizes).astype(np.uint32),
        sizes,
        np.array([len(plain) for plain in plains], np.uint32),
        np.full(count, Codec.ZSTD, np.uint8),
    )
    rows = [
        (number, sum(map(len, some[:at])), len(chunk), SOURCE.chunk_id(chunk))
        for number, some in enumerate(chunks)
        for at, chunk in enumerate(some)
        if wanted[number][at]
    ]
    ids = np.frombuffer(b"".join(row[3] for row in rows), np.uint8).reshape(-1, 32)
    segment = np.array([row[0] for row in rows], np.int64)
    offset, length = (np.array([row[column] for row in rows], np.uint32) for column in (1, 2))
    (order,) = locate_chunks(table, [b"p" * 16], segment, offset, length, ids, seq)
    return Opened(order, [data[int(number)] for number in order.segment_ordinal], {})


def run(
    items: list[Opened], keys: KeyRing, claims: ClaimTable, **more: bool
) -> tuple[list[Segment], list[tuple[int, Moved]]]:
    """The segments in order, and what is left of orders with the number of segments it waits for."""
    context = Context({"claims": claims}, 0, "copy-0#1", NeverStop())
    renamed = keys.id_key != SOURCE.id_key
    unpacker = Unpacker(Known(SOURCE), renamed, more.get("verify", False))
    repacker = Repacker(Known(keys), renamed, Codec.ZSTD, None, more.get("anew", False))
    unpacker.open(context)
    repacker.open(context)
    repacker._gatherer = Gatherer(Codec.ZSTD, None, 5000)
    outputs = [
        output.detach() for item in items for unpacked in unpacker.push(item) for output in repacker.push(unpacked)
    ]
    outputs += [output.detach() for output in repacker.flush()]
    segments = [segment for output in outputs for segment in output.segments]
    return segments, [(output.needs, output.content) for output in outputs if output.content is not None]


def held(segments: list[Segment]) -> dict[bytes, bytes]:
    """The chunks in these segments."""
    chunks: dict[bytes, bytes] = {}
    for segment in segments:
        plain = decompress(segment.codec, bytes(segment.data), segment.plain_length)
        for row in range(len(segment.ids)):
            begin = int(segment.offset[row])
            assert segment.ids[row].tobytes() not in chunks, "nothing is stored twice"
            chunks[segment.ids[row].tobytes()] = plain[begin : begin + int(segment.length[row])]
    return chunks


SHAPES = st.lists(  # orders of segments of chunks: size, whether it is wanted; small numbers make equal chunks
    st.lists(st.lists(st.tuples(st.integers(1, 3000), st.booleans()), min_size=1, max_size=5), min_size=1, max_size=3),
    min_size=1,
    max_size=6,
)


@given(SHAPES, st.sampled_from([RELATED, STRANGER]), st.booleans(), st.booleans())
def test_every_wanted_chunk_comes_out_once_before_its_order_is_done(
    shape: list[list[list[tuple[int, bool]]]], keys: KeyRing, verify: bool, anew: bool
) -> None:
    items: list[Opened] = []
    expected: dict[bytes, bytes] = {}
    for segments in shape:
        chunks = [[random.Random(size).randbytes(size) for size, _ in some] for some in segments]
        wanted = [[flag for _, flag in some] for some in segments]
        if not any(map(any, wanted)):
            wanted[0][0] = True
        items.append(opened(chunks, wanted, len(items)))
        expected |= {
            keys.chunk_id(chunk): chunk
            for some, flags in zip(chunks, wanted, strict=True)
            for chunk, flag in zip(some, flags, strict=True)
            if flag
        }
    segments_out, moved = run(items, keys, ClaimTable(StoredIds()), verify=verify or anew, anew=anew)
    assert held(segments_out) == expected
    assert sorted(each.seq for _, each in moved) == list(range(len(items)))
    seen: set[bytes] = set()
    for item in items:
        needs, each = next(pair for pair in moved if pair[1].seq == item.order.seq)
        before = held(segments_out[:needs])
        names = [keys.chunk_id(_chunk(item, row)) for row in range(len(item.order.ids))]
        mine = [name for name in dict.fromkeys(names) if name not in seen]
        assert each.chunks == len(mine) and set(mine) <= before.keys()
        seen |= set(mine)
        if keys is STRANGER:
            assert [new.tobytes() for new in each.new] == names
            assert each.old.tobytes() == item.order.ids.tobytes()


def _chunk(item: Opened, row: int) -> bytes:
    order = item.order
    number = int(order.chunk_segment[row])
    plain = decompress(Codec.ZSTD, bytes(item.data[number]), int(order.segment_plain[number]))
    begin = int(order.chunk_offset[row])
    return plain[begin : begin + int(order.chunk_length[row])]


CHUNKS = [[random.Random(seed).randbytes(900) for seed in range(4)], [random.Random(9).randbytes(500)]]


def test_a_whole_segment_is_not_touched() -> None:
    item = opened(CHUNKS, [[True] * 4, [True]])
    segments, ((needs, moved),) = run([item], RELATED, ClaimTable(StoredIds()))
    assert [bytes(segment.data) for segment in segments] == [bytes(data) for data in item.data]
    assert (needs, moved.copied, moved.repacked, moved.decompressed) == (2, 2, 0, 0)
    segments, ((_, moved),) = run([item], STRANGER, ClaimTable(StoredIds()))
    assert [bytes(segment.data) for segment in segments] == [bytes(data) for data in item.data]
    assert (moved.copied, moved.repacked, moved.decompressed) == (2, 0, 2)


def test_what_the_target_has_is_left_out() -> None:
    stored = StoredIds()
    stored.add(np.frombuffer(RELATED.chunk_id(CHUNKS[0][1]), np.uint8).reshape(1, 32))
    segments, ((_, moved),) = run([opened(CHUNKS, [[True] * 4, [True]])], RELATED, ClaimTable(stored))
    assert held(segments).keys() == {
        RELATED.chunk_id(chunk) for some in CHUNKS for chunk in some if chunk != CHUNKS[0][1]
    }
    assert (moved.copied, moved.repacked) == (1, 1)
    nothing, ((needs, moved),) = run([opened(CHUNKS[:1], [[False, True, False, False]])], RELATED, ClaimTable(stored))
    assert (nothing, needs, moved.chunks) == ([], 0, 0)


@pytest.mark.parametrize("keys", [RELATED, STRANGER])
def test_a_chunk_that_is_not_what_its_id_says_is_left_out_and_told(keys: KeyRing) -> None:
    item = opened(CHUNKS, [[True] * 4, [True]])
    ids = item.order.ids.copy()
    ids[1, 0] ^= 1
    item.order.ids = ids
    segments, ((_, moved),) = run([item], keys, ClaimTable(StoredIds()), verify=True)
    assert held(segments).keys() == {keys.chunk_id(chunk) for some in CHUNKS for chunk in some if chunk != CHUNKS[0][1]}
    assert moved.trouble == {0: "a chunk is not what its id says"}


def test_a_segment_that_does_not_decompress_is_told_and_the_others_go_on() -> None:
    item = opened(CHUNKS, [[True, True, True, False], [True]])
    item.data[0] = b"\0" * 100
    segments, ((_, moved),) = run([item], RELATED, ClaimTable(StoredIds()))
    assert held(segments).keys() == {RELATED.chunk_id(CHUNKS[1][0])}
    assert list(moved.trouble) == [0]
