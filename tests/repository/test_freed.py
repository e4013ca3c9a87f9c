"""What forgetting would free, against counting by hand which chunks only the forgotten snapshots need."""

from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np
import pytest

from model.errors import Damaged
from repository.freed import Freed, freed_by_forgetting
from repository.index import INDEX_PREFIX, ChunkIndex, index_name
from repository.repository import Repository
from repository.seal import ObjectKind
from repository.snapshot import Snapshot, load_all
from tests.repository.samples import Tree, back_up, chunks_of_content, new_repository, reader_of


def needed(repository: Repository, snapshots: list[Snapshot]) -> dict[bytes, int]:
    """Every chunk that these need, manifests and all, and its length."""
    found: dict[bytes, int] = {}
    for snapshot in snapshots:
        found |= dict(zip(snapshot.root.chunks, snapshot.root.lengths, strict=True))
        reader = reader_of(repository, snapshot)
        for number, part in enumerate(reader.parts):
            found[part.id] = part.length
            content = reader.content(reader.part(number))
            found |= {row.tobytes(): int(size) for row, size in zip(content.ids, content.length, strict=True)}
    return found


def freed(repository: Repository, gone: list[Snapshot], cache: Path | None = None) -> Freed:
    kept = [one for one in load_all(repository) if one not in gone]
    return freed_by_forgetting(repository, ChunkIndex.load(repository, cache), gone, kept)


@pytest.mark.parametrize("seed", range(4))
def test_it_counts_the_chunks_that_nobody_else_needs(seed: int) -> None:
    rng, repository = random.Random(seed), new_repository()
    pool = [rng.randbytes(rng.choice([50, 100, 350, 900])) for _ in range(12)]
    snapshots = []
    for _ in range(5):
        tree: dict[bytes, bytes | None] = {b"data": None}
        tree |= {b"data/%d" % number: rng.choice(pool) for number in range(6)}
        snapshots.append(back_up(repository, tree))
    stored = sum(size for name, size in repository.store.list("packs/"))
    for count in range(6):
        gone = rng.sample(snapshots, count)
        only = (
            needed(repository, gone).items() - needed(repository, [one for one in snapshots if one not in gone]).items()
        )
        found = freed(repository, gone)
        assert (found.chunks, found.plain) == (len(only), sum(size for _, size in only))
        assert 0 <= found.stored <= stored and found.whole_bytes <= stored
        assert (found.stored > 0) == bool(only)
    everything = freed(repository, snapshots)
    assert everything.whole_bytes == stored and everything.packs == everything.whole_packs
    assert everything.stored >= 0.5 * stored, "all but headers and footers"


@pytest.mark.parametrize("cached", [False, True])
def test_a_pack_that_two_index_objects_list_is_one_pack(cached: bool, tmp_path: Path) -> None:
    rng, repository = random.Random(3), new_repository()
    snapshots = []
    for number in range(4):
        tree: Tree = {b"data": None, b"data/same": b"same" * 30, b"data/own": rng.randbytes(400 + number)}
        snapshots.append(back_up(repository, tree))
    some = [snapshots[:count] for count in range(5)]
    cache = tmp_path if cached else None
    before = [freed(repository, gone, cache) for gone in some]
    for name, _ in list(repository.store.list(INDEX_PREFIX)):
        repository.put_object(ObjectKind.INDEX, index_name(), repository.get_object(ObjectKind.INDEX, name))
    assert [freed(repository, gone, cache) for gone in some] == before
    assert before[4].whole_bytes == sum(size for _, size in repository.store.list("packs/"))


def test_an_equal_snapshot_frees_nothing() -> None:
    repository = new_repository()
    tree: Tree = {b"data": None, b"data/file": os.urandom(500)}
    first, second = back_up(repository, tree), back_up(repository, tree)
    assert freed(repository, [first]) == Freed(0, 0, 0, 0, 0, 0)
    assert freed(repository, [first, second]).chunks == 5 + 2


def test_lists_of_long_files_count_too() -> None:
    repository = new_repository()
    long = random.Random(5).randbytes(5000 * 100)
    small: dict[bytes, bytes | None] = {b"data": None, b"data/file": b"small"}
    back_up(repository, small)
    snapshot = back_up(repository, small | {b"data/long": long})
    found = freed(repository, [snapshot])
    assert found.chunks == len(needed(repository, [snapshot])) - 1 + lists_of(repository, snapshot)
    assert found.chunks > len(chunks_of_content(long))


def lists_of(repository: Repository, snapshot: Snapshot) -> int:
    entry = reader_of(repository, snapshot).find(b"data/long")
    assert entry is not None
    return len(entry["chunks"][0]) if int(np.asarray(entry["depth"])[0]) else 0


def test_damage_is_no_estimate() -> None:
    repository = new_repository()
    kept, gone = back_up(repository, {b"a": b"1"}), back_up(repository, {b"a": b"2"})
    for name, _ in list(repository.store.list("packs/")):
        repository.store.delete(name)
    index = ChunkIndex.load(repository, None)
    with pytest.raises(Damaged):
        freed_by_forgetting(repository, index, [gone], [kept])
