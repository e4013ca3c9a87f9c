from __future__ import annotations

import threading

import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from model.entries import U8
from repository.claims import LEVEL_ROWS, ClaimTable, HostClaims, StoredIds, claims_of
from repository.index import ChunkIndex
from repository.index_table import gather_receipts
from tests.repository.samples import random_ids, receipt_of

UNIVERSE = random_ids(40)
IN_INDEX = 10
INDEX = ChunkIndex([gather_receipts([receipt_of(UNIVERSE[:IN_INDEX])])])
numbers = st.lists(st.integers(0, len(UNIVERSE) - 1), max_size=12)
owners = st.sampled_from(["a/1/one", "a/1/two", "a/2/one", "b/1/one"])


class ClaimMachine(RuleBasedStateMachine):
    """The table does what a plain dictionary would."""

    def __init__(self) -> None:
        super().__init__()
        self.table = ClaimTable(INDEX)
        self.claims: dict[int, str] = {}
        self.released: set[str] = set()
        self.promised: set[int] = set()
        self.stored: set[int] = set(range(IN_INDEX))

    @rule(rows=numbers, owner=owners)
    def claim(self, rows: list[int], owner: str) -> None:
        mine = self.table.claim(UNIVERSE[rows], owner)
        for row, answer in zip(rows, mine.tolist(), strict=True):
            holder = self.claims.get(row)
            free = holder is None or (holder != owner and holder in self.released)
            assert answer == (row not in self.stored and free)
            if answer:
                self.claims[row] = owner

    @rule(owner=owners)
    def release(self, owner: str) -> None:
        self.table.release(owner)
        self.released.add(owner)
        self.claims = {row: holder for row, holder in self.claims.items() if holder != owner}

    @rule(prefix=st.sampled_from(["a/1/", "a/2/", "b/1/"]))
    def release_below(self, prefix: str) -> None:
        self.table.release_below(prefix)
        self.released |= {owner for owner in ("a/1/one", "a/1/two", "a/2/one", "b/1/one") if owner.startswith(prefix)}
        self.claims = {row: holder for row, holder in self.claims.items() if not holder.startswith(prefix)}

    @rule(rows=numbers, host=st.sampled_from(["a/", "b/"]))
    def promise(self, rows: list[int], host: str) -> None:
        others = {
            row for row, holder in self.claims.items() if not holder.startswith(host) and holder not in self.released
        }
        answers = self.table.promised(UNIVERSE[rows], host).tolist()
        assert answers == [row in self.stored or row in others for row in rows]
        self.promised |= others.intersection(rows)

    @rule()
    def broken(self) -> None:
        assert self.table.broken == len(self.promised)

    @rule(rows=numbers)
    def add(self, rows: list[int]) -> None:
        self.table.add(UNIVERSE[rows])
        self.stored.update(rows)
        self.promised.difference_update(rows)
        for row in rows:
            self.claims.pop(row, None)

    @rule()
    def resolved(self) -> None:
        assert set(np.flatnonzero(self.table.resolved(UNIVERSE)).tolist()) == self.stored


TestClaims = ClaimMachine.TestCase


def test_a_receipt_settles_what_a_dead_lane_had_stored() -> None:
    table = ClaimTable(ChunkIndex([]))
    ids = random_ids(20, 3)
    assert table.claim(ids, "lane").all()
    table.add(receipt_of(ids[:12]).ids)
    table.release("lane")
    assert table.claim(ids, "other").tolist() == [False] * 12 + [True] * 8


def test_rows_of_a_run_without_deduplication_wait_for_its_own_copies() -> None:
    """What the index has may be relied on for manifests, which such a run does not store again."""
    table, ids = claims_of(INDEX, deduplicates=False), UNIVERSE[:4]
    share = HostClaims(table, "a", 1)
    table.add(ids[:2])
    assert table.resolved(ids).all() and share.resolved(ids).all()
    assert table.settled(ids).tolist() == share.settled(ids).tolist() == [True, True, False, False]
    assert table.broken == 0


def test_of_many_threads_one_stores_each_chunk() -> None:
    table, ids = ClaimTable(ChunkIndex([])), random_ids(2000, 4)
    answers: list[U8] = []

    def ask(owner: str) -> None:
        order = np.random.default_rng(len(owner)).permutation(len(ids))
        mine = np.zeros(len(ids), dtype=np.uint8)
        for at in range(0, len(ids), 100):
            rows = order[at : at + 100]
            mine[rows] = table.claim(ids[rows], owner)
        answers.append(mine)

    threads = [threading.Thread(target=ask, args=("x" * (number + 1),)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (np.sum(answers, axis=0, dtype=int) == 1).all()


def test_stored_ids_stay_compact() -> None:
    """32 bytes for each id, in few runs: a run of millions of chunks fits."""
    stored, ids = StoredIds(), random_ids(40_000, 5)
    for at in range(0, len(ids), 100):
        stored.add(ids[at : at + 100])
    stored.add(ids[:500])
    assert stored.contains(ids).all()
    assert not stored.contains(random_ids(100, 6)).any()
    assert len(stored) <= len(ids) + 500
    assert len(stored._runs) < 12
    assert LEVEL_ROWS * 64 < 100 << 20  # what merging the largest runs takes


def test_a_late_claim_of_a_dead_lane_binds_nobody() -> None:
    table = ClaimTable(ChunkIndex([]))
    ids = np.arange(64, dtype=np.uint8).reshape(2, 32)
    table.release("lane-0#1")
    assert table.claim(ids, "lane-0#1").all()  # was on its way when the lane was killed
    assert table.claim(ids, "lane-1#1").all()
    assert not table.claim(ids, "lane-2#1").any()
