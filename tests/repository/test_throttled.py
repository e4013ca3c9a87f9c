from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from model.errors import UsageError
from repository.store import MemoryStore, Store, open_store
from repository.store.limits import parse_limit
from repository.store.throttled import Bucket, ThrottledStore, limited
from tests.contracts.store import StoreContract
from tests.repository.test_retrying import Clock

MIB = 1 << 20


class TestThrottledStore(StoreContract):
    @pytest.fixture
    def store(self) -> Store:
        clock = Clock()
        bucket = Bucket("1MiB", clock=lambda: clock.now, sleep=clock.sleep)
        return ThrottledStore(MemoryStore(), bucket, bucket)


def bucket_of(text: str, clock: Clock, share: int = 1, minute: int = 0) -> Bucket:
    return Bucket(text, share, clock=lambda: clock.now, sleep=clock.sleep, minute=lambda: minute + int(clock.now // 60))


@pytest.mark.parametrize("object_size", [1000, 64 << 10, 4 * MIB])
@pytest.mark.parametrize(("text", "rate"), [("50Mbit", 6.25e6), ("10MiB", 10 * MIB), ("800kB", 8e5)])
def test_the_rate_holds_within_five_percent_over_ten_seconds(text: str, rate: float, object_size: int) -> None:
    clock, moved = Clock(), 0
    store = ThrottledStore(MemoryStore(), bucket_of(text, clock), None)
    while moved < 10 * rate:
        store.put(f"packs/{moved}", [bytes(object_size // 2), bytes(object_size - object_size // 2)])
        moved += object_size
    assert moved / clock.now == pytest.approx(rate, rel=0.05)


def test_downloads_have_a_bucket_of_their_own() -> None:
    clock = Clock()
    store = ThrottledStore(MemoryStore(), None, bucket_of("1MiB", clock))
    store.put("packs/one", [bytes(8 * MIB)])
    assert clock.now == 0
    for part in range(8):
        store.get("packs/one", part * MIB, MIB)
    assert clock.now == pytest.approx(8, rel=0.05)


def test_nothing_is_saved_up_while_nothing_moves() -> None:
    clock = Clock()
    bucket = bucket_of("1MiB", clock)
    bucket.take(MIB)
    clock.now = 1000
    bucket.take(2 * MIB)
    assert clock.now - 1000 == pytest.approx(2, rel=0.01)


def test_lanes_share_the_rate_in_real_time() -> None:
    import time

    bucket, began = Bucket("20MiB"), time.monotonic()
    threads = [threading.Thread(target=bucket.take, args=(5 * MIB,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.monotonic() - began >= 0.95  # each with a bucket of its own would be done in a fourth of that


def test_a_limit_changes_while_bytes_move(tmp_path: Path) -> None:
    clock = Clock()
    bucket = bucket_of("1MiB", clock)
    bucket.take(2 * MIB)
    bucket.change("4MiB")
    bucket.take(8 * MIB)
    assert clock.now == pytest.approx(4, rel=0.05)
    bucket.change("unlimited")
    bucket.take(1 << 40)
    assert clock.now == pytest.approx(4, rel=0.05)


def test_a_file_holds_the_limit_and_may_be_rewritten(tmp_path: Path) -> None:
    file, clock = tmp_path / "limit", Clock()
    file.write_text("1MiB\n")
    bucket = bucket_of(f"@{file}", clock)
    bucket.take(4 * MIB)
    assert clock.now == pytest.approx(4, rel=0.05)
    file.write_text("10MiB\n")
    clock.now += 2
    began = clock.now
    bucket.take(40 * MIB)
    assert clock.now - began == pytest.approx(4, rel=0.05)
    file.write_text("10Mi")
    os.unlink(file)
    clock.now += 2
    began = clock.now
    bucket.take(40 * MIB)
    assert clock.now - began == pytest.approx(4, rel=0.05)


def test_windows_open_and_close_by_the_clock() -> None:
    clock = Clock()
    bucket = bucket_of("08:00-18:00 1MiB, 4MiB", clock, minute=18 * 60 - 1)
    bucket.take(60 * MIB)  # the last minute of the window
    assert clock.now == pytest.approx(60, rel=0.05)
    bucket.take(240 * MIB)
    assert clock.now == pytest.approx(120, rel=0.05)


def test_a_share_of_the_limit() -> None:
    clock = Clock()
    bucket_of("4MiB", clock, share=4).take(10 * MIB)
    assert clock.now == pytest.approx(10, rel=0.05)


@pytest.mark.parametrize(
    ("text", "minute", "rate"),
    [
        ("50Mbit", 0, 6.25e6),
        ("50 Mbit/s", 0, 6.25e6),
        ("1.5g", 0, 1.5 * (1 << 30)),
        ("10MB", 0, 1e7),
        ("2KiB/s", 0, 2048),
        ("4096", 0, 4096),
        ("unlimited", 0, None),
        ("08:00-18:00 50Mbit", 8 * 60 - 1, None),
        ("08:00-18:00 50Mbit", 8 * 60, 6.25e6),
        ("08:00-18:00 50Mbit", 18 * 60, None),
        ("22:00-06:00 unlimited, 1MiB", 23 * 60, None),
        ("22:00-06:00 unlimited, 1MiB", 5 * 60, None),
        ("22:00-06:00 unlimited, 1MiB", 6 * 60, MIB),
        ("00:00-24:00 1MiB", 1439, MIB),
    ],
)
def test_limits_as_they_are_written(text: str, minute: int, rate: float | None) -> None:
    assert parse_limit(text).rate_at(minute) == rate


@pytest.mark.parametrize(
    "text", ["", "0", "fast", "10 furlongs", "1MiB, 2MiB", "25:00-26:00 1MiB", "08:61-09:00 1MiB", "8-9 1MiB", "@/none"]
)
def test_limits_that_make_no_sense(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        Bucket(text)
    assert caught.value.hint


def test_the_environment_limits_every_store_of_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert limited(MemoryStore()).__class__ is MemoryStore
    monkeypatch.setenv("LOX_LIMIT_UPLOAD", "9MiB")
    monkeypatch.setenv("LOX_LIMIT_SHARE", "3")
    one, two = open_store(str(tmp_path / "one")), open_store(str(tmp_path / "two"))
    assert isinstance(one, ThrottledStore) and isinstance(two, ThrottledStore)
    assert one._up is two._up is not None
    assert one._down is None
