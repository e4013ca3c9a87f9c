"""dump --archive zip: files and folders of a snapshot as a ZIP archive, as a stream, for those whose systems want one.

A ZIP keeps content, modes and times to two seconds; owners, attributes, devices and hard links it does not. The tar of
`pipelines.archive` keeps all.
"""

from __future__ import annotations

import stat
import zipfile
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, BinaryIO

from model.entries import Kind
from model.names import shown
from pipelines.archive import NANOSECONDS
from pipelines.dump import OnDamage, SnapshotContent, not_found
from repository.repository import Repository
from repository.snapshot import Snapshot

LEVEL = 1  # of deflate: the line is slower than this
_EARLIEST, _LATEST = (1980, 1, 1, 0, 0, 0), (2107, 12, 31, 23, 59, 58)
_UNIX = 3


def dump_zip(
    repository: Repository,
    snapshot: Snapshot,
    paths: Sequence[bytes],
    out: BinaryIO,
    on_damage: OnDamage = lambda error: None,
) -> None:
    """Write `paths` and all below them as a ZIP archive, without devices and sockets. Raises NotFound."""
    source = SnapshotContent(repository, snapshot, on_damage)
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=LEVEL) as archive:
        for path in paths:
            found = False
            for table in source.manifest.subtree(path):
                for row in range(table.num_rows):
                    found = True
                    _add(archive, source, table.slice(row, 1))
            if not found:
                raise not_found(snapshot, path)
    out.flush()


def _add(archive: zipfile.ZipFile, source: SnapshotContent, entry: Any) -> None:
    row = entry.to_pylist()[0]
    kind = Kind(row["kind"])
    if kind not in (Kind.FILE, Kind.DIRECTORY, Kind.SYMLINK) or not row["path"]:
        return
    name = shown(row["path"]) + ("/" if kind is Kind.DIRECTORY else "")
    info = zipfile.ZipInfo(name, _time(row["mtime"]))
    info.create_system = _UNIX
    formats = {Kind.FILE: stat.S_IFREG, Kind.DIRECTORY: stat.S_IFDIR, Kind.SYMLINK: stat.S_IFLNK}
    info.external_attr = (formats[kind] | row["mode"] & 0o777) << 16
    if kind is Kind.DIRECTORY:
        archive.writestr(info, b"")
    elif kind is Kind.SYMLINK:
        archive.writestr(info, row["target"])
    else:
        info.compress_type = zipfile.ZIP_DEFLATED
        with archive.open(info, "w", force_zip64=True) as member:
            for data in source.content(entry):
                member.write(data)


def _time(nanoseconds: int) -> tuple[int, int, int, int, int, int]:
    try:
        found = datetime.fromtimestamp(nanoseconds // NANOSECONDS, UTC)
    except (ValueError, OverflowError, OSError):
        return _EARLIEST
    parts = (found.year, found.month, found.day, found.hour, found.minute, found.second)
    return min(max(parts, _EARLIEST), _LATEST)
