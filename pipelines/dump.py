"""dump: one file's content, or a folder as a tar archive, as a stream."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable, Iterator
from typing import BinaryIO

import numpy as np
import pyarrow as pa

from model.entries import I64, Kind
from model.errors import Damaged, NotFound, UsageError
from repository.cache import default_cache_dir
from repository.fetch import ChunkFetcher
from repository.index import ReadingIndex
from repository.manifest_reader import ManifestReader
from repository.repository import Repository
from repository.snapshot import Snapshot

AHEAD = 64  # chunks fetched at once: some 8 MiB
ZEROS = bytes(1 << 20)
NANOSECONDS = 10**9

OnDamage = Callable[[Damaged], None]  # told of damage that what was asked for could be had in spite of

_TAR_TYPES = {
    Kind.DIRECTORY: tarfile.DIRTYPE,
    Kind.SYMLINK: tarfile.SYMTYPE,
    Kind.FIFO: tarfile.FIFOTYPE,
    Kind.CHAR_DEVICE: tarfile.CHRTYPE,
    Kind.BLOCK_DEVICE: tarfile.BLKTYPE,
}


def dump(
    repository: Repository, snapshot: Snapshot, path: bytes, out: BinaryIO, on_damage: OnDamage = lambda error: None
) -> None:
    """Write the content of the file at `path`; holes come as zeros. Raises NotFound, UsageError, Damaged."""
    source = _Source(repository, snapshot, on_damage)
    entry = source.manifest.find(path)
    if entry is None:
        raise _not_found(snapshot, path)
    kind = Kind(entry["kind"][0].as_py())
    if kind is Kind.DIRECTORY:
        raise UsageError("a folder is dumped as an archive", subject=_display(path), hint="add --archive tar")
    if kind is not Kind.FILE:
        raise UsageError("only files have content", subject=_display(path), why=f"it is a {kind.name.lower()}")
    for data in source.content(entry):
        out.write(data)
    out.flush()


def dump_tar(
    repository: Repository, snapshot: Snapshot, path: bytes, out: BinaryIO, on_damage: OnDamage = lambda error: None
) -> None:
    """Write `path` and all below it as a POSIX (pax) tar archive. Sockets are left out, as tar has none."""
    source = _Source(repository, snapshot, on_damage)
    found = False
    links: dict[tuple[int, int], str] = {}
    with tarfile.open(
        fileobj=out, mode="w|", format=tarfile.PAX_FORMAT, encoding="utf-8", errors="surrogateescape"
    ) as archive:
        for table in source.manifest.subtree(path):
            for row in range(table.num_rows):
                found = True
                _add(archive, source, table.slice(row, 1), links)
    if not found:
        raise _not_found(snapshot, path)
    out.flush()


class _Source:
    """The manifest of a snapshot and the content of its files."""

    def __init__(self, repository: Repository, snapshot: Snapshot, on_damage: OnDamage) -> None:
        self._fetcher = ChunkFetcher(repository, ReadingIndex(repository, default_cache_dir(), on_damage))
        self.manifest = ManifestReader(snapshot.root, self._fetcher.fetch, snapshot.name)

    def content(self, entry: pa.Table) -> Iterator[bytes]:
        """The bytes of a file as a reader of the file would get them."""
        extents = entry["extents"][0].as_py()
        size = entry["size"][0].as_py()
        if extents is None:
            yield from self._stored(entry)
            return
        data = _Joined(self._stored(entry))
        at = 0
        for extent in extents:
            yield from _zeros(extent["offset"] - at)
            yield from data.take(extent["length"])
            at = extent["offset"] + extent["length"]
        yield from _zeros(size - at)

    def _stored(self, entry: pa.Table) -> Iterator[bytes]:
        lists = self.manifest.content(entry)
        ids = [row.tobytes() for row in lists.ids]
        for at in range(0, len(ids), AHEAD):
            yield from self._fetcher.fetch(ids[at : at + AHEAD])


class _Joined:
    """Chunks as one stream."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = b""

    def take(self, length: int) -> Iterator[bytes]:
        while length > 0:
            if not self._rest:
                self._rest = next(self._chunks)
            part, self._rest = self._rest[:length], self._rest[length:]
            length -= len(part)
            yield part


class _Stream(io.RawIOBase):
    """An iterator of bytes as the file object tarfile wants."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._rest = memoryview(chunk)
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size


class _Member(tarfile.TarInfo):
    """A member of an archive whose extended attributes may have names of any bytes; tarfile itself wants UTF-8."""

    @classmethod
    def _create_pax_generic_header(cls, pax_headers: dict[str, str], type: bytes, encoding: str) -> bytes:
        body = b"".join([_pax_record(_bytes(name), _bytes(value)) for name, value in pax_headers.items()])
        if any(map(_is_not_text, pax_headers.values())):
            body = _pax_record(b"hdrcharset", b"BINARY") + body
        head = tarfile.TarInfo("././@PaxHeader")
        head.type, head.size = type, len(body)
        return head.tobuf(tarfile.USTAR_FORMAT, "ascii", "replace") + body + bytes(-len(body) % tarfile.BLOCKSIZE)


def _pax_record(keyword: bytes, value: bytes) -> bytes:
    """``length keyword=value``, where the length counts its own digits."""
    rest = b" " + keyword + b"=" + value + b"\n"
    length = len(rest)
    while length != len(rest) + len(str(length)):
        length = len(rest) + len(str(length))
    return str(length).encode() + rest


def _add(archive: tarfile.TarFile, source: _Source, entry: pa.Table, links: dict[tuple[int, int], str]) -> None:
    row = entry.slice(0, 1).to_pylist()[0]
    kind = Kind(row["kind"])
    name = row["path"].decode("utf-8", "surrogateescape")
    if kind is Kind.SOCKET or kind is Kind.UNKNOWN:
        return
    info = _Member(name)
    info.type = _TAR_TYPES.get(kind, tarfile.REGTYPE)
    info.mode, info.uid, info.gid = row["mode"] & 0o7777, row["uid"], row["gid"]
    info.uname, info.gname = row["user"].decode(errors="replace"), row["group"].decode(errors="replace")
    info.mtime = row["mtime"] // NANOSECONDS
    info.pax_headers = _xattr_headers(row["xattrs"]) | {"mtime": _decimal(row["mtime"])}
    if kind is Kind.SYMLINK:
        info.linkname = row["target"].decode("utf-8", "surrogateescape")
    if kind in (Kind.CHAR_DEVICE, Kind.BLOCK_DEVICE):
        info.devmajor, info.devminor = _major_minor(row["rdev"])
    if row["nlink"] > 1 and kind is not Kind.DIRECTORY:
        first = links.setdefault((row["device"], row["ino"]), name)
        if first != name:
            info.type, info.linkname = tarfile.LNKTYPE, first
            archive.addfile(info)
            return
    if kind is not Kind.FILE:
        archive.addfile(info)
        return
    info.size = _readable_size(entry, row["size"])
    archive.addfile(info, io.BufferedReader(_Stream(source.content(entry)), 1 << 20))


def _readable_size(entry: pa.Table, size: int) -> int:
    """Bytes `content` gives: less than the size where a file could not be read to its end."""
    if entry["extents"][0].as_py() is not None or entry["depth"][0].as_py():
        return size
    lengths: I64 = np.asarray(entry["lengths"][0].as_py(), dtype=np.int64)
    return int(lengths.sum())


def _xattr_headers(xattrs: list[dict[str, bytes]] | None) -> dict[str, str]:
    """Extended attributes as GNU tar and libarchive keep them; an equals sign would end the keyword."""
    names = {pair["name"].replace(b"%", b"%25").replace(b"=", b"%3D"): pair["value"] for pair in xattrs or ()}
    return {"SCHILY.xattr." + _text(name): _text(value) for name, value in names.items()}


def _decimal(nanoseconds: int) -> str:
    """Seconds with all nine digits: a float has not enough of them, and shows small numbers as 1e-09."""
    seconds, rest = divmod(abs(nanoseconds), NANOSECONDS)
    return f"{'-' if nanoseconds < 0 else ''}{seconds}.{rest:09}"


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _is_not_text(text: str) -> bool:
    return any("\ud800" <= letter <= "\udfff" for letter in text)


def _major_minor(rdev: int) -> tuple[int, int]:
    return os.major(rdev), os.minor(rdev)


def _zeros(length: int) -> Iterator[bytes]:
    while length > 0:
        yield ZEROS[:length]
        length -= len(ZEROS)


def _display(path: bytes) -> str:
    return "/" + path.decode("utf-8", "backslashreplace")


def _not_found(snapshot: Snapshot, path: bytes) -> NotFound:
    return NotFound("no such path in the snapshot", subject=_display(path), hint=f"lox ls {snapshot.short_id}")
