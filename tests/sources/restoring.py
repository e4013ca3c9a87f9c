"""A snapshot held in memory and a driver in one thread: what tests of the restore side need instead of a repository."""

from __future__ import annotations

import grp
import hashlib
import os
import pwd
import stat
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

import kernels
from model.entries import Kind, Paths, order_key
from model.orders import Joined, Order
from repository.entry_table import ENTRY_SCHEMA
from sources.files.apply import inode_flags
from sources.files.target import Check, RestoreOptions, Target, TargetSummary, WindowPlan, is_simple

CHUNK = 64 << 10
KINDS = {
    stat.S_IFREG: Kind.FILE,
    stat.S_IFDIR: Kind.DIRECTORY,
    stat.S_IFLNK: Kind.SYMLINK,
    stat.S_IFIFO: Kind.FIFO,
    stat.S_IFCHR: Kind.CHAR_DEVICE,
    stat.S_IFBLK: Kind.BLOCK_DEVICE,
    stat.S_IFSOCK: Kind.SOCKET,
}


@dataclass
class Held:
    """Entries and, by path, the content of each file (of a sparse one its data joined)."""

    table: pa.Table
    content: dict[bytes, bytes]

    def changed(self, path: bytes, **columns: Any) -> Held:
        """The same with other values in the row of `path`."""
        rows = self.table.to_pylist()
        for row in rows:
            if row["path"] == path:
                row.update(columns)
        content = {columns.get("path", name) if name == path else name: data for name, data in self.content.items()}
        return Held(pa.Table.from_pylist(rows, ENTRY_SCHEMA), content)

    def only(self, *paths: bytes) -> Held:
        """The rows of these paths."""
        rows = [row for row in self.table.to_pylist() if row["path"] in paths]
        return Held(pa.Table.from_pylist(rows, ENTRY_SCHEMA), self.content)


def row_of(path: bytes, content: bytes = b"", **columns: Any) -> dict[str, Any]:
    """A row of the manifest: by default a file 0644 of ours."""
    chunks = [content[at : at + CHUNK] for at in range(0, len(content), CHUNK)]
    row: dict[str, Any] = {
        "path": path,
        "kind": Kind.FILE,
        "mode": 0o644,
        "uid": os.geteuid(),
        "gid": os.getegid(),
        "user": b"",
        "group": b"",
        "size": len(content),
        "mtime": 10**18,
        "ctime": 10**18,
        "atime": 10**18,
        "ino": int.from_bytes(hashlib.sha256(path).digest()[:4], "little"),
        "device": 0,
        "nlink": 1,
        "rdev": 0,
        "flags": 0,
        "chunks": [hashlib.sha256(chunk).digest() for chunk in chunks],
        "lengths": [len(chunk) for chunk in chunks],
        "depth": 0,
    }
    return {**row, **columns}


def directory(path: bytes, **columns: Any) -> dict[str, Any]:
    return row_of(path, kind=Kind.DIRECTORY, **{"mode": 0o755, **columns})


def held(*rows: tuple[dict[str, Any], bytes] | dict[str, Any]) -> Held:
    """Rows, with their content where they have any, in the order given."""
    pairs = [row if isinstance(row, tuple) else (row, b"") for row in rows]
    content = {row["path"]: data for row, data in pairs}
    return Held(pa.Table.from_pylist([row for row, _ in pairs], ENTRY_SCHEMA), content)


def files(**contents: bytes) -> Held:
    """Plain files in the top."""
    names = sorted(contents)
    return held(*((row_of(name.encode(), contents[name]), contents[name]) for name in names))


def held_tree(root: Path) -> Held:
    """What a backup of `root` would hold, its top included."""
    rows: list[dict[str, Any]] = []
    content: dict[bytes, bytes] = {}
    top = os.fsencode(root)
    for path in sorted(_walk(top), key=order_key):
        row, data = _row_from_disk(top, path)
        rows.append(row)
        content[path] = data
    return Held(pa.Table.from_pylist(rows, ENTRY_SCHEMA), content)


def _walk(top: bytes) -> Iterator[bytes]:
    pending = [b""]
    while pending:
        path = pending.pop()
        yield path
        directory = kernels.open_beneath(_root(top), path, os.O_RDONLY | os.O_DIRECTORY)
        with os.scandir(directory) as entries:
            for entry in entries:
                below = os.path.join(path, os.fsencode(entry.name))
                if entry.is_dir(follow_symlinks=False):
                    pending.append(below)
                else:
                    yield below
        os.close(directory)


_roots: dict[bytes, int] = {}


def _root(top: bytes) -> int:
    if top not in _roots:
        _roots[top] = os.open(top, os.O_RDONLY)
    return _roots[top]


def _row_from_disk(top: bytes, path: bytes) -> tuple[dict[str, Any], bytes]:
    fd = kernels.open_beneath(_root(top), path, os.O_PATH | os.O_NOFOLLOW)
    handle = b"/proc/self/fd/%d" % fd
    found = os.fstat(fd)
    kind = KINDS[stat.S_IFMT(found.st_mode)]
    columns: dict[str, Any] = {
        "kind": kind,
        "mode": found.st_mode,
        "uid": found.st_uid,
        "gid": found.st_gid,
        "user": _named(pwd.getpwuid, found.st_uid),
        "group": _named(grp.getgrgid, found.st_gid),
        "size": found.st_size,
        "mtime": found.st_mtime_ns,
        "atime": found.st_atime_ns,
        "ino": found.st_ino,
        "nlink": found.st_nlink,
        "rdev": found.st_rdev,
        "xattrs": [{"name": os.fsencode(n), "value": os.getxattr(handle, n)} for n in os.listxattr(handle)] or None,
    }
    data = b""
    if kind == Kind.SYMLINK:
        columns["target"] = os.readlink(b"", dir_fd=fd)
    if kind in (Kind.FILE, Kind.DIRECTORY):
        real = os.open(handle, os.O_RDONLY | os.O_NOATIME)
        columns["flags"] = (inode_flags(real) or 0) & kernels.SETTABLE_FLAGS
        if kind == Kind.FILE:
            data = _data(real, found, columns)
        os.close(real)
    os.close(fd)
    return row_of(path, data, **columns), data


def _data(fd: int, found: os.stat_result, columns: dict[str, Any]) -> bytes:
    if found.st_blocks * 512 >= found.st_size:
        return os.pread(fd, found.st_size, 0)
    extents, at, data = [], 0, b""
    while at < found.st_size:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
        except OSError:
            break
        at = os.lseek(fd, start, os.SEEK_HOLE)
        extents.append({"offset": start, "length": at - start})
        data += os.pread(fd, at - start, start)
    columns["extents"] = extents
    return data


def _named(find: Callable[[int], Any], number: int) -> bytes:
    try:
        return str(find(number)[0]).encode()
    except KeyError:
        return b""


def orders_of(plan: WindowPlan, content: dict[bytes, bytes], segment: int = 1 << 20) -> list[Joined]:
    """What lanes would be given for a window: content cut into segments, one order each four of them."""
    rows = plan.fetch.tolist()
    whole = b"".join(content[plan.paths[row]] for row in rows)
    plain = [whole[at : at + segment] for at in range(0, len(whole), segment)]
    parts: list[tuple[int, int, int, int, int]] = []  # segment, offset, length, row, at
    begin = 0
    for row in rows:
        done, length = 0, len(content[plan.paths[row]])
        while done < length:
            number, offset = divmod(begin + done, segment)
            count = min(length - done, segment - offset)
            parts.append((number, offset, count, row, done))
            done += count
        begin += length
    pieces = {row: sum(part[3] == row for part in parts) for row in rows} if len(rows) < 500 else _count(parts)
    return [
        _order(
            plan, seq, plain[first : first + 4], [part for part in parts if first <= part[0] < first + 4], first, pieces
        )
        for seq, first in enumerate(range(0, len(plain), 4))
    ]


def _count(parts: list[tuple[int, int, int, int, int]]) -> dict[int, int]:
    counts: dict[int, int] = {}
    for part in parts:
        counts[part[3]] = counts.get(part[3], 0) + 1
    return counts


def _order(
    plan: WindowPlan,
    seq: int,
    plain: list[bytes],
    parts: list[tuple[int, int, int, int, int]],
    first: int,
    pieces: dict[int, int],
) -> Joined:
    rows = sorted({part[3] for part in parts})
    none = np.zeros(0, dtype=np.uint32)
    order = Order(
        seq=seq,
        window=0,
        pack_id=bytes(16),
        segment_ordinal=none,
        segment_offset=none,
        segment_stored=none,
        segment_plain=none,
        segment_codec=none.astype(np.uint8),
        chunk_segment=none.astype(np.int32),
        chunk_offset=none,
        chunk_length=none,
        ids=np.zeros((0, 32), dtype=np.uint8),
        part_segment=np.array([part[0] - first for part in parts], dtype=np.int32),
        part_offset=np.array([part[1] for part in parts], dtype=np.uint32),
        part_length=np.array([part[2] for part in parts], dtype=np.int64),
        part_file=np.array([rows.index(part[3]) for part in parts], dtype=np.int32),
        part_at=np.array([part[4] for part in parts], dtype=np.int64),
        rows=np.array(rows, dtype=np.int32),
        paths=Paths.of([plan.paths[row] for row in rows]),
        stat=plan.stat[rows],
        whole=np.array([pieces[row] == 1 for row in rows]),
        extents={at: plan.extents[row] for at, row in enumerate(rows) if row in plan.extents},
    )
    return Joined(order, list(plain), np.arange(len(parts), dtype=np.int32), {})


def write_window(target: Target, plan: WindowPlan, content: dict[bytes, bytes], segment: int = 1 << 20) -> None:
    """Bring a window's content as lanes would."""
    for joined in orders_of(plan, content, segment):
        order = joined.order
        target.begin_files(plan, order.rows[~is_simple(order.whole, order.extents)])
        target.accept(plan, target.writer().write_joined(joined))
    target.end_window(plan)


def restore(snapshot: Held, to: Path, *, window: int = 1000, segment: int = 1 << 20, **options: Any) -> TargetSummary:
    """The whole restore, as a driver does it."""
    with Target(os.fsencode(to), RestoreOptions(**options)) as target:
        for start in range(0, snapshot.table.num_rows, window):
            plan = target.prepare(snapshot.table.slice(start, window))
            if not target.options.dry_run:
                write_window(target, plan, snapshot.content, segment)
        return target.finish()


def check_of(target: Target, snapshot: Held) -> Check:
    """What `Target.verify` is asked after a restore of `snapshot`."""
    rows, sizes, extents = target.to_verify(snapshot.table)
    listed = snapshot.table.take(pa.array(rows)).to_pylist()
    return Check(
        rows=rows,
        paths=Paths.of([row["path"] for row in listed]),
        size=sizes,
        file=np.repeat(np.arange(len(listed), dtype=np.int32), [len(row["chunks"]) for row in listed]),
        ids=np.frombuffer(b"".join(b"".join(row["chunks"]) for row in listed), dtype=np.uint8).reshape(-1, 32),
        length=np.array([n for row in listed for n in row["lengths"]], dtype=np.uint32),
        extents=extents,
    )


def differences(left: Path, right: Path) -> str:
    """What rsync would have to do to make `right` equal `left`, in every respect it knows."""
    command = ["rsync", "-aHAXn", "--delete", "--checksum", "--itemize-changes", f"{left}/", f"{right}/"]
    return subprocess.run(command, check=True, capture_output=True, text=True, errors="backslashreplace").stdout
