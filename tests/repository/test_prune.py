"""prune: gives back what nobody needs and nothing else, and says what it did."""

from __future__ import annotations

from pathlib import Path

import pytest

from repository.condemned import Reason, condemn, load_condemned
from repository.index import ChunkIndex, save_index
from repository.index_upkeep import _to_join, rewrite_index
from repository.pack import PackKeys, PackReader, pack_name
from repository.prune import PrunePolicy, prune
from repository.snapshot import load_all
from repository.store import Bytes, LocalStore, Store
from repository.store.wrappers import RecordingStore
from repository.trash import load_trash, undelete
from tests.repository.prunes import ALL, LAZY, Home, bytes_of, flipped, now, replace
from tests.repository.samples import random_ids, receipt_of

DAY = 86_400 * 10**9


def test_what_nobody_needs_goes_and_what_remains_is_whole() -> None:
    home = Home()
    home.keep(a=bytes_of(1, 25), b=bytes_of(2, 7))
    home.pass_by(a=bytes_of(1, 25), c=bytes_of(3, 40))
    home.pass_by(d=bytes_of(4, 33))
    home.keep(c=bytes_of(3, 12), e=b"short")
    before = sum(home.packs().values())
    report = prune(home.repository, ALL)
    home.verify_lean()
    after = sum(home.packs().values())
    assert (report.bytes_before, report.bytes_after) == (before, after) and after < before - 5000
    assert report.bytes_deleted == before - after + report.bytes_written
    assert len(report.purged) == 2 and len(load_all(home.repository)) == 2
    assert (report.in_trash, report.waiting, report.left_unused, report.damaged) == (0, 0, 0, [])
    again = prune(home.repository, ALL)
    assert (again.deleted, again.rewritten, again.unused, again.bytes_deleted, again.index_written) == (0, 0, 0, 0, 0)


@pytest.mark.parametrize("encrypted", [False, True])
def test_of_a_repository_without_snapshots_nothing_remains(encrypted: bool) -> None:
    home = Home(encrypted=encrypted)
    assert prune(home.repository, ALL).deleted == 0
    home.pass_by(a=bytes_of(1, 25))
    assert prune(home.repository, ALL).deleted == 2
    assert set(home.counts().values()) == {0}


def test_the_trash_keeps_data_until_it_is_given_up(tmp_path: Path) -> None:
    home = Home(LocalStore(str(tmp_path)))
    home.keep(a=bytes_of(1, 25))
    gone = home.keep(b=bytes_of(2, 25))
    home.forget(gone, now())
    report = prune(home.repository, PrunePolicy(max_unused=0.0))
    assert (report.in_trash, report.deleted, report.purged) == (1, 0, [])
    undelete(home.repository, load_trash(home.repository)[0])
    home.verify()
    home.forget(gone, now() - 8 * DAY)
    report = prune(home.repository, PrunePolicy(max_unused=0.0))
    assert report.in_trash == 1, "the store knows better when it was forgotten"
    report = prune(home.repository, ALL)
    assert (report.in_trash, report.deleted, report.purged) == (0, 2, [gone.id])
    home.verify_lean()


def mixed() -> Home:
    """Of one pack a segment is needed, one in part, one not at all; another is needed, another is not."""
    home = Home()
    home.pass_by(a=bytes_of(1, 10), b=bytes_of(2, 10), c=bytes_of(3, 10))
    home.keep(a=bytes_of(1, 10), b=bytes_of(2, 3))
    home.keep(d=bytes_of(4, 30))
    home.pass_by(e=bytes_of(5, 20))
    return home


def test_a_dry_run_changes_nothing_and_foretells_what_a_run_does() -> None:
    home = mixed()
    home.forget(home.keep(f=bytes_of(6, 10)), now())
    condemn(home.repository, [home.store_apart(bytes_of(7, 10)).pack_id], Reason.DAMAGED, 1)
    policy, before = PrunePolicy(max_unused=0.0, trash=DAY, unfinished=0), home.objects()
    told = prune(home.repository, policy, dry_run=True)
    assert home.objects() == before and told.dry_run
    done = prune(home.repository, policy)
    assert (told.purged, told.in_trash, told.packs, told.bytes_before) == (
        sorted(done.purged),
        done.in_trash,
        done.packs,
        done.bytes_before,
    )
    assert (told.unused, told.unused_bytes, told.rewritten) == (done.unused, done.unused_bytes, done.rewritten)
    assert told.deleted == done.deleted > 0 and told.bytes_deleted == done.bytes_deleted
    assert told.bytes_read == done.bytes_read > 0 < told.bytes_written
    assert told.waiting == done.waiting == 0 and told.waiting_for == []
    assert abs(told.bytes_after - done.bytes_after) < 2000, "headers and tables of new packs are not known before"


def test_segments_go_on_as_they_are_and_nothing_is_read_that_nobody_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    home = mixed()
    store = RecordingStore(home.repository.store)
    index = ChunkIndex.load(home.repository, None)
    a_chunk = home.repository.keys.chunk_id(bytes_of(1, 10)[:100])
    chosen = next(receipt for receipt in data_packs(home, index) if a_chunk in chunks(index, receipt))
    data = {pack_name(pack) for pack in data_packs(home, index)}
    decompressed: list[tuple[bytes, int]] = []
    real = PackReader.open_segment

    def spied(self: PackReader, keys: PackKeys, ordinal: int, codec: int, plain: int, sealed: Bytes) -> bytes:
        decompressed.append((keys.pack_id, ordinal))
        return real(self, keys, ordinal, codec, plain, sealed)

    monkeypatch.setattr(PackReader, "open_segment", spied)
    home.repository.store = store
    report = prune(home.repository, ALL)
    home.repository.store = store.inner
    assert (report.rewritten, report.segments_copied, report.segments_repacked) == (1, 1, 1)
    assert [ordinal for pack, ordinal in decompressed if pack == chosen] == [1]
    reads = [call for call in store.of("get", "packs/") if call.name in data]
    assert {call.name for call in reads} == {pack_name(chosen)}
    segments = index.segments.take(index.segments.pack == index.packs.index(chosen))
    end = int(segments.offset[2])
    assert max(call.offset + call.nbytes for call in reads) == end, "and not a byte of the third segment"
    assert report.bytes_read == end - int(segments.offset[0])
    monkeypatch.undo()
    home.verify_lean()


def data_packs(home: Home, index: ChunkIndex) -> list[bytes]:
    return [pack for pack, kind in zip(index.packs, index.pack_table["kind"].tolist(), strict=True) if kind == 1]


def chunks(index: ChunkIndex, pack: bytes) -> set[bytes]:
    (table,) = index.tables
    row = index.packs.index(pack)
    return {one.tobytes() for one in table.ids[table.segments["pack"][table.segment] == row]}


@pytest.mark.parametrize(("needed", "share", "rewritten"), [(97, 0.05, 0), (97, 0.0, 1), (50, 0.05, 1), (50, 0.6, 0)])
def test_little_of_no_use_is_left_where_it_is(needed: int, share: float, rewritten: int) -> None:
    home = Home()
    home.pass_by(a=bytes_of(1, 100))
    home.keep(a=bytes_of(1, 100)[: 100 * needed])
    prune(home.repository, LAZY)  # what is of no use as a whole goes in any case
    before = sum(home.packs().values())
    report = prune(home.repository, PrunePolicy(max_unused=share, trash=0, unfinished=0))
    assert report.rewritten == rewritten
    assert report.left_unused == 0 if rewritten else report.left_unused > (100 - needed) * 90
    assert (before - sum(home.packs().values()) > (100 - needed) * 100) == bool(rewritten)
    home.verify()


def test_capped_runs_come_to_the_same_end_as_one() -> None:
    once, bit_by_bit = Home(encrypted=False), Home(encrypted=False)
    for home in (once, bit_by_bit):
        for number in range(12):
            home.pass_by(a=bytes_of(number, 40))
            home.keep(a=bytes_of(number, 40)[:1500])
    prune(once.repository, ALL)
    cap = 8000
    policy = PrunePolicy(0.0, cap, 0, 0)
    runs = [prune(bit_by_bit.repository, policy)]
    while runs[-1].rewritten:
        assert len(runs) < 40, "it goes round in circles"
        runs.append(prune(bit_by_bit.repository, policy))
        bit_by_bit.verify()
    assert len(runs) > 3 and all(run.bytes_read <= cap * 1.1 for run in runs)
    once.verify_lean()
    bit_by_bit.verify_lean()
    assert once.stored().total() == bit_by_bit.stored().total()


@pytest.mark.parametrize("lazily", [False, True])
def test_one_copy_of_a_chunk_is_enough(lazily: bool) -> None:
    home = Home()
    same, other = bytes_of(1, 20), bytes_of(2, 20)
    home.store_twice_in_one(same)
    home.keep(a=same, b=other)
    for _ in range(3):
        home.store_apart(same, other)
    assert max(home.stored().values()) == 5
    report = prune(home.repository, LAZY if lazily else ALL)
    assert report.deleted >= 3
    home.verify()
    if not lazily:
        home.verify_lean()


def test_a_damaged_pack_stays_for_as_long_as_there_is_no_other_copy() -> None:
    home = Home()
    torn, useless = home.store_apart(bytes_of(1, 20)).pack_id, home.store_apart(bytes_of(2, 20)).pack_id
    home.keep(a=bytes_of(1, 20))
    condemn(home.repository, [torn, useless], Reason.DAMAGED, 1)
    report = prune(home.repository, ALL)
    assert (report.deleted, report.rescued, report.rewritten) == (1, 0, 0)
    assert (report.waiting, report.waiting_for) == (0, []), "it does not wait for anybody"
    assert pack_name(torn) in home.packs() and pack_name(useless) not in home.packs()
    assert [(mark.reason, mark.packs) for mark in load_condemned(home.repository)] == [(Reason.DAMAGED, (torn,))]
    assert prune(home.repository, ALL).deleted == 0
    home.store_apart(bytes_of(1, 20))  # as the next backup does
    assert prune(home.repository, ALL).deleted == 1
    home.verify_lean()


def test_of_two_condemned_copies_the_one_that_is_not_damaged_stays() -> None:
    for _ in range(6):  # whichever the index has first
        home = Home(encrypted=False)
        torn, other = home.store_apart(bytes_of(1, 20)).pack_id, home.store_apart(bytes_of(1, 20)).pack_id
        home.keep(a=bytes_of(1, 20))
        condemn(home.repository, [torn], Reason.DAMAGED, 1)
        condemn(home.repository, [other], Reason.UNUSED, 1)
        report = prune(home.repository, ALL)
        assert (report.rescued, report.deleted) == (1, 1)
        assert pack_name(other) in home.packs() and pack_name(torn) not in home.packs()
        home.verify_lean()


@pytest.mark.parametrize("part", ["header", "whole segment", "segment in part"])
def test_a_pack_that_does_not_open_stays_and_the_others_are_rewritten(part: str) -> None:
    home = mixed()
    home.pass_by(g=bytes_of(8, 20))
    home.keep(g=bytes_of(8, 20)[:1300])
    store = home.repository.store
    index = ChunkIndex.load(home.repository, None)
    a_chunk = home.repository.keys.chunk_id(bytes_of(1, 10)[:100])
    (torn,) = [pack for pack in data_packs(home, index) if a_chunk in chunks(index, pack)]
    name = pack_name(torn)
    segments = index.segments.take(index.segments.pack == index.packs.index(torn))
    at = {"header": 100, "whole segment": int(segments.offset[0]) + 20, "segment in part": int(segments.offset[1]) + 20}
    whole = store.get(name)
    replace(store, name, flipped(whole, at[part]))
    for _ in range(3):
        report = prune(home.repository, ALL)
        assert name in home.packs() and [name in error.subject for error in report.damaged] == [True]
        assert len(home.packs()) <= 8
        assert not any(error.__traceback__ or error.__context__ for error in report.damaged), "they hold what was read"
    assert home.counts()["gc/condemned/"] == 0
    replace(store, name, whole)  # the disk was mended
    assert prune(home.repository, ALL).damaged == []
    prune(home.repository, ALL)
    home.verify_lean()


@pytest.mark.slow
def test_many_runs_do_not_leave_many_objects() -> None:
    home = Home(encrypted=False)
    last = home.keep(a=bytes_of(1000, 3))
    most: dict[str, int] = {}
    for number in range(45):
        home.forget(last)
        last = home.keep(a=bytes_of(1000, 3), b=bytes_of(number, 2))
        if number % 3:
            home.keep(a=bytes_of(number, 3))
        prune(home.repository, LAZY)
        most = {place: max(count, most.get(place, 0)) for place, count in home.counts().items()}
    assert most["packs/"] <= 2 * 16 + 2 and most["index/"] <= 16
    home.verify()


def test_small_packs_are_joined_a_few_at_a_time_as_well() -> None:
    home = Home(encrypted=False)
    for number in range(24):
        home.keep(a=bytes_of(number, 30))
    policy, runs = PrunePolicy(0.05, 14_000, 0, 0), 0
    while prune(home.repository, policy).rewritten:
        runs += 1
        assert runs < 20, "it goes round in circles"
    data, meta = (kinds_of(home).count(kind) for kind in (1, 2))
    assert runs > 3 and data < 16 and meta < 16
    home.verify_lean()


def kinds_of(home: Home) -> list[int]:
    return ChunkIndex.load(home.repository, None).pack_table["kind"].tolist()  # type: ignore[no-any-return]


class Growing(RecordingStore):
    """Lets a backup end at a certain moment."""

    def __init__(self, inner: Store, home: Home) -> None:
        super().__init__(inner)
        self._home = home

    def put(self, name: str, parts: list[Bytes]) -> None:  # type: ignore[override]
        super().put(name, parts)
        if name.startswith("gc/") and self._home.repository.store is self:
            self._home.repository.store = self.inner
            self._home.keep(z=bytes_of(9, 10))
            self._home.repository.store = self


def test_what_a_backup_committed_meanwhile_needs_is_rescued() -> None:
    home = Home(encrypted=False)
    home.pass_by(z=bytes_of(9, 10))
    home.keep(a=bytes_of(1, 10))
    home.repository.store = Growing(home.repository.store, home)
    report = prune(home.repository, LAZY)
    assert report.rescued >= 1 and report.unused == 2
    home.verify()
    assert load_condemned(home.repository) == []


def test_deleting_one_snapshot_of_a_hundred_leaves_the_index_of_the_others() -> None:
    """Clients load anew what changes: of a hundred runs' packs, only what the deleted one's share an object with."""
    home = Home()
    store, runs = home.repository.store, [receipt_of(random_ids(200, number)) for number in range(120)]
    for run in runs[:100]:
        save_index(home.repository, [run])
    rewrite_index(home.repository, {runs[0].pack_id})  # there are many of one size: they are joined once
    assert len(list(store.list("index/"))) == 1
    for number, run in enumerate(runs[100:112]):
        save_index(home.repository, [run])
        before = dict(store.list("index/"))
        written, deleted = rewrite_index(home.repository, {runs[100 + number // 2].pack_id} if number % 2 else ())
        after = dict(store.list("index/"))
        assert len(after.keys() - before.keys()) == written <= 1
        assert deleted == number % 2
    large = max(after.values())
    assert large in before.values(), "what was joined long ago is not touched by what came later"
    left = set(ChunkIndex.load(home.repository, None).packs)
    assert left == {run.pack_id for run in runs[1:112]} - {run.pack_id for run in runs[100:106]}


def test_objects_are_joined_by_size_so_that_large_ones_stay() -> None:
    small, medium = [(f"index/{n}", 700) for n in range(20)], [(f"index/m{n}", 100_000) for n in range(15)]
    assert _to_join([*small, *medium]) == {name for name, _ in small}
    assert _to_join([*small[:15], *medium]) == set()
    assert len(_to_join([*medium, ("index/x", 130_000)])) == 16
    assert _to_join([("index/large", 9 << 20)] * 40) == set()
