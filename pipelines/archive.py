"""dump --archive tar: a folder of a snapshot as a POSIX (pax) tar archive, as a stream."""

from __future__ import annotations

import io
import os
import struct
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from model.entries import I64, Kind
from pipelines.dump import OnDamage, SnapshotContent, not_found
from repository.repository import Repository
from repository.snapshot import Snapshot

NANOSECONDS = 10**9

_ACLS = {b"system.posix_acl_access": "SCHILY.acl.access", b"system.posix_acl_default": "SCHILY.acl.default"}
_ACL_VERSION = struct.pack("<I", 2)
_ACL_ENTRY = struct.Struct("<HHI")  # tag, permissions, user or group
_ACL_TAGS = {0x01: "user", 0x02: "user", 0x04: "group", 0x08: "group", 0x10: "mask", 0x20: "other"}
_ACL_NAMED = (0x02, 0x08)
_TAR_TYPES = {
    Kind.DIRECTORY: tarfile.DIRTYPE,
    Kind.SYMLINK: tarfile.SYMTYPE,
    Kind.FIFO: tarfile.FIFOTYPE,
    Kind.CHAR_DEVICE: tarfile.CHRTYPE,
    Kind.BLOCK_DEVICE: tarfile.BLKTYPE,
}


def dump_tar(
    repository: Repository,
    snapshot: Snapshot,
    paths: Sequence[bytes],
    out: BinaryIO,
    on_damage: OnDamage = lambda error: None,
) -> None:
    """Write `paths` and all below them as a POSIX (pax) tar archive. Sockets are left out, as tar has none."""
    source = SnapshotContent(repository, snapshot, on_damage)
    with tarfile.open(
        fileobj=out, mode="w|", format=tarfile.PAX_FORMAT, encoding="utf-8", errors="surrogateescape"
    ) as archive:
        members = _Members(archive, source)
        for path in paths:
            members.found = False
            for table in source.manifest.subtree(path):
                for row in range(table.num_rows):
                    members.add(table.slice(row, 1))
            if not members.found:
                raise not_found(snapshot, path)
            members.add_folders()
    out.flush()


@dataclass(slots=True)
class _Members:
    """The members of an archive. A folder is written when its content comes: what extracts the archive takes the next
    member that is not below a folder for a sign that times and permissions of that folder may be set."""

    archive: tarfile.TarFile
    source: SnapshotContent
    found: bool = False
    links: dict[tuple[int, int], str] = field(default_factory=dict)
    folders: list[tuple[bytes, tarfile.TarInfo]] = field(default_factory=list)  # a heap of those not written yet

    def add(self, entry: pa.Table) -> None:
        """Take in one row; they come in manifest order."""
        self.found = True
        row = entry.to_pylist()[0]
        kind = Kind(row["kind"])
        self.add_folders(_key(row["path"].rpartition(b"/")[0]))
        if kind is Kind.SOCKET or kind is Kind.UNKNOWN:
            return
        info = _member(row, kind)
        if kind is Kind.DIRECTORY:
            heappush(self.folders, (_key(row["path"]), info))
            return
        first = self.links.setdefault((row["device"], row["ino"]), info.name) if row["nlink"] > 1 else info.name
        if first != info.name:
            info.type, info.linkname = tarfile.LNKTYPE, first
        if info.type != tarfile.REGTYPE:
            self.archive.addfile(info)
            return
        info.size = _readable_size(entry, row["size"])
        self.archive.addfile(info, io.BufferedReader(_Stream(self.source.content(entry)), 1 << 20))

    def add_folders(self, up_to: bytes | None = None) -> None:
        """Write the folders up to and with this one (None: all that are left)."""
        while self.folders and (up_to is None or self.folders[0][0] <= up_to):
            self.archive.addfile(heappop(self.folders)[1])


def _key(path: bytes) -> bytes:
    """What folders are sorted by, component by component."""
    return path.replace(b"/", b"\0")


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


def _member(row: dict[str, Any], kind: Kind) -> tarfile.TarInfo:
    info = _Member(_text(row["path"]))
    info.type = _TAR_TYPES.get(kind, tarfile.REGTYPE)
    info.mode, info.uid, info.gid = row["mode"] & 0o7777, row["uid"], row["gid"]
    info.uname, info.gname = row["user"].decode(errors="replace"), row["group"].decode(errors="replace")
    info.mtime = row["mtime"] // NANOSECONDS
    info.pax_headers = _xattr_headers(row["xattrs"]) | {"mtime": _decimal(row["mtime"])}
    if kind is Kind.SYMLINK:
        info.linkname = _text(row["target"])
    if kind in (Kind.CHAR_DEVICE, Kind.BLOCK_DEVICE):
        info.devmajor, info.devminor = os.major(row["rdev"]), os.minor(row["rdev"])
    return info


def _readable_size(entry: pa.Table, size: int) -> int:
    """Bytes `content` gives: less than the size where a file could not be read to its end."""
    if entry["extents"][0].as_py() is not None or entry["depth"][0].as_py():
        return size
    lengths: I64 = np.asarray(entry["lengths"][0].as_py(), dtype=np.int64)
    return int(lengths.sum())


def _xattr_headers(xattrs: list[dict[str, bytes]] | None) -> dict[str, str]:
    """Extended attributes as GNU tar and libarchive keep them; an equals sign would end the keyword."""
    headers = {}
    for pair in xattrs or ():
        name, value = pair["name"], pair["value"]
        if name in _ACLS and value.startswith(_ACL_VERSION) and len(value) % _ACL_ENTRY.size == len(_ACL_VERSION):
            headers[_ACLS[name]] = _acl_text(value)
        else:
            headers["SCHILY.xattr." + _text(name.replace(b"%", b"%25").replace(b"=", b"%3D"))] = _text(value)
    return headers


def _acl_text(value: bytes) -> str:
    """An ACL as ``setfacl`` writes it, with numbers for names: ``user::rw-,user:1000:r--,...``"""
    entries = []
    for tag, permissions, number in _ACL_ENTRY.iter_unpack(value[len(_ACL_VERSION) :]):
        who = str(number) if tag in _ACL_NAMED else ""
        bits = "".join(letter if permissions & bit else "-" for letter, bit in (("r", 4), ("w", 2), ("x", 1)))
        entries.append(f"{_ACL_TAGS.get(tag, 'other')}:{who}:{bits}")
    return ",".join(entries)


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
