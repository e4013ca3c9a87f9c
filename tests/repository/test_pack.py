from __future__ import annotations

import copy
import os
import random
import struct
from dataclasses import replace
from threading import Timer

import numpy as np
import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from model.batches import PackBytes, Receipt, Segment
from model.errors import Damaged, NewerFormat, RunFailed, StoreError
from repository.codecs import Codec, compressor
from repository.footer import FOOTER_PLAIN_MAX, SEGMENT_PLAIN_MAX, decode_footer, encode_footer
from repository.keyring import KeyRing
from repository.pack import HEADER_SIZE, OVERHEAD, PackBuffers, PackKind, PackReader, PackWriter, pack_name
from repository.scrub import verify_pack
from repository.store import MemoryStore
from repository.store.wrappers import RecordingStore
from tests.repository.damage import damaged, every_flip

REPO_ID = bytes(range(16))
SECRET = KeyRing.of(bytes(32), REPO_ID)
OPEN = KeyRing.public(REPO_ID)
BOTH = pytest.mark.parametrize("keys", [SECRET, OPEN], ids=["encrypted", "not encrypted"])
Chunks = list[bytes]


def segment_of(keys: KeyRing, chunks: Chunks, codec: Codec = Codec.ZSTD) -> tuple[Segment, bytes]:
    plain = b"".join(chunks)
    ids = np.frombuffer(b"".join(keys.chunk_id(chunk) for chunk in chunks), np.uint8).reshape(-1, 32)
    length = np.array([len(chunk) for chunk in chunks], np.uint32)
    offset = (np.cumsum(length) - length).astype(np.uint32)
    return Segment(codec, len(plain), compressor(codec)(plain), ids, offset, length), plain


def pack_of(
    keys: KeyRing, segments: list[Chunks], kind: PackKind = PackKind.DATA, codec: Codec = Codec.ZSTD
) -> PackBytes:
    writer = PackWriter(keys, kind)
    for chunks in segments:
        writer.add(*segment_of(keys, chunks, codec))
    return writer.finish()


def bytes_of(pack: PackBytes) -> bytes:
    return b"".join(pack.parts)


def read_all(keys: KeyRing, data: bytes, receipt: Receipt) -> list[bytes]:
    """Every segment of a pack, opened."""
    reader = PackReader(keys)
    opened = reader.open_header(data[:HEADER_SIZE], receipt.pack_id)
    plains = []
    for ordinal in range(len(receipt.segment_offset)):
        begin = int(receipt.segment_offset[ordinal])
        sealed = data[begin : begin + int(receipt.segment_stored[ordinal])]
        codec, length = int(receipt.segment_codec[ordinal]), int(receipt.segment_plain[ordinal])
        plains.append(reader.open_segment(opened, ordinal, codec, length, sealed))
    return plains


def same(one: Receipt, other: Receipt) -> bool:
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in Receipt.__dataclass_fields__)


TEXT = [[b"text of a chunk " * 30, b"another", b""], [b"more text " * 50], [b"x"]]


@BOTH
@given(
    segments=st.lists(st.lists(st.binary(max_size=300), min_size=1, max_size=6).filter(any), max_size=5),
    codec=st.sampled_from(Codec),
    kind=st.sampled_from(PackKind),
)
def test_what_goes_in_comes_out(keys: KeyRing, segments: list[Chunks], codec: Codec, kind: PackKind) -> None:
    pack = pack_of(keys, segments, kind, codec)
    data = bytes_of(pack)
    assert pack.size == len(data) == pack.receipt.pack_size
    store = MemoryStore()
    store.put(pack_name(pack.pack_id), pack.parts)
    receipt = PackReader(keys).read_footer(store, pack.pack_id, pack.size)
    assert same(receipt, pack.receipt)
    assert receipt.pack_kind == kind
    plains = read_all(keys, data, receipt)
    chunks = [chunk for chunks in segments for chunk in chunks]
    for row, chunk in enumerate(chunks):
        begin = int(receipt.offset[row])
        assert plains[receipt.segment[row]][begin : begin + int(receipt.length[row])] == chunk
    assert verify_pack(keys, pack.pack_id, data, pack.receipt).sound


def test_a_pack_is_read_with_few_small_requests() -> None:
    store = RecordingStore(MemoryStore())
    pack = pack_of(SECRET, [[os.urandom(100000)], *TEXT])
    store.put(pack_name(pack.pack_id), pack.parts)
    PackReader(SECRET).read_footer(store, pack.pack_id, pack.size)
    assert len(store.of("get")) == 2
    assert sum(call.nbytes for call in store.of("get")) < 70000


def test_a_footer_longer_than_the_first_read_is_read_whole() -> None:
    store = MemoryStore()
    pack = pack_of(SECRET, [[bytes([high, low]) for high in range(20) for low in range(200)]])
    store.put(pack_name(pack.pack_id), pack.parts)
    assert pack.size > 100000
    assert same(PackReader(SECRET).read_footer(store, pack.pack_id, pack.size), pack.receipt)


def test_nothing_of_the_content_shows() -> None:
    one, two = bytes_of(pack_of(SECRET, TEXT, codec=Codec.NONE)), bytes_of(pack_of(SECRET, TEXT, codec=Codec.NONE))
    assert b"text" not in one
    assert SECRET.chunk_id(TEXT[0][0]) not in one
    assert one[24:40] != two[24:40]
    assert one[HEADER_SIZE + 12 : HEADER_SIZE + 60] != two[HEADER_SIZE + 12 : HEADER_SIZE + 60]


def test_no_nonce_repeats_and_each_names_its_ordinal() -> None:
    pack = pack_of(SECRET, TEXT)
    data = bytes_of(pack)
    nonces = [data[offset : offset + 12] for offset in pack.receipt.segment_offset.tolist()]
    assert [struct.unpack_from("<I", nonce)[0] for nonce in nonces] == [0, 1, 2]
    assert len({nonce[4:] for nonce in nonces}) == 3


def test_a_pack_is_full_at_its_target() -> None:
    writer = PackWriter(SECRET, PackKind.DATA, target=5000)
    while not writer.full:
        writer.add(*segment_of(SECRET, [os.urandom(1000)], Codec.NONE))
    assert writer.segments == 5
    assert writer.size == HEADER_SIZE + 5 * (1000 + OVERHEAD)


def test_a_pack_grows_past_its_target_if_a_segment_does() -> None:
    writer = PackWriter(SECRET, PackKind.DATA, target=1 << 20)
    chunks = [[os.urandom(3 << 20)] for _ in range(4)]
    for chunk in chunks:
        writer.add(*segment_of(SECRET, chunk, Codec.NONE))
    pack = writer.finish()
    assert read_all(SECRET, bytes_of(pack), pack.receipt) == [chunk[0] for chunk in chunks]


def test_buffers_serve_pack_after_pack() -> None:
    buffers = PackBuffers()
    for round_number in range(5):
        chunks = [[os.urandom(1000 * (5 - round_number))] for _ in range(3)]
        writer = PackWriter(SECRET, PackKind.DATA, buffers=buffers)
        for chunk in chunks:
            writer.add(*segment_of(SECRET, chunk))
        pack = writer.finish()
        assert verify_pack(SECRET, pack.pack_id, bytes_of(pack)).sound
        following = PackWriter(SECRET, PackKind.DATA, buffers=buffers)  # a new writer alone spoils nothing
        assert read_all(SECRET, bytes_of(pack), pack.receipt) == [chunk[0] for chunk in chunks]
        assert following.size == HEADER_SIZE
        pack.release()


def test_memory_comes_back_when_a_pack_is_released() -> None:
    buffers = PackBuffers()
    first = buffers.take(1 << 20)
    second = buffers.take(1 << 20)  # the first is still lent
    assert second is not first
    Timer(0.001, buffers.give_back, [first]).start()
    assert buffers.take(1000) is first
    buffers.give_back(first)
    assert buffers.take(3 << 20).nbytes >= 3 << 20


@BOTH
@pytest.mark.parametrize("codec", list(Codec))
def test_a_segment_that_is_not_its_plain_bytes_never_leaves(keys: KeyRing, codec: Codec) -> None:
    chunks = [b"plain bytes " * 100]
    segment, plain = segment_of(keys, chunks, codec)
    flipped = bytearray(plain)
    flipped[700] ^= 1
    for wrong in (flipped, plain[:-1], plain + b"x"):
        with pytest.raises(Damaged) as caught:
            PackWriter(keys, PackKind.DATA).add(segment, wrong)
        assert "segment 0" in caught.value.subject
    broken = replace(segment, data=segment.data[:-1])
    with pytest.raises(Damaged):
        PackWriter(keys, PackKind.DATA).add(broken, plain)


def test_a_pack_is_not_carried_across_a_fork() -> None:
    writer = PackWriter(SECRET, PackKind.DATA)
    child = os.fork()
    if child == 0:
        try:
            writer.add(*segment_of(SECRET, [b"x"]))
        except RunFailed:
            os._exit(7)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_segments_are_bounded() -> None:
    segment = replace(segment_of(SECRET, [b"x"])[0], plain_length=SEGMENT_PLAIN_MAX + 1)
    with pytest.raises(ValueError, match="at most"):
        PackWriter(SECRET, PackKind.DATA).add(segment)


@BOTH
def test_a_segment_opens_only_as_what_it_is(keys: KeyRing) -> None:
    pack = pack_of(keys, [[b"one" * 100], [b"two" * 100]])
    data, receipt = bytes_of(pack), pack.receipt
    reader = PackReader(keys)
    opened = reader.open_header(data[:HEADER_SIZE], pack.pack_id)
    sealed = [data[begin:][:size] for begin, size in zip(receipt.segment_offset, receipt.segment_stored, strict=True)]
    assert reader.open_segment(opened, 0, Codec.ZSTD, 300, sealed[0]) == b"one" * 100
    other = reader.open_header(bytes_of(other_pack := pack_of(keys, TEXT))[:HEADER_SIZE], other_pack.pack_id)
    wrong = [
        (opened, 1, Codec.ZSTD, 300, sealed[0]),
        (opened, 0, Codec.ZSTD, 300, sealed[1]),
        (opened, 0, Codec.NONE, 300, sealed[0]),
        (opened, 0, Codec.ZSTD, 299, sealed[0]),
        (opened, 0, Codec.ZSTD, SEGMENT_PLAIN_MAX + 1, sealed[0]),
        (opened, 0, Codec.ZSTD, 300, sealed[0] + b"x"),
        (opened, 0, Codec.ZSTD, 300, sealed[0][:27]),
        (opened, 0, Codec.ZSTD, 300, b""),
        (other, 0, Codec.ZSTD, 300, sealed[0]),
    ]
    for arguments in wrong:
        with pytest.raises(Damaged) as caught:
            reader.open_segment(*arguments)
        assert pack_name(arguments[0].pack_id) in caught.value.subject


def test_a_pack_key_prints_nothing_secret() -> None:
    pack = pack_of(SECRET, TEXT)
    opened = PackReader(SECRET).open_header(bytes_of(pack)[:HEADER_SIZE], pack.pack_id)
    assert "aead" not in repr(opened)
    with pytest.raises(TypeError):
        copy.deepcopy(opened)


def test_keys_of_data_do_not_open_metadata() -> None:
    half = replace(SECRET, epochs=(replace(SECRET.epochs[0], data_key=bytes(32)),))
    meta, data = pack_of(SECRET, TEXT, PackKind.META), pack_of(SECRET, TEXT, PackKind.DATA)
    assert verify_pack(half, meta.pack_id, bytes_of(meta)).sound
    with pytest.raises(Damaged):
        PackReader(half).open_header(bytes_of(data)[:HEADER_SIZE], data.pack_id)


def test_the_key_of_a_pack_is_committed_to() -> None:
    pack = pack_of(SECRET, TEXT)
    header = bytearray(bytes_of(pack)[:HEADER_SIZE])
    header[40:72] = bytes(32)
    with pytest.raises(Damaged):
        PackReader(SECRET).open_header(_rehashed(header), pack.pack_id)


def _rehashed(header: bytes | bytearray) -> bytes:
    return bytes(header[:-16]) + blake3(bytes(header[:-16])).digest(16)


@BOTH
def test_every_byte_of_a_header_counts(keys: KeyRing) -> None:
    pack = pack_of(keys, TEXT)
    reader = PackReader(keys)
    for wrong in every_flip(bytes_of(pack)[:HEADER_SIZE]):
        with pytest.raises(Damaged):
            reader.open_header(wrong, pack.pack_id)


@BOTH
@given(data=st.data())
def test_forged_headers_do_not_open(keys: KeyRing, data: st.DataObject) -> None:
    pack = pack_of(keys, TEXT)
    header = bytes_of(pack)[:HEADER_SIZE]
    forged = _rehashed(data.draw(damaged(header[:-16]))[: HEADER_SIZE - 16].ljust(HEADER_SIZE - 16, b"\0") + bytes(16))
    reader = PackReader(keys)
    try:
        opened = reader.open_header(forged, pack.pack_id)
    except (Damaged, NewerFormat):
        return
    assert same(reader.open_footer(opened, bytes_of(pack), pack.size), pack.receipt)


def test_a_header_of_a_newer_version_is_newer() -> None:
    pack = pack_of(SECRET, TEXT)
    header = bytearray(bytes_of(pack)[:HEADER_SIZE])
    header[4] = 2
    with pytest.raises(NewerFormat):
        PackReader(SECRET).open_header(_rehashed(header), pack.pack_id)


def test_a_pack_without_encryption_is_refused_by_a_repository_with() -> None:
    for writer, reader in ((OPEN, SECRET), (SECRET, OPEN)):
        pack = pack_of(writer, TEXT)
        with pytest.raises(Damaged):
            PackReader(reader).open_header(bytes_of(pack)[:HEADER_SIZE], pack.pack_id)


@BOTH
def test_a_flipped_byte_anywhere_is_found_and_costs_one_segment(keys: KeyRing) -> None:
    pack = pack_of(keys, TEXT)
    data = bytes_of(pack)
    ends = (pack.receipt.segment_offset + pack.receipt.segment_stored).tolist()
    for at in random.Random(1).sample(range(len(data)), 300):
        verdict = verify_pack(keys, pack.pack_id, data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :], pack.receipt)
        assert not verdict.sound
        if at < HEADER_SIZE:
            assert len(verdict.lost) == 5
        elif at < ends[0]:
            assert verdict.lost == [row.tobytes() for row in pack.receipt.ids[:3]]
        elif at >= ends[-1]:
            assert verdict.lost == []


@BOTH
@settings(max_examples=200)
@given(data=st.data(), with_index=st.booleans())
def test_checking_damage_never_raises(keys: KeyRing, data: st.DataObject, with_index: bool) -> None:
    pack = pack_of(keys, TEXT)
    wrong = data.draw(damaged(bytes_of(pack)))
    verdict = verify_pack(keys, pack.pack_id, wrong, pack.receipt if with_index else None)
    assert not verdict.sound
    store = MemoryStore()
    store.put(pack_name(pack.pack_id), [wrong])
    for size in (len(wrong), pack.size):
        try:
            PackReader(keys).read_footer(store, pack.pack_id, size)
        except (Damaged, NewerFormat):
            pass


@BOTH
def test_forged_trailers_are_bounded(keys: KeyRing) -> None:
    pack = pack_of(keys, TEXT)
    data = bytes_of(pack)
    for plain, stored in [
        (FOOTER_PLAIN_MAX + 1, 100),
        (0xFFFFFFFF, 100),
        (100, 0),
        (100, 0xFFFFFFFF),
        (100, pack.size),
    ]:
        trailer = struct.pack("<4sB3sII", b"LOXT", 1, bytes(3), plain, stored) + bytes(32)
        verdict = verify_pack(keys, pack.pack_id, data[:-48] + trailer)
        assert verdict.receipt is None
        assert len(verdict.problems) == 2


def test_another_pack_under_its_name_is_found() -> None:
    one, two = pack_of(SECRET, TEXT), pack_of(SECRET, TEXT)
    verdict = verify_pack(SECRET, one.pack_id, bytes_of(two), one.receipt)
    assert "another pack" in verdict.problems[0]
    assert len(verdict.lost) == 5


def test_a_chunk_that_is_not_what_its_id_says_is_found() -> None:
    segment, plain = segment_of(SECRET, TEXT[0])
    ids = segment.ids.copy()
    ids[1, 0] ^= 1
    writer = PackWriter(SECRET, PackKind.DATA)
    writer.add(replace(segment, ids=ids), plain)
    pack = writer.finish()
    verdict = verify_pack(SECRET, pack.pack_id, bytes_of(pack))
    assert verdict.lost == [ids[1].tobytes()]


@given(damaged(encode_footer(pack_of(OPEN, TEXT).receipt)))
def test_footers_are_consistent_or_damaged(plain: bytes) -> None:
    try:
        receipt = decode_footer(plain, bytes(16), 1, 5000, "pack")
    except Damaged:
        return
    assert (receipt.offset.astype(int) + receipt.length <= receipt.segment_plain[receipt.segment]).all()
    assert encode_footer(receipt)[:8] == plain[:8]


@pytest.mark.parametrize("counts", [(0xFFFFFFFF, 0xFFFFFFFF), (0, 0xFFFFFFFF), (1, 0), (65537, 0)])
def test_footer_counts_are_checked_before_anything_is_made(counts: tuple[int, int]) -> None:
    with pytest.raises(Damaged):
        decode_footer(struct.pack("<II", *counts), bytes(16), 1, 5000, "pack")


def test_a_pack_that_is_missing_is_a_store_error() -> None:
    with pytest.raises(StoreError):
        PackReader(SECRET).read_footer(MemoryStore(), bytes(16), 1000)
