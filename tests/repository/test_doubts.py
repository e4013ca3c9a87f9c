"""Readers take healthy copies first: of the index alone, and of a real pack that is damaged."""

from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np
import pytest

from repository.condemned import Reason, condemn
from repository.index import ChunkIndex
from repository.index_merge import merge_tables
from repository.index_table import IndexTable, gather_receipts
from repository.pack import pack_name
from repository.repository import Repository
from repository.store import LocalStore
from repository.store.wrappers import RecordingStore
from tests.pipelines.helpers import Place, differences
from tests.repository.samples import random_ids, receipt_of


@pytest.mark.parametrize("merged", [False, True])
@pytest.mark.parametrize("seed", range(20))
def test_of_several_copies_the_one_doubted_least_is_found(seed: int, merged: bool) -> None:
    rng = random.Random(seed)
    ids = random_ids(40, seed)
    receipts = [receipt_of(ids[rng.sample(range(40), 25)]) for _ in range(6)]
    tables: list[IndexTable] = [gather_receipts([receipt]) for receipt in receipts]
    index = ChunkIndex([merge_tables(tables)] if merged else tables)
    condemned = {receipt.pack_id for receipt in rng.sample(receipts, 3)}
    lost = np.array([rng.random() < 0.3 for _ in range(len(index.segments))])
    ranked = index.doubting_packs(condemned).doubting(lost)
    where = ranked.lookup(ids)
    assert (where.found == index.lookup(ids).found).all()
    for row in np.flatnonzero(where.found).tolist():
        copies = []
        for receipt in receipts:
            for at in np.flatnonzero((receipt.ids == ids[row]).all(axis=1)).tolist():
                pack = index.packs.index(receipt.pack_id)
                (segment,) = np.flatnonzero(
                    (index.segments.pack == pack) & (index.segments.ordinal == receipt.segment[at])
                )
                copies.append((int(receipt.pack_id in condemned) + int(lost[segment]), int(segment)))
        doubts = {segment: doubt for doubt, segment in copies}
        assert doubts[int(where.segment[row])] == min(doubts.values())


@pytest.mark.parametrize("good", [0, 100, 199])
def test_of_very_many_copies_the_only_one_that_is_there_is_found(good: int) -> None:
    """Without deduplication a disk image has a block of zeros thousands of times; most of its packs are lost."""
    alike, others = random_ids(1), random_ids(400, 1)
    receipts = [
        receipt_of(np.concatenate([alike.repeat(20, axis=0), others[at * 2 : at * 2 + 2]])) for at in range(200)
    ]
    index = ChunkIndex([gather_receipts(receipts)]).present({receipts[good].pack_id: receipts[good].pack_size})
    wanted = np.concatenate([alike, others, alike])
    where = index.lookup(wanted)
    there = receipts[good].ids
    assert where.found.tolist() == [bool((there == one).all(axis=1).any()) for one in wanted]
    assert {index.packs[row] for row in index.segments.pack[where.segment[where.found]]} == {receipts[good].pack_id}
    assert not index.present({}).contains(wanted).any()


def test_after_healing_the_old_snapshot_is_restored_without_the_damaged_pack(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    for number in range(5):
        (tree / f"file{number}").write_bytes(random.Random(number).randbytes(300_000))
    place = Place(tmp_path / "repository")
    old = place.backup(tree).snapshot
    assert old is not None
    listed = place.repository.store.list(
        "packs/"
    )  # not the one of metadata: another manifest is stored than the old one
    packs = [bytes.fromhex(name.rpartition("/")[2]) for name, size in listed if size > 1_000_000]
    for pack in packs:
        path = place.path / pack_name(pack)
        data = bytearray(path.read_bytes())
        data[600 : len(data) - 5000 : 1000] = bytes(len(range(600, len(data) - 5000, 1000)))
        path.chmod(0o600)
        path.write_bytes(data)
    assert place.restore(old, tmp_path / "before").problems != []
    condemn(place.repository, packs, Reason.DAMAGED, 1)
    assert place.backup(tree).bytes_new >= 1_500_000
    store = RecordingStore(LocalStore(os.fspath(place.path)))
    place.repository = Repository.attach(store, place.repository.credentials())
    report = place.restore(old, tmp_path / "out")
    assert (report.problems, report.damaged) == ([], False)
    assert differences(tree, tmp_path / "out" / os.fspath(tree)[1:]) == ""
    read = {call.name for call in store.of("get", "packs/")}
    assert read and read.isdisjoint(map(pack_name, packs))
