"""A repository whose snapshots are known by heart, for tests of garbage collection."""

from __future__ import annotations

import random
import time
from collections import Counter

import numpy as np

from model.batches import Receipt, Segment
from repository.check import check
from repository.claims import ClaimTable
from repository.codecs import Codec, compressor
from repository.index import ChunkIndex, save_index
from repository.pack import PackKind, PackWriter, pack_name
from repository.prune import PrunePolicy
from repository.snapshot import Snapshot, load_all
from repository.store import Store
from repository.trash import forget
from tests.repository.samples import Tree, back_up, content_of, new_repository, store_content
from tests.repository.test_freed import needed

ALL = PrunePolicy(max_unused=0.0, trash=0, unfinished=0)  # give back all that can be, now
LAZY = PrunePolicy(max_unused=1.0, trash=0, unfinished=0)  # rewrite nothing
PLACES = ("packs/", "index/", "snapshots/", "trash/", "gc/condemned/", "sessions/")


def bytes_of(seed: int, chunks: int) -> bytes:
    """Content of so many chunks that nothing else has."""
    return random.Random(seed).randbytes(chunks * 100)


def tree_of(**files: bytes) -> Tree:
    return {b"data": None} | {b"data/" + name.encode(): content for name, content in files.items()}


class Home:
    """A repository, and what was put into it."""

    def __init__(self, store: Store | None = None, encrypted: bool = True) -> None:
        self.repository = new_repository(encrypted, store)
        self.trees: dict[str, Tree] = {}

    def keep(self, **files: bytes) -> Snapshot:
        """A snapshot of these files."""
        snapshot = back_up(self.repository, tree_of(**files))
        self.trees[snapshot.id] = tree_of(**files)
        return snapshot

    def pass_by(self, **files: bytes) -> str:
        """A snapshot of these files, forgotten long ago."""
        return self.forget(self.keep(**files))

    def forget(self, snapshot: Snapshot, when: int = 1) -> str:
        forget(self.repository, snapshot.id, "test", when)
        return snapshot.id

    def objects(self) -> dict[str, bytes]:
        """All that is in the store."""
        store = self.repository.store
        return {name: store.get(name) for place in ("",) for name, _ in store.list(place)}

    def counts(self) -> dict[str, int]:
        """How many objects lie in each place."""
        return {place: sum(1 for _ in self.repository.store.list(place)) for place in PLACES}

    def packs(self) -> dict[str, int]:
        return dict(self.repository.store.list("packs/"))

    def stored(self) -> Counter[bytes]:
        """How often the index has each chunk, packs it names several times counted several times."""
        tables = ChunkIndex.load(self.repository, None).tables
        return Counter(row.tobytes() for table in tables for row in table.ids)

    def needed(self) -> set[bytes]:
        return set(needed(self.repository, load_all(self.repository)))

    def verify(self) -> None:
        """Every snapshot is there, is what it was, and nothing is wrong with what it needs."""
        assert check(self.repository, "data").findings == []
        for snapshot in load_all(self.repository):
            for path, content in self.trees[snapshot.id].items():
                if content is not None:
                    assert content_of(self.repository, snapshot, path) == content

    def verify_lean(self) -> None:
        """`verify`, and nothing else is stored: each chunk once, each pack named once, no mark, no session."""
        self.verify()
        stored = self.stored()
        assert set(stored) == self.needed() and set(stored.values()) <= {1}
        named = [pack_name(pack) for pack in ChunkIndex.load(self.repository, None).packs]
        assert sorted(named) == sorted(self.packs())
        counts = self.counts()
        assert counts["gc/condemned/"] == counts["sessions/"] == counts["trash/"] == 0

    def store_apart(self, *contents: bytes, indexed: bool = True) -> Receipt:
        """A pack of these contents, whatever is stored already."""
        tree = tree_of(**{f"f{number}": content for number, content in enumerate(contents)})
        (receipt,) = store_content(self.repository, ClaimTable(ChunkIndex([])), tree)
        if indexed:
            save_index(self.repository, [receipt])
        return receipt

    def store_twice_in_one(self, content: bytes) -> Receipt:
        """A pack of two segments, each with all chunks of the content."""
        keys = self.repository.keys
        pack = PackWriter(keys, PackKind.DATA)
        chunks = [content[at : at + 100] for at in range(0, len(content), 100)]
        ids = np.frombuffer(b"".join(map(keys.chunk_id, chunks)), np.uint8).reshape(-1, 32)
        length = np.full(len(chunks), 100, np.uint32)
        offset = (np.arange(len(chunks)) * 100).astype(np.uint32)
        for _ in range(2):
            data = compressor(Codec.ZSTD)(content)
            pack.add(Segment(Codec.ZSTD, len(content), data, ids, offset, length))
        finished = pack.finish()
        self.repository.store.put(pack_name(finished.pack_id), finished.parts)
        save_index(self.repository, [finished.receipt])
        return finished.receipt


def replace(store: Store, name: str, data: bytes) -> None:
    """Other bytes under a name: what no store does, but disks do."""
    store.delete(name)
    store.put(name, [data])


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def now() -> int:
    return time.time_ns()
