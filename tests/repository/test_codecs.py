from __future__ import annotations

import struct
import threading
import tracemalloc
import zlib

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from model.errors import ConfigError, Damaged, NewerFormat
from repository.codecs import LEVELS, Codec, by_name, compressor, decompress, decompress_into
from tests.repository.damage import damaged

TEXT = b"".join(b"line %d of some text that compresses\n" % number for number in range(2000))
ALL = list(Codec)


@pytest.mark.parametrize("codec", ALL)
@given(data=st.binary(max_size=2000), repeat=st.integers(1, 50))
def test_every_codec_inverts(codec: Codec, data: bytes, repeat: int) -> None:
    plain = data * repeat
    packed = compressor(codec)(plain)
    assert decompress(codec, packed, len(plain)) == plain
    assert decompress(codec, memoryview(packed), len(plain)) == plain
    out = bytearray(len(plain))
    decompress_into(codec, memoryview(packed), memoryview(out))
    assert out == plain


@pytest.mark.parametrize("codec", ALL)
def test_every_level_inverts(codec: Codec) -> None:
    lowest, _, highest = LEVELS[codec]
    for level in range(lowest, highest + 1):
        compress = compressor(codec, level)
        for view in (TEXT, bytearray(TEXT), memoryview(TEXT)):
            assert decompress(codec, compress(view), len(TEXT)) == TEXT


def test_higher_levels_are_smaller() -> None:
    for codec in (Codec.ZSTD, Codec.LZ4, Codec.GZIP):
        lowest, _, highest = LEVELS[codec]
        assert len(compressor(codec, highest)(TEXT)) < len(compressor(codec, lowest)(TEXT)) < len(TEXT)


def test_compression_is_repeatable() -> None:
    for codec in ALL:
        assert compressor(codec)(TEXT) == compressor(codec)(TEXT)


def test_names_and_levels() -> None:
    assert by_name("zstd") == (Codec.ZSTD, 2)
    assert by_name("gzip", 9) == (Codec.GZIP, 9)
    for name, level in (("brotli", None), ("zstd", 20), ("gzip", 0), ("lz4", -1), ("none", 1)):
        with pytest.raises(ConfigError) as caught:
            by_name(name, level)
        assert caught.value.hint


@pytest.mark.parametrize("codec", [Codec.ZSTD, Codec.LZ4, Codec.GZIP])
@given(data=st.data())
def test_damaged_data_is_damaged_or_gives_the_right_length(codec: Codec, data: st.DataObject) -> None:
    wrong = data.draw(damaged(compressor(codec)(TEXT)))
    try:
        assert len(decompress(codec, wrong, len(TEXT))) == len(TEXT)
    except Damaged:
        pass
    try:
        decompress_into(codec, wrong, memoryview(bytearray(len(TEXT))))
    except Damaged:
        pass


@pytest.mark.parametrize("codec", ALL)
@given(data=st.binary(max_size=200), length=st.integers(0, 5000))
def test_noise_is_damaged_or_gives_the_right_length(codec: Codec, data: bytes, length: int) -> None:
    try:
        assert len(decompress(codec, data, length)) == length
    except Damaged:
        pass


@pytest.mark.parametrize("codec", ALL)
@pytest.mark.parametrize("length", [0, 1, len(TEXT) - 1, len(TEXT) + 1, 100 << 20])
def test_another_length_than_recorded_is_damage(codec: Codec, length: int) -> None:
    with pytest.raises(Damaged):
        decompress(codec, compressor(codec)(TEXT), length)
    with pytest.raises(Damaged):
        decompress_into(codec, compressor(codec)(TEXT), memoryview(bytearray(length)))


def _bomb(codec: Codec) -> bytes:
    return compressor(codec)(bytes(64 << 20))


@pytest.mark.parametrize(
    ("codec", "bomb"),
    [
        (Codec.ZSTD, _bomb(Codec.ZSTD)),
        (Codec.ZSTD, b"\x28\xb5\x2f\xfd" + bytes([0xE0]) + struct.pack("<Q", 1 << 44) + b"\x01\x00\x00"),
        (Codec.GZIP, _bomb(Codec.GZIP)),
        (Codec.LZ4, _bomb(Codec.LZ4)),
    ],
    ids=["zstd", "zstd claiming 16 TiB", "gzip", "lz4"],
)
def test_bombs_do_not_go_off(codec: Codec, bomb: bytes) -> None:
    out = memoryview(bytearray(4 << 20))
    tracemalloc.start()
    try:
        with pytest.raises(Damaged):
            decompress(codec, bomb, len(out))
        with pytest.raises(Damaged):
            decompress_into(codec, bomb, out)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 20 << 20


def test_frames_that_differ_from_ours_are_refused() -> None:
    whole = zstandard.ZstdCompressor().compress(TEXT)
    sizeless = zstandard.ZstdCompressor(write_content_size=False).compress(TEXT)
    half = len(TEXT) // 2
    two = zstandard.ZstdCompressor().compress(TEXT[:half]) + zstandard.ZstdCompressor().compress(TEXT[half:])
    for wrong in (whole + b"x", whole[:-1], sizeless, two, b""):
        with pytest.raises(Damaged):
            decompress(Codec.ZSTD, wrong, len(TEXT))
    packed = zlib.compress(TEXT, wbits=31)
    for wrong in (packed + b"x", packed[:-1], packed + packed, zlib.compress(TEXT)):
        with pytest.raises(Damaged):
            decompress(Codec.GZIP, wrong, len(TEXT))


def test_a_codec_of_the_future_is_newer_not_damaged() -> None:
    with pytest.raises(NewerFormat):
        decompress(9, b"x", 1)
    with pytest.raises(NewerFormat):
        decompress_into(9, b"x", memoryview(bytearray(1)))


def test_threads_do_not_disturb_each_other() -> None:
    failures: list[str] = []

    def work(number: int) -> None:
        plain = bytes([number]) * 3 + TEXT * 5
        compress = compressor(Codec.ZSTD)
        for _ in range(20):
            if decompress(Codec.ZSTD, compress(plain), len(plain)) != plain:
                failures.append(f"thread {number}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
