"""Questions about snapshots: what is in a folder, where a name occurs, what a repository holds."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from model.entries import Kind
from model.errors import NotFound, UsageError
from repository.entry_table import column, content_sizes
from repository.index import ChunkIndex
from repository.index_table import INDEX_PREFIX
from repository.manifest_reader import ManifestReader
from repository.pack_keys import PackKind
from repository.repository import Repository
from repository.snapshot import SNAPSHOT_PREFIX, Snapshot

_FIELDS = ["path", "kind", "mode", "uid", "gid", "user", "group", "size", "mtime", "nlink", "rdev", "target", "problem"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of a manifest for display; times are ns since the epoch, sizes bytes."""

    path: bytes
    kind: Kind
    mode: int
    uid: int
    gid: int
    user: bytes
    group: bytes
    size: int
    mtime: int
    nlink: int
    rdev: int
    target: bytes | None
    problem: bytes | None


def entries(table: pa.Table) -> Iterator[Entry]:
    """The rows of a table of entries, one by one."""
    columns = [table[name].to_pylist() for name in _FIELDS]
    columns[1] = [Kind(number) for number in columns[1]]
    return (Entry(*row) for row in zip(*columns, strict=True))


def ls(reader: ManifestReader, path: bytes = b"", recursive: bool = False) -> Iterator[Entry]:
    """What is in the folder `path`, or the entry there if it is none; with `recursive` all below it too.

    In manifest order: all of a folder, then what is in its folders. Raises NotFound.
    """
    path = path.strip(b"/")
    found = reader.find(path) if path else None
    if path and found is None:
        raise NotFound("no such path in the snapshot", subject=path.decode(errors="replace"), hint="lox find searches")
    if found is not None and column(found, "kind")[0] != Kind.DIRECTORY:
        yield from entries(found)
        return
    for table in reader.subtree(path) if recursive else reader.children(path):
        yield from (entry for entry in entries(table) if entry.path != path)


def matcher(patterns: Iterable[bytes]) -> re.Pattern[bytes]:
    """A regular expression for shell patterns: without a slash they mean names, with one whole paths.

    ``*``, ``?`` and ``[...]`` stop at slashes, ``**`` does not; ``/**/`` is any number of folders, also none. Raises
    UsageError.
    """
    try:
        return re.compile(b"|".join(b"(?:%s)" % _regex(pattern) for pattern in patterns) or rb"(?!)", re.DOTALL)
    except re.error as error:
        raise UsageError(
            "not a pattern", subject=b" ".join(patterns).decode(errors="replace"), why=str(error)
        ) from error


def _regex(pattern: bytes) -> bytes:
    anywhere = b"/" not in pattern
    pieces = pattern.strip(b"/").split(b"**")
    body = _piece(pieces[0])
    for before, piece in pairwise(pieces):
        folders = piece.startswith(b"/") and (not before or before.endswith(b"/"))
        body += rb"(?:.*/)?" + _piece(piece[1:]) if folders else b".*" + _piece(piece)
    return (rb"(?:.*/)?" if anywhere else b"") + body + rb"\Z"


def _piece(piece: bytes) -> bytes:
    """`piece` in shell notation, where no wildcard matches a slash."""
    out = b""
    at = 0
    while at < len(piece):
        char = piece[at : at + 1]
        end = piece.find(b"]", at + 2) if char == b"[" else -1
        if char == b"*":
            out += b"[^/]*"
        elif char == b"?":
            out += b"[^/]"
        elif end > 0 and piece[at + 1 : end] not in (b"!", b"^"):
            out += _char_class(piece[at + 1 : end])
            at = end
        else:
            out += re.escape(char)
        at += 1
    return out


def _char_class(inside: bytes) -> bytes:
    negated = inside[:1] in (b"!", b"^")
    chars = re.sub(rb"([\\\[\]^&~|])", rb"\\\1", inside[negated:])
    return b"(?!/)[" + b"^" * negated + chars + b"]"


def find(
    readers: Iterable[tuple[Snapshot, ManifestReader]], patterns: Sequence[bytes]
) -> Iterator[tuple[Snapshot, Entry]]:
    """Entries of these snapshots that a pattern matches. A part that several snapshots share is searched once."""
    wanted = matcher(patterns)
    searched: dict[bytes, list[Entry]] = {}
    for snapshot, reader in readers:
        for number, part in enumerate(reader.parts):
            if part.id not in searched:
                table = reader.part(number)
                rows = [row for row, path in enumerate(table["path"].to_pylist()) if wanted.match(path)]
                searched[part.id] = list(entries(table.take(pa.array(rows, pa.int64()))))
            yield from ((snapshot, entry) for entry in searched[part.id])


@dataclass(frozen=True, slots=True)
class Stats:
    """What a repository holds, in bytes and counts. `logical` is the content of all snapshots together, `unique` what
    is left of it after deduplication, `stored` what all objects take in the store.
    """

    snapshots: int
    unreadable_snapshots: int
    entries: int
    files: int
    logical: int
    unique: int
    metadata: int
    stored: int
    packs: int
    chunks: int
    index_objects: int
    objects: int


def stats(repository: Repository, index: ChunkIndex, readers: Sequence[ManifestReader], unreadable: int = 0) -> Stats:
    """Count everything; reads each manifest part once, no content."""
    counted: dict[bytes, tuple[int, int]] = {}
    files = logical = 0
    for reader in readers:
        for number, part in enumerate(reader.parts):
            if part.id not in counted:
                counted[part.id] = _count(reader.part(number))
            files += counted[part.id][0]
            logical += counted[part.id][1]
    objects = list(repository.store.list())
    data, meta = (_plain_bytes(index, kind) for kind in (PackKind.DATA, PackKind.META))
    return Stats(
        snapshots=sum(name.startswith(SNAPSHOT_PREFIX) for name, _ in objects) - unreadable,
        unreadable_snapshots=unreadable,
        entries=sum(reader.rows for reader in readers),
        files=files,
        logical=logical,
        unique=data,
        metadata=meta,
        stored=sum(size for _, size in objects),
        packs=sum(name.startswith("packs/") for name, _ in objects),
        chunks=len(index),
        index_objects=sum(name.startswith(INDEX_PREFIX) for name, _ in objects),
        objects=len(objects),
    )


def _count(table: pa.Table) -> tuple[int, int]:
    is_file = pc.equal(table["kind"], int(Kind.FILE))
    return int(pc.sum(is_file).as_py() or 0), int(content_sizes(table).sum())


def _plain_bytes(index: ChunkIndex, kind: PackKind) -> int:
    rows = index.pack_table["kind"][index.segments.pack] == kind
    return int(index.segments.plain[rows].sum(dtype=np.int64))
