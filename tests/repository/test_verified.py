"""The rolling scrub: every pack in turn, what was read is remembered, and nobody else can say it was."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest

from model.errors import Interrupted
from repository.check import check
from repository.repository import Repository
from repository.verified import NAME, VerifiedLog
from tests.repository.samples import back_up, new_repository

PACKS = 2 * 15  # of data and of metadata


@pytest.fixture
def repository() -> Repository:
    repository = new_repository()
    for number in range(15):
        back_up(repository, {b"f": random.Random(number).randbytes(900 + 40 * number)})
    return repository


def test_as_many_runs_as_the_share_says_read_everything(repository: Repository, tmp_path: Path) -> None:
    runs = 10
    for _ in range(runs):
        report = check(repository, "data", 1 / runs, verified=VerifiedLog.open(repository, tmp_path), rolling=True)
        assert 0 < report.packs_read <= 2 * PACKS / runs
    assert len(VerifiedLog.open(repository, tmp_path).times) == PACKS


def test_the_oldest_are_read_first(repository: Repository, tmp_path: Path) -> None:
    log = VerifiedLog.open(repository, tmp_path)
    check(repository, "data", verified=log)
    oldest = sorted(log.times, key=lambda pack: log.times[pack])
    before = dict(log.times)
    check(repository, "data", 0.2, verified=VerifiedLog.open(repository, tmp_path), rolling=True)
    after = VerifiedLog.open(repository, tmp_path).times
    again = [pack for pack in oldest if after[pack] > before[pack]]
    assert 0 < len(again) < PACKS / 2 and again == oldest[: len(again)]


def test_a_run_that_is_broken_off_is_not_lost(repository: Repository, tmp_path: Path) -> None:
    def stop(what: str, done: int, total: int) -> None:
        if what == "reading packs" and done > total / 2:
            raise Interrupted("interrupted")

    with pytest.raises(Interrupted):
        check(repository, "data", progress=stop, verified=VerifiedLog.open(repository, tmp_path))
    read = set(VerifiedLog.open(repository, tmp_path).times)
    assert PACKS / 4 < len(read) < PACKS
    log = VerifiedLog.open(repository, tmp_path)
    times = dict(log.times)
    check(repository, "data", 0.1, verified=log, rolling=True)
    assert all(log.times[pack] == times[pack] for pack in read), "others come first"


def test_a_damaged_pack_is_read_every_time_until_it_is_sound(repository: Repository, tmp_path: Path) -> None:
    name, _ = max(repository.store.list("packs/"), key=lambda each: each[1])
    good = repository.store.get(name)
    repository.store.delete(name)
    repository.store.put(name, [good[:600] + bytes([good[600] ^ 1]) + good[601:]])
    assert not check(repository, "data", verified=VerifiedLog.open(repository, tmp_path)).sound
    for _ in range(5):
        log = VerifiedLog.open(repository, tmp_path)
        assert log.damaged == {bytes.fromhex(name[-32:])}
        assert not check(repository, "data", 0.01, verified=log, rolling=True).sound
    repository.store.delete(name)
    repository.store.put(name, [good])
    assert check(repository, "data", 0.01, verified=VerifiedLog.open(repository, tmp_path), rolling=True).sound
    assert VerifiedLog.open(repository, tmp_path).damaged == set()


@pytest.mark.parametrize("cut", [1, 31, 33])
def test_a_torn_log_loses_its_last_records_only(cut: int, tmp_path: Path) -> None:
    repository = new_repository()
    log = VerifiedLog.open(repository, tmp_path)
    packs = [bytes([number]) * 16 for number in range(4)]
    for number, pack in enumerate(packs):
        log.record(pack, True, 1000 + number)
    path = tmp_path / repository.id.hex() / NAME
    os.truncate(path, 128 - cut)
    torn = VerifiedLog.open(repository, tmp_path)
    assert list(torn.times) == packs[: (128 - cut) // 32]
    torn.record(packs[3], False, 2000)
    again = VerifiedLog.open(repository, tmp_path)
    assert again.damaged == {packs[3]} and set(again.times) <= set(packs[:3])


def test_what_is_forged_or_of_a_wrong_clock_counts_for_nothing(tmp_path: Path) -> None:
    ours, theirs = new_repository(), new_repository()
    log = VerifiedLog.open(theirs, tmp_path)
    log.record(bytes(16), True)
    VerifiedLog.open(ours, tmp_path).record(bytes(16), True, time.time_ns() + 10**12)
    path = tmp_path / ours.id.hex() / NAME
    with open(path, "ab") as out:
        out.write((tmp_path / theirs.id.hex() / NAME).read_bytes() + os.urandom(64))
    assert VerifiedLog.open(ours, tmp_path).times == {}
    assert VerifiedLog.open(theirs, tmp_path).times.keys() == {bytes(16)}


def test_packs_that_are_gone_are_forgotten(repository: Repository, tmp_path: Path) -> None:
    log = VerifiedLog.open(repository, tmp_path)
    log.record(bytes(16), True, 1)
    log.record(bytes(15) + b"x", False, 1)
    check(repository, "data", verified=log)
    again = VerifiedLog.open(repository, tmp_path)
    assert len(again.times) == PACKS and again.damaged == set()


def test_a_cache_that_cannot_be_written_costs_nothing_else(repository: Repository) -> None:
    assert check(repository, "data", verified=VerifiedLog.open(repository, Path("/proc/nowhere"))).sound
