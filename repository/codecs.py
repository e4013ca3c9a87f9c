"""Compression codecs by their number in the format. Decompression trusts nothing but the length it is told."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable
from enum import IntEnum
from typing import TYPE_CHECKING, TypeVar

import zstandard

from model.errors import ConfigError, Damaged, NewerFormat

if TYPE_CHECKING:
    from repository.store.base import Bytes

WINDOW_MAX = 8 << 20  # bytes of history a zstd frame may ask for; level 19 uses as many

Compressor = Callable[["Bytes"], bytes]
R = TypeVar("R")


class Codec(IntEnum):
    """How segments and sealed objects are compressed. The numbers are part of the repository format."""

    NONE = 0
    ZSTD = 1
    LZ4 = 2
    GZIP = 3


LEVELS = {Codec.NONE: (0, 0, 0), Codec.ZSTD: (-7, 2, 19), Codec.LZ4: (0, 0, 12), Codec.GZIP: (1, 6, 9)}
"""Lowest, default and highest level of each codec."""


def by_name(name: str, level: int | None = None) -> tuple[Codec, int]:
    """The codec the user calls `name`, and the level asked for or its default. Raises ConfigError."""
    try:
        codec = Codec[name.upper()]
    except KeyError:
        raise ConfigError("unknown codec", subject=name, hint="use zstd, lz4, gzip or none") from None
    lowest, default, highest = LEVELS[codec]
    level = default if level is None else level
    if not lowest <= level <= highest:
        raise ConfigError("no such compression level", subject=f"{name} {level}", hint=f"{lowest} to {highest}")
    return codec, level


def compressor(codec: int, level: int | None = None) -> Compressor:
    """A function that compresses one buffer. It holds buffers of its own: one for each thread, never shared.

    Raises ConfigError for a level the codec does not have.
    """
    codec, level = by_name(Codec(codec).name.lower(), level)
    if codec is Codec.ZSTD:
        return zstandard.ZstdCompressor(compression_params=_zstd_parameters(level)).compress
    if codec is Codec.LZ4:
        return _lz4_compressor(level)
    if codec is Codec.GZIP:
        return lambda data: _gzip(data, level)
    return bytes


def decompress(codec: int, data: Bytes, plain_length: int) -> bytes:
    """The `plain_length` bytes that `data` holds, never more. Raises Damaged, NewerFormat."""
    if codec == Codec.NONE:
        plain = bytes(data)
    elif codec == Codec.ZSTD:
        _check_zstd_frame(data, plain_length)
        plain = _guarded(lambda: _decompressors.zstd.decompress(data, read_across_frames=False, allow_extra_data=False))
    elif codec == Codec.LZ4:
        plain = _guarded(lambda: _unlz4(data, plain_length))
    elif codec == Codec.GZIP:
        plain = _guarded(lambda: _gunzip(data, plain_length))
    else:
        raise NewerFormat("compressed with a codec this version does not have", subject=f"codec {codec}")
    if len(plain) != plain_length:
        raise Damaged("compressed data has another length than recorded")
    return plain


def decompress_into(codec: int, data: Bytes, out: memoryview) -> None:
    """Fill `out`, whose length is the plain length, from `data`; zstd writes it in place. Raises as `decompress`."""
    if codec != Codec.ZSTD:
        out[:] = decompress(codec, data, len(out))
        return
    _check_zstd_frame(data, len(out))
    # Given a whole frame and room for all of its content, zstd decodes straight into the output.
    filled = _guarded(lambda: _decompressors.zstd.stream_reader(data, read_size=len(data)).readinto(out) if out else 0)
    if filled != len(out):
        raise Damaged("compressed data has another length than recorded")


class _Decompressors(threading.local):
    """zstandard's objects are not thread-safe: each thread has its own."""

    def __init__(self) -> None:
        self.zstd = zstandard.ZstdDecompressor(max_window_size=WINDOW_MAX)


_decompressors = _Decompressors()


def _check_zstd_frame(data: Bytes, plain_length: int) -> None:
    # zstandard ignores output limits when the frame names its size, so the frame must name the one we know.
    try:
        frame = zstandard.get_frame_parameters(data)
    except zstandard.ZstdError as error:
        raise Damaged("compressed data does not begin with a frame") from error
    if frame.content_size != plain_length:
        raise Damaged("compressed data has another length than recorded")
    if frame.window_size > WINDOW_MAX or frame.dict_id:
        raise Damaged("compressed data asks for more memory than allowed")


def _guarded(decode: Callable[[], R]) -> R:
    try:
        return decode()
    except (zstandard.ZstdError, zlib.error, RuntimeError, ValueError) as error:
        raise Damaged("compressed data does not decode", why=type(error).__name__) from error


def _zstd_parameters(level: int) -> zstandard.ZstdCompressionParameters:
    # What zstd calls level 2 is made for small buffers; with a segment as the window, longer matches and a table that
    # stays in the cache it is an eighth faster both ways (docs/decisions/008).
    tuned = {"window_log": 22, "hash_log": 15, "min_match": 7} if level == LEVELS[Codec.ZSTD][1] else {}
    return zstandard.ZstdCompressionParameters.from_level(
        level, write_content_size=True, write_checksum=False, write_dict_id=False, **tuned
    )


def _lz4_compressor(level: int) -> Compressor:
    import lz4.block

    mode = {"mode": "high_compression", "compression": level} if level else {"mode": "default"}
    return lambda data: bytes(lz4.block.compress(data, store_size=False, **mode))


def _unlz4(data: Bytes, plain_length: int) -> bytes:
    import lz4.block

    try:
        return bytes(lz4.block.decompress(data, uncompressed_size=plain_length))
    except lz4.block.LZ4BlockError as error:  # an Exception of no further kind
        raise ValueError(*error.args) from error


def _gzip(data: Bytes, level: int) -> bytes:
    packer = zlib.compressobj(level, wbits=31)
    return packer.compress(data) + packer.flush()


def _gunzip(data: Bytes, plain_length: int) -> bytes:
    opener = zlib.decompressobj(wbits=31)
    plain = opener.decompress(data, plain_length + 1)
    if not opener.eof or opener.unused_data or opener.unconsumed_tail:
        raise ValueError("incomplete or trailing data")
    return plain
