from __future__ import annotations

import os
import stat
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels import find_ids
from model.batches import Receipt
from model.errors import Damaged, NewerFormat, Transient
from repository.cache_files import FILES_MAX
from repository.index import INDEX_PREFIX, ChunkIndex, encode_index, save_index
from repository.index_merge import merge_tables
from repository.index_table import decode_index, gather_receipts
from repository.pack import pack_name
from repository.repository import Repository
from repository.store import MemoryStore
from repository.store.wrappers import Fault, FaultyStore, RecordingStore
from tests.repository.damage import damaged
from tests.repository.samples import back_up, content_of, new_repository, random_ids, receipt_of

ENCODED = encode_index([receipt_of(random_ids(30, seed)) for seed in range(2)])


@pytest.fixture
def repository() -> Repository:
    return new_repository(encrypted=False)


def assert_finds(index: ChunkIndex, receipts: list[Receipt]) -> None:
    for receipt in receipts:
        where = index.lookup(receipt.ids)
        assert where.found.all()
        assert (where.offset == receipt.offset).all()
        assert (where.length == receipt.length).all()
        rows = where.segments.take(where.segment)
        assert (rows.ordinal == receipt.segment).all()
        assert (rows.offset == receipt.segment_offset[receipt.segment]).all()
        assert {where.packs[pack] for pack in rows.pack.tolist()} <= {receipt.pack_id}


@given(counts=st.lists(st.integers(0, 40), max_size=5), per_segment=st.integers(1, 9))
def test_what_was_encoded_is_found_where_it_was(counts: list[int], per_segment: int) -> None:
    receipts = [receipt_of(random_ids(count, seed), per_segment) for seed, count in enumerate(counts)]
    index = ChunkIndex([decode_index(encode_index(receipts))])
    assert len(index) == sum(counts)
    assert_finds(index, receipts)
    assert not index.contains(random_ids(50, 99)).any()


def test_an_id_stored_twice_is_found_once() -> None:
    ids = random_ids(5)
    index = ChunkIndex([decode_index(encode_index([receipt_of(ids), receipt_of(ids)]))])
    assert index.lookup(ids).found.all()


def test_tables_are_looked_up_as_one() -> None:
    receipts = [receipt_of(random_ids(20, seed)) for seed in range(3)]
    index = ChunkIndex([gather_receipts([receipt]) for receipt in receipts])
    assert_finds(index, receipts)
    assert_finds(ChunkIndex([merge_tables(index.tables)]), receipts)


def test_merging_goes_window_by_window(monkeypatch: pytest.MonkeyPatch) -> None:
    receipts = [receipt_of(random_ids(200, seed)) for seed in range(3)]
    tables = [gather_receipts([receipt]) for receipt in receipts]
    whole = merge_tables(tables)
    monkeypatch.setattr("repository.index_merge.MERGE_ROWS", 16)
    assert merge_tables(tables).ids.tobytes() == whole.ids.tobytes()
    assert_finds(ChunkIndex([merge_tables(tables)]), receipts)


@given(damaged(ENCODED))
@settings(max_examples=300)
def test_a_damaged_index_gives_an_error_or_a_valid_table(data: bytes) -> None:
    try:
        table = decode_index(data)
    except (Damaged, NewerFormat):
        return
    if len(table):  # whatever got through cannot point out of a pack
        end = table.offset.astype(np.int64) + table.length
        assert (end <= table.segments["plain"][table.segment]).all()
        index = ChunkIndex([table])
        assert index.lookup(table.ids).found.all()


def test_forged_counts_allocate_nothing() -> None:
    for counts in (b"\xff" * 4, b"\0\0\0\x7f"):
        for at in (8, 12, 16, 20):
            with pytest.raises(Damaged):
                decode_index(ENCODED[:at] + counts + ENCODED[at + 4 :])


def test_a_newer_index_is_told_from_a_damaged_one() -> None:
    with pytest.raises(NewerFormat):
        decode_index(b"\2" + ENCODED[1:])


def test_unsorted_ids_are_refused() -> None:
    receipt = receipt_of(random_ids(3), per_segment=8)
    data = bytearray(encode_index([receipt]))
    at = 32 + 24 + 24
    data[at : at + 32], data[at + 32 : at + 64] = data[at + 32 : at + 64], data[at : at + 32]
    with pytest.raises(Damaged, match="not sorted"):
        decode_index(bytes(data))


def test_the_cache_spares_reading_index_objects(tmp_path: Path) -> None:
    store = RecordingStore(new_repository(encrypted=False).store)
    repository = Repository.open(store, None)
    receipts = [receipt_of(random_ids(50, seed)) for seed in range(4)]
    for receipt in receipts:
        save_index(repository, [receipt])
    assert_finds(ChunkIndex.load(repository, tmp_path), receipts)
    store.calls.clear()
    assert_finds(ChunkIndex.load(repository, tmp_path), receipts)
    assert not [call for call in store.calls if "get" in str(call)]
    more = receipt_of(random_ids(5, 77))
    save_index(repository, [more])
    store.calls.clear()
    assert_finds(ChunkIndex.load(repository, tmp_path), [*receipts, more])
    assert len([call for call in store.calls if "get" in str(call)]) == 1


def test_the_cache_is_private(tmp_path: Path, repository: Repository) -> None:
    save_index(repository, [receipt_of(random_ids(50))])
    ChunkIndex.load(repository, tmp_path)
    folder = tmp_path / repository.id.hex()
    (file,) = folder.iterdir()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_many_index_objects_become_few_files(tmp_path: Path, repository: Repository) -> None:
    receipts = []
    for seed in range(30):
        receipts.append(receipt_of(random_ids(2 ** (seed % 9), seed)))
        save_index(repository, receipts[-1:])
        ChunkIndex.load(repository, tmp_path)
    index = ChunkIndex.load(repository, tmp_path)
    assert_finds(index, receipts)
    assert len(index.tables) <= FILES_MAX
    assert len(list((tmp_path / repository.id.hex()).iterdir())) == len(index.tables)


def test_files_of_the_cache_have_guides_that_find_the_same(tmp_path: Path, repository: Repository) -> None:
    receipts = [receipt_of(random_ids(1500, seed)) for seed in range(3)]
    receipts.append(receipt_of(receipts[0].ids[:100]))  # ids that occur twice
    save_index(repository, receipts)
    index = ChunkIndex.load(repository, tmp_path)
    assert all(table.guide is not None for table in index.tables)
    assert_finds(index, receipts[1:3])
    known = np.concatenate([receipt.ids for receipt in receipts])
    queries = np.concatenate([known, random_ids(5000, 9)])
    assert index.contains(queries).tolist() == [True] * len(known) + [False] * 5000
    for table in index.tables:
        rows = table.find(queries)
        assert ((rows >= 0) == (find_ids(table.ids, queries) >= 0)).all()
        assert (table.ids[rows[rows >= 0]] == queries[rows >= 0]).all()


def test_an_empty_index_object_is_cached(tmp_path: Path, repository: Repository) -> None:
    save_index(repository, [receipt_of(random_ids(0))])
    for _ in range(2):
        assert len(ChunkIndex.load(repository, tmp_path)) == 0
    assert len(list((tmp_path / repository.id.hex()).iterdir())) == 1


def test_many_index_objects_are_read_a_few_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each few go into a file of their own first: what was read when a load is interrupted need not be read again."""
    monkeypatch.setattr("repository.cache.GROUP_ROWS", 100)
    store = RecordingStore(MemoryStore())
    repository = new_repository(store=store)
    receipts = [receipt_of(random_ids(40, seed)) for seed in range(9)]
    names = [name for receipt in receipts for name in save_index(repository, [receipt])]
    broken = FaultyStore(store, [Fault("get", INDEX_PREFIX, Transient("gone away"), skip=7)])
    with pytest.raises(Transient):
        ChunkIndex.load(Repository(broken, repository.config, repository.keys), tmp_path)
    before = len(store.of("get", INDEX_PREFIX))
    index = ChunkIndex.load(repository, tmp_path)
    assert len(store.of("get", INDEX_PREFIX)) - before == len(names) - 6
    assert_finds(index, receipts)
    assert len(index.tables) == 1 and len(list((tmp_path / repository.id.hex()).iterdir())) == 1


def test_what_lies_in_lost_packs_only_is_not_there(tmp_path: Path, repository: Repository) -> None:
    lost, cut, kept = receipt_of(random_ids(50, 1)), receipt_of(random_ids(50, 2)), receipt_of(random_ids(50, 3))
    again = receipt_of(lost.ids[:20])  # a second copy of some
    save_index(repository, [lost, cut, kept, again])
    index = ChunkIndex.load(repository, tmp_path)
    sizes = {receipt.pack_id: receipt.pack_size for receipt in (kept, again)} | {cut.pack_id: cut.pack_size - 1}
    present = index.present(sizes)
    assert index.contains(np.concatenate([lost.ids, cut.ids])).all()  # as before
    assert present.contains(lost.ids).tolist() == [True] * 20 + [False] * 30
    assert not present.contains(cut.ids).any() and present.contains(kept.ids).all()
    for ranked in (present, present.doubting_packs({again.pack_id})):
        where = ranked.lookup(np.concatenate([lost.ids, kept.ids]))
        assert where.found.tolist() == [True] * 20 + [False] * 30 + [True] * 50
        packs = {ranked.packs[row] for row in ranked.segments.pack[where.segment[where.found]].tolist()}
        assert packs == {again.pack_id, kept.pack_id}
    assert all(ours is theirs for ours, theirs in zip(index.tables, present.tables, strict=True))  # nothing is copied


@pytest.mark.parametrize("at", [0, 9, 16, 20, 60, 70, -1, -40, -500, -1100, -1500])
def test_a_damaged_cache_is_made_again(tmp_path: Path, repository: Repository, at: int) -> None:
    receipt = receipt_of(random_ids(50))
    save_index(repository, [receipt])
    ChunkIndex.load(repository, tmp_path)
    (file,) = (tmp_path / repository.id.hex()).iterdir()
    data = bytearray(file.read_bytes())
    data[at] ^= 1
    file.write_bytes(data)
    assert_finds(ChunkIndex.load(repository, tmp_path), [receipt])
    file.write_bytes(data[:at])
    assert_finds(ChunkIndex.load(repository, tmp_path), [receipt])


def test_a_cache_of_deleted_index_objects_is_forgotten(tmp_path: Path, repository: Repository) -> None:
    gone, kept = receipt_of(random_ids(50, 1)), receipt_of(random_ids(50, 2))
    (name,) = save_index(repository, [gone])
    save_index(repository, [kept])
    ChunkIndex.load(repository, tmp_path)
    repository.store.delete(name)
    index = ChunkIndex.load(repository, tmp_path)
    assert_finds(index, [kept])
    assert not index.contains(gone.ids).any()


def test_a_foreign_cache_file_is_thrown_away(tmp_path: Path) -> None:
    """Ids in the cache decide what is not stored again: whoever can put a file there must not be able to add any."""
    ours, theirs = new_repository(), new_repository()
    for repository in (ours, theirs):
        save_index(repository, [receipt_of(random_ids(9, 5 if repository is ours else 6))])
        ChunkIndex.load(repository, tmp_path)
    (file,) = (tmp_path / theirs.id.hex()).iterdir()
    (own,) = (tmp_path / ours.id.hex()).iterdir()
    own.write_bytes(file.read_bytes())
    index = ChunkIndex.load(ours, tmp_path)
    assert index.contains(random_ids(9, 5)).all()
    assert not index.contains(random_ids(9, 6)).any()


def test_without_room_for_a_cache_the_index_still_loads(tmp_path: Path, repository: Repository) -> None:
    receipt = receipt_of(random_ids(50))
    save_index(repository, [receipt])
    blocked = tmp_path / "file"
    blocked.write_bytes(b"")
    assert_finds(ChunkIndex.load(repository, blocked), [receipt])


def test_a_damaged_index_object_stops_a_backup_and_not_a_restore(repository: Repository) -> None:
    tree = {b"data": None, b"data/a": os.urandom(250), b"data/b": os.urandom(50)}
    snapshot = back_up(repository, tree)
    ((name, _),) = repository.store.list(INDEX_PREFIX)
    repository.store.delete(name)
    repository.store.put(name, [b"rubbish"])
    with pytest.raises(Damaged):
        ChunkIndex.load(repository, None)
    troubles: list[Damaged] = []
    index = ChunkIndex.load(repository, None, troubles.append)
    assert [trouble.subject for trouble in troubles] == [name]
    assert all(repository.store.exists(pack_name(pack_id)) for pack_id in index.packs)
    assert content_of(repository, snapshot, b"data/a") == tree[b"data/a"]


def test_receipts_of_many_chunks_go_to_several_objects(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("repository.index.OBJECT_CHUNKS", 100)
    receipts = [receipt_of(random_ids(60, seed)) for seed in range(5)]
    assert len(save_index(repository, receipts)) == 5
    assert_finds(ChunkIndex.load(repository, None), receipts)
    assert save_index(repository, []) == []
