"""Segments: every new chunk in exactly one, full ones, raw where compression is in vain."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.batches import Claimed, Compressed, Content, Listing
from model.entries import Fresh, Paths
from repository.codecs import Codec, decompress
from runtime.stage import Context, NeverStop
from stages.compress import Compressor

CONTEXT = Context({}, 0, "test-0#1", NeverStop())
EMPTY = Listing(
    0,
    Fresh(Paths.of([]), np.zeros(0, dtype=[("mode", "<u4")]), np.zeros(0, np.uint32), np.zeros(0, bool)),
    np.zeros(0, np.int32),
)


def claimed(body: bytes, lengths: list[int], mine: list[bool]) -> Claimed:
    length = np.array(lengths, dtype=np.uint32)
    start = np.cumsum(length, dtype=np.int64) - length
    places = zip(start.tolist(), lengths, strict=True)
    names = [body[at : at + size].ljust(32, b"\0")[:28] + at.to_bytes(4, "little") for at, size in places]
    ids = np.frombuffer(b"".join(names), dtype=np.uint8).reshape(-1, 32)
    row = np.zeros(len(lengths), dtype=np.int32)
    return Claimed(EMPTY, memoryview(body), row, start, length, ids, np.array(mine, dtype=bool))


def run(batches: list[Claimed], segment_bytes: int = 4096, codec: Codec = Codec.ZSTD) -> list[Compressed[Content]]:
    """Outputs with what they refer to copied at once, as the next stage has to."""
    stage = Compressor(codec, None, segment_bytes)
    stage.open(CONTEXT)
    outputs = [output.detach() for batch in batches for output in stage.push(batch)]
    return outputs + [output.detach() for output in stage.flush()]


@given(st.lists(st.lists(st.tuples(st.integers(1, 4096), st.booleans()), max_size=12), max_size=6))
def test_every_new_chunk_comes_back_from_exactly_one_segment(shape: list[list[tuple[int, bool]]]) -> None:
    rng = random.Random(1)
    batches: list[Claimed] = []
    expected: dict[bytes, list[bytes]] = {}
    for chunks in shape:
        body = rng.randbytes(sum(size for size, _ in chunks))
        batch = claimed(body, [size for size, _ in chunks], [mine for _, mine in chunks])
        batches.append(batch)
        for number in np.flatnonzero(batch.mine).tolist():
            at, size = int(batch.start[number]), int(batch.length[number])
            expected.setdefault(batch.ids[number].tobytes(), []).append(body[at : at + size])
    found: dict[bytes, list[bytes]] = {}
    made = 0
    for output in run(batches):
        for segment in output.segments:
            made += 1
            plain = decompress(segment.codec, segment.data, segment.plain_length)
            assert len(plain) <= 4096 and bytes(segment.plain or b"") == plain
            assert int(segment.length.sum()) == len(plain)
            for number in range(len(segment.ids)):
                at, size = int(segment.offset[number]), int(segment.length[number])
                found.setdefault(segment.ids[number].tobytes(), []).append(plain[at : at + size])
    for pieces in (*found.values(), *expected.values()):
        pieces.sort()
    assert found == expected


def test_rows_name_the_segments_they_wait_for() -> None:
    outputs = run(
        [
            claimed(bytes(3000), [3000], [True]),
            claimed(bytes(10), [10], [False]),
            claimed(bytes(3000), [1000, 2000], [True, True]),
        ]
    )
    seen, needs = 0, []
    for output in outputs:
        seen += len(output.segments)
        if output.content is not None:
            needs.append((output.needs, seen))
    assert needs == [(1, 0), (0, 0), (2, 1)]
    assert seen == 2


def test_a_whole_batch_of_neighbours_is_compressed_where_it_lies() -> None:
    batch = claimed(bytes(range(256)) * 64, [1024] * 16, [True] * 16)
    stage = Compressor(Codec.ZSTD, None, 4096)
    stage.open(CONTEXT)
    plains = [segment.plain for output in stage.push(batch) for segment in output.segments]
    inside = [plain for plain in plains if plain is not None and plain.obj is batch.body.obj]
    assert len(inside) == 3


@pytest.mark.parametrize("codec", [Codec.ZSTD, Codec.LZ4, Codec.GZIP])
def test_noise_is_stored_raw_and_text_is_not(codec: Codec) -> None:
    noise = random.Random(3).randbytes(1 << 20)
    text = b"a line of a log file, much like the one before\n" * 22310
    outputs = run([claimed(noise, [1 << 20], [True]), claimed(text, [len(text)], [True])], 1 << 20, codec)
    codecs = [segment.codec for output in outputs for segment in output.segments]
    assert codecs[0] == Codec.NONE
    assert set(codecs[1:]) == {codec}
