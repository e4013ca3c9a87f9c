"""A repository with a long history, made in a minute: every object is real, only chunks are tiny.

    snapshots × (data pack, metadata pack with the manifest, index object, snapshot), as if each had been a backup

Each snapshot has chunks of its own, 8 bytes long and 64 to a segment, so that the index is as large as that of many TiB
while the packs are small. Everything opens: such a repository can be backed up into, checked, pruned and restored from.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import kernels
from model.batches import Receipt, Segment
from model.entries import STAT, U8, Fresh, Paths, order_key
from repository.annotations import NOTES_PREFIX, Changes, Note, Pin
from repository.claims import ClaimTable
from repository.codecs import Codec, compressor
from repository.entry_rows import fresh_table
from repository.entry_table import ChunkLists
from repository.index import ChunkIndex, save_index
from repository.manifest import ManifestWriter
from repository.manifest_root import ManifestRoot
from repository.metadata import MetadataStore
from repository.pack import PackBuffers, PackKind, PackWriter, pack_name
from repository.repository import Repository
from repository.seal import ObjectKind
from repository.snapshot import Snapshot
from repository.store import LocalStore
from repository.store.base import Bytes, check_name
from repository.trash import forget

DAY = 86_400 * 10**9  # ns
FIRST_DAY = 1_700_000_000 * 10**9
CHUNK = 8  # bytes
PER_SEGMENT = 64  # chunks: what 4 MiB hold at an average of 64 KiB
PER_FILE = 16  # chunks
PACK_TARGET = 1 << 20
DIRECTORY, FILE = 0o040755, 0o100644


@dataclass(frozen=True, slots=True)
class History:
    """What to make. `trashed` of the snapshots are forgotten, not purged."""

    snapshots: int = 10_000
    chunks: int = 4_000_000
    hosts: int = 50
    notes: int = 0
    trashed: int = 0


class UnsyncedStore(LocalStore):
    """A local store that leaves it to the kernel when things reach the disk: for what can be made again."""

    def put(self, name: str, parts: Sequence[Bytes]) -> None:
        path = os.path.join(self.url, check_name(name))
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o400)
        with os.fdopen(fd, "wb") as out:
            out.writelines(parts)


def write_history(path: Path, password: str | None, history: History) -> Repository:
    """Make the repository below `path`, which must not be one yet; it is open."""
    encryption = "none" if password is None else "aes-256-gcm"
    repository, _ = Repository.init(UnsyncedStore(str(path)), password, encryption=encryption)
    writer = _Writer(repository)
    parents: dict[str, str] = {}
    bounds = np.linspace(0, history.chunks, history.snapshots + 1).astype(int).tolist()
    made = []
    for number in range(history.snapshots):
        host = f"host-{number % history.hosts:03}"
        time = FIRST_DAY + number // history.hosts * DAY + number % history.hosts * 10**9
        saved = writer.snapshot(host, time, parents.get(host), bounds[number], bounds[number + 1])
        parents[host] = saved.id
        made.append(saved)
    for snapshot in made[: history.notes]:
        _annotate(repository, snapshot)
    for snapshot in made[history.notes : history.notes + history.trashed]:
        forget(repository, snapshot.id, "made so", snapshot.time)
    return repository


class _Writer:
    """One backup after the other, without a source."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._claims = ClaimTable(ChunkIndex([]))
        self._buffers = PackBuffers()
        self._compress = compressor(Codec.ZSTD)

    def snapshot(self, host: str, time: int, parent: str | None, first: int, end: int) -> Snapshot:
        """A snapshot of files whose content is the numbers `first` to `end`, and all it needs."""
        receipt, ids = self._content(first, end)
        metadata = MetadataStore(self._repository, self._claims)
        manifest = ManifestWriter(metadata.store)
        manifest.add(fresh_table(*_tree(ids, time)))
        root = manifest.finish()
        save_index(self._repository, [*receipt, *metadata.finish()])
        return _snapshot(host, time, parent, root, len(ids)).save(self._repository)

    def _content(self, first: int, end: int) -> tuple[list[Receipt], U8]:
        if first == end:
            return [], np.zeros((0, 32), np.uint8)
        body = np.arange(first, end, dtype="<u8").tobytes()
        length = np.full(end - first, CHUNK, np.uint32)
        start = np.arange(end - first, dtype=np.int64) * CHUNK
        ids = kernels.hash_chunks(self._repository.keys.id_key, body, start, length)
        pack = PackWriter(self._repository.keys, PackKind.DATA, PACK_TARGET, self._buffers)
        for at in range(0, len(ids), PER_SEGMENT):
            some = ids[at : at + PER_SEGMENT]
            plain = body[at * CHUNK : (at + len(some)) * CHUNK]
            offset = np.arange(len(some), dtype=np.uint32) * np.uint32(CHUNK)
            pack.add(Segment(Codec.ZSTD, len(plain), self._compress(plain), some, offset, length[: len(some)]))
        finished = pack.finish()
        self._repository.store.put(pack_name(finished.pack_id), finished.parts)
        finished.release()
        return [finished.receipt], ids


def _tree(ids: U8, time: int) -> tuple[Fresh, ChunkLists]:
    """Files of `PER_FILE` chunks each, in folders of 100, below srv/data."""
    files = -(-len(ids) // PER_FILE)
    folders = {b"srv/data/%05d" % at for at in range(0, files, 100)}
    names = {b"", b"srv", b"srv/data", *folders}
    numbered = {b"srv/data/%05d/file-%07d.bin" % (at // 100 * 100, at): at for at in range(files)}
    ordered = sorted(names | numbered.keys(), key=order_key)
    stat = np.zeros(len(ordered), STAT)
    stat["mode"], stat["size"], stat["mtime"], stat["nlink"] = DIRECTORY, 4096, time, 1
    row = np.zeros(len(ids), np.int32)
    for at, name in enumerate(ordered):
        if name in numbered:
            first = numbered[name] * PER_FILE
            row[first : first + PER_FILE] = at
            stat["mode"][at], stat["size"][at] = FILE, CHUNK * min(PER_FILE, len(ids) - first)
    nothing = np.zeros(len(ordered), np.uint32)
    fresh = Fresh(Paths.of(ordered), stat, nothing, nothing.astype(bool))
    return fresh, ChunkLists.of_rows(len(ordered), row, ids, np.full(len(ids), CHUNK, np.uint32))


def _snapshot(host: str, time: int, parent: str | None, root: ManifestRoot, chunks: int) -> Snapshot:
    files, size = -(-chunks // PER_FILE), chunks * CHUNK
    counts = {"files": files, "directories": root.rows - files, "files_new": files, "files_changed": 0}
    sizes = {"bytes_total": size, "bytes_read": size, "bytes_new": size, "bytes_stored": 40 * chunks}
    return Snapshot(
        time=time,
        started=time,
        finished=time + 60 * 10**9,
        host=host,
        user="root",
        paths=(b"/srv/data",),
        mode="incremental" if parent else "full",
        root=root,
        parent=parent,
        tags=("daily",),
        stats={**counts, "files_unchanged": 0, **sizes},
        program="lox bench",
    )


def _annotate(repository: Repository, snapshot: Snapshot) -> None:
    changes = Changes(add=("kept",), pin=Pin(snapshot.time + 365 * DAY), comment="end of the month")
    name = f"{NOTES_PREFIX}{snapshot.id}/{os.urandom(16).hex()}"
    repository.put_object(ObjectKind.MARK, name, Note(snapshot.time, changes, name).encode())


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.history", description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("--password", help="default: without encryption")
    for name, default in (("snapshots", 10_000), ("chunks", 4_000_000), ("hosts", 50), ("notes", 0), ("trashed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    fields = vars(parser.parse_args())
    path, password = fields.pop("path"), fields.pop("password")
    write_history(path.resolve(), password, History(**fields))
    return 0


if __name__ == "__main__":
    sys.exit(main())
