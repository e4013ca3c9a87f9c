"""Small repositories with real content, made without the engine: what index, manifest, snapshot and check need."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from model.batches import Receipt, Segment
from model.entries import STAT, U8, Fresh, Paths, order_key
from repository.claims import ClaimTable
from repository.codecs import Codec, compressor
from repository.entry_rows import fresh_table
from repository.entry_table import ChunkLists
from repository.fetch import ChunkFetcher
from repository.index import ChunkIndex, save_index
from repository.keys import KdfParams
from repository.manifest import ManifestWriter
from repository.manifest_reader import ManifestReader
from repository.metadata import MetadataStore
from repository.pack import PackKind, PackWriter, pack_name
from repository.repository import Repository
from repository.snapshot import Snapshot
from repository.store import Store
from repository.store.memory import MemoryStore

CHEAP = KdfParams(memory_kib=64, iterations=1, lanes=1)
CHUNK = 100  # bytes of a chunk in these repositories
DIRECTORY, FILE = 0o040755, 0o100644

Tree = Mapping[bytes, bytes | None]
"""Path → content; None is a directory."""


def new_repository(encrypted: bool = True, store: Store | None = None) -> Repository:
    """An empty repository whose password costs nothing to check."""
    place = MemoryStore() if store is None else store
    if not encrypted:
        return Repository.init(place, None, encryption="none")[0]
    return Repository.init(place, "secret", kdf=CHEAP)[0]


def random_ids(count: int, seed: int = 0) -> U8:
    return np.random.default_rng(seed).integers(0, 256, (count, 32), dtype=np.uint8)


def receipt_of(ids: U8, per_segment: int = 4, pack_id: bytes | None = None) -> Receipt:
    """A plausible receipt of chunks of `CHUNK` bytes, without a pack behind it."""
    count = -(-len(ids) // per_segment)
    segment = (np.arange(len(ids)) // per_segment).astype(np.uint32)
    stored = np.full(count, 60, np.uint32)
    return Receipt(
        pack_id=pack_id or os.urandom(16),
        pack_kind=PackKind.DATA,
        pack_size=1000 + 60 * count,
        segment_offset=(512 + np.arange(count) * 60).astype(np.uint32),
        segment_stored=stored,
        segment_plain=np.full(count, CHUNK * per_segment, np.uint32),
        segment_codec=np.full(count, Codec.ZSTD, np.uint8),
        ids=ids,
        segment=segment,
        offset=((np.arange(len(ids)) % per_segment) * CHUNK).astype(np.uint32),
        length=np.full(len(ids), CHUNK, np.uint32),
    )


def table_of(tree: Tree, repository: Repository | None = None) -> pa.Table:
    """The rows of a tree; chunks are named by the repository's keys, or by zeros without one."""
    names = sorted(tree, key=order_key)
    stat = np.zeros(len(names), STAT)
    row, ids, length = [], [], []
    for number, name in enumerate(names):
        content = tree[name]
        stat[number]["mode"] = DIRECTORY if content is None else FILE
        stat[number]["size"] = 4096 if content is None else len(content)
        stat[number]["mtime"] = 1_700_000_000_000_000_000 + number
        for chunk in chunks_of_content(content or b""):
            row.append(number)
            ids.append(bytes(32) if repository is None else repository.keys.chunk_id(chunk))
            length.append(len(chunk))
    fresh = Fresh(Paths.of(names), stat, np.zeros(len(names), np.uint32), np.zeros(len(names), bool))
    flat = np.frombuffer(b"".join(ids), np.uint8).reshape(-1, 32)
    lists = ChunkLists.of_rows(len(names), np.array(row, np.int32), flat, np.array(length, np.uint32))
    return fresh_table(fresh, lists)


def chunks_of_content(content: bytes) -> list[bytes]:
    return [content[at : at + CHUNK] for at in range(0, len(content), CHUNK)]


def store_content(repository: Repository, claims: ClaimTable, tree: Tree) -> list[Receipt]:
    """Store what is new of the tree's content: one pack, a segment for every ten chunks."""
    new = []
    for _, content in sorted(tree.items()):
        for chunk in chunks_of_content(content or b""):
            chunk_id = repository.keys.chunk_id(chunk)
            if claims.claim(np.frombuffer(chunk_id, np.uint8).reshape(1, 32), "test")[0]:
                new.append((chunk_id, chunk))
    if not new:
        return []
    pack = PackWriter(repository.keys, PackKind.DATA)
    for at in range(0, len(new), 10):
        some = new[at : at + 10]
        plain = b"".join(chunk for _, chunk in some)
        length = np.array([len(chunk) for _, chunk in some], np.uint32)
        offset = np.concatenate([[0], np.cumsum(length)[:-1]]).astype(np.uint32)
        ids = np.frombuffer(b"".join(chunk_id for chunk_id, _ in some), np.uint8).reshape(-1, 32)
        pack.add(Segment(Codec.ZSTD, len(plain), compressor(Codec.ZSTD)(plain), ids, offset, length))
    finished = pack.finish()
    repository.store.put(pack_name(finished.pack_id), finished.parts)
    claims.add(finished.receipt.ids)
    return [finished.receipt]


def back_up(repository: Repository, tree: Tree, **fields: object) -> Snapshot:
    """A snapshot of `tree`, as the engine would leave it: packs, index, snapshot."""
    claims = ClaimTable(ChunkIndex.load(repository, None))
    receipts = store_content(repository, claims, tree)
    metadata = MetadataStore(repository, claims)
    writer = ManifestWriter(metadata.store)
    writer.add(table_of(tree, repository))
    root = writer.finish()
    save_index(repository, [*receipts, *metadata.finish()])
    values: dict[str, object] = {
        "time": 2,
        "started": 1,
        "finished": 3,
        "host": "box",
        "user": "root",
        "paths": (b"/data",),
        "mode": "full",
        "root": root,
    }
    return Snapshot(**(values | fields)).save(repository)  # type: ignore[arg-type]


def reader_of(repository: Repository, snapshot: Snapshot) -> ManifestReader:
    index = ChunkIndex.load(repository, None, on_damage=lambda error: None)
    return ManifestReader(snapshot.root, ChunkFetcher(repository, index).fetch, snapshot.name)


def content_of(repository: Repository, snapshot: Snapshot, path: bytes) -> bytes:
    """What a restore would write at `path`."""
    index = ChunkIndex.load(repository, None, on_damage=lambda error: None)
    fetcher = ChunkFetcher(repository, index)
    reader = ManifestReader(snapshot.root, fetcher.fetch)
    entry = reader.find(path)
    assert entry is not None
    return b"".join(fetcher.fetch([row.tobytes() for row in reader.content(entry).ids]))


def plain_rows(table: pa.Table) -> list[dict[str, Any]]:
    """The rows of a table; times as ns since the epoch, which Python has no type for."""
    fields = [one.with_type(pa.int64()) if pa.types.is_timestamp(one.type) else one for one in table.schema]
    rows: list[dict[str, Any]] = table.cast(pa.schema(fields)).to_pylist()
    return rows
