"""The manifest's chunks are stored on their own account: neither they nor files wait for one another."""

from __future__ import annotations

import numpy as np

from repository.claims import ClaimTable
from repository.index import ChunkIndex
from repository.metadata import MetadataStore
from repository.repository import Repository
from repository.store import MemoryStore


def test_a_file_with_the_bytes_of_a_manifest_waits_for_nobody() -> None:
    repository, _ = Repository.init(MemoryStore(), None, encryption="none")
    claims = ClaimTable(ChunkIndex([]))
    metadata = MetadataStore(repository, claims)
    first = np.frombuffer(metadata.store(b"some part"), np.uint8).reshape(1, 32)
    assert claims.claim(first, "lane-0#1").all()  # else its row is held until the manifest is finished, which waits
    second = repository.keys.chunk_id(b"another part")
    assert claims.claim(np.frombuffer(second, np.uint8).reshape(1, 32), "lane-0#1").all()
    assert metadata.store(b"another part") == second
    metadata.store(b"another part")
    (receipt,) = metadata.finish()  # the lane may die before it stores its own
    assert sorted(row.tobytes() for row in receipt.ids) == sorted([first.tobytes(), second])
