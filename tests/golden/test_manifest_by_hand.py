"""Index, manifest and snapshot read back by code written from docs/format.md alone: json, struct and pyarrow."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest

from model.entries import STAT, Fresh, Paths
from repository.claims import ClaimTable
from repository.entry_rows import fresh_table
from repository.entry_table import CHUNKS_INLINE, ChunkLists
from repository.index import ChunkIndex, save_index
from repository.manifest import ManifestWriter
from repository.metadata import MetadataStore
from repository.repository import Repository
from repository.snapshot import Snapshot
from tests.golden import by_hand
from tests.golden.test_format_by_hand import make, read
from tests.repository.samples import FILE, random_ids, receipt_of

LONG = 3 * CHUNKS_INLINE


@pytest.mark.parametrize("password", ["secret", None], ids=["encrypted", "not encrypted"])
def test_a_snapshot_is_read_by_the_page(password: str | None) -> None:
    repository, store, _ = make(password)
    snapshot = saved(repository)
    found = read(store, password)
    document = json.loads(found.open_object(3, snapshot.name))
    assert (document["version"], document["host"], document["mode"]) == (1, "box", "full")
    assert [bytes.fromhex(path) for path in document["paths"]] == [b"/srv/\xff"]

    (index_name,) = [name for name, _ in store.list("index/")]
    index = by_hand.read_index(found.open_object(2, index_name))
    chunks = chunks_of(found.packs())
    for chunk_id, place in index.items():
        assert place.offset + place.length <= place.segment.size
        assert chunk_id not in chunks or len(chunks[chunk_id]) == place.length

    entries = found.entries(document)
    assert [entry["path"] for entry in entries] == [b"srv", b"srv/\xff"]
    long = entries[1]
    assert long["depth"] == 1
    records = b"".join(chunks[chunk_id] for chunk_id in long["chunks"])
    assert [len(chunks[chunk_id]) for chunk_id in long["chunks"]] == long["lengths"]
    content = list(struct.iter_unpack("<32sI", records))
    assert len(content) == LONG
    assert sum(length for _, length in content) == long["size"]
    for number, chunk_id in enumerate(long["chunks"][:-1]):
        last = chunks[chunk_id][-36:]
        count = long["lengths"][number] // 36
        assert count >= 1024
        assert count == 16384 or struct.unpack_from("<I", last)[0] % 4096 == 0


def chunks_of(packs: list[by_hand.Pack]) -> dict[bytes, bytes]:
    return {chunk_id: chunk for pack in packs for chunk_id, chunk in pack.chunks.items()}


def saved(repository: Repository) -> Snapshot:
    """A snapshot with a folder and one long file, whose chunks are only said to be somewhere."""
    claims = ClaimTable(ChunkIndex.load(repository, None))
    metadata = MetadataStore(repository, claims)
    stat = np.zeros(2, STAT)
    stat["mode"], stat["size"] = [0o040755, FILE], [0, 100 * LONG]
    fresh = Fresh(Paths.of([b"srv", b"srv/\xff"]), stat, np.zeros(2, np.uint32), np.zeros(2, bool))
    ids = random_ids(LONG)
    lists = ChunkLists.of_rows(2, np.ones(LONG, np.int32), ids, np.full(LONG, 100, np.uint32))
    writer = ManifestWriter(metadata.store)
    writer.add(fresh_table(fresh, lists.deepened(metadata.store)))
    root = writer.finish()
    save_index(repository, [receipt_of(ids), *metadata.finish()])
    return Snapshot(
        time=2, started=1, finished=3, host="box", user="u", paths=(b"/srv/\xff",), mode="full", root=root
    ).save(repository)
