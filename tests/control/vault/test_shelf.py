"""The folder of a repository in the vault: room, interrupted uploads, what a killed server leaves, listings."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import pytest
from blake3 import blake3

from control.vault import uploads
from control.vault.names import is_allowed
from control.vault.shelf import Shelf
from control.vault.uploads import RESUMED_MIN, Upload, Wanted
from model.errors import Exists, Missing, StoreFull, Transient
from repository.store import LocalStore

NAME = "packs/aa/" + "0" * 32


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return made(tmp_path)


def made(folder: Path, quota: int | None = None) -> Shelf:
    shelf = Shelf(str(folder / "vault" / "tenant" / "repository"), quota)
    shelf.make()
    return shelf


def wanted(data: bytes, name: str = NAME, begin: int = 0) -> Wanted:
    return Wanted(name, len(data), blake3(data).digest(), begin)


def put(shelf: Shelf, data: bytes, name: str = NAME) -> None:
    want = wanted(data, name)
    upload = shelf.begin(want)
    upload.write([data])
    shelf.finish(want, upload)


def left(shelf: Shelf) -> list[str]:
    return os.listdir(os.path.join(shelf.folder, ".uploads"))


def test_what_arrived_whole_is_an_object_and_is_counted(shelf: Shelf) -> None:
    put(shelf, b"one" * 100)
    put(shelf, b"two", "config")
    assert shelf.objects.get(NAME) == b"one" * 100
    assert os.stat(os.path.join(shelf.folder, NAME)).st_mode & 0o777 == 0o400
    assert shelf.used() == 303
    with pytest.raises(Exists):
        shelf.begin(wanted(b"other"))
    shelf.delete(NAME)
    assert shelf.used() == 3 and left(shelf) == []
    with pytest.raises(Missing):
        shelf.delete(NAME)
    assert shelf.used() == 3


def test_what_arrived_spoilt_is_no_object(shelf: Shelf) -> None:
    want = wanted(b"a" * RESUMED_MIN)
    upload = shelf.begin(want)
    upload.write([b"a" * (RESUMED_MIN - 1), b"b"])
    with pytest.raises(Transient, match="not what was announced"):
        shelf.finish(want, upload)
    assert not shelf.objects.exists(NAME) and left(shelf) == [] and shelf.received(want) == 0
    assert shelf.used() == 0


def test_an_upload_goes_on_where_its_connection_broke(shelf: Shelf) -> None:
    data = os.urandom(3 * RESUMED_MIN)
    want = wanted(data)
    upload = shelf.begin(want)
    upload.write([data[: RESUMED_MIN + 77]])
    shelf.abandon(want, upload)
    assert shelf.received(want) == RESUMED_MIN + 77
    assert shelf.received(wanted(b"x" * len(data))) == 0, "of other content there is nothing"
    rest = wanted(data, begin=RESUMED_MIN + 70)
    upload = shelf.begin(rest)
    upload.write([data[RESUMED_MIN + 70 :]])
    shelf.finish(rest, upload)
    assert shelf.objects.get(NAME) == data and shelf.used() == len(data)


def test_a_disk_that_fills_while_an_object_comes_says_so(shelf: Shelf) -> None:
    want = wanted(b"a" * RESUMED_MIN)
    upload = shelf.begin(want)
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, upload._fd)
    os.close(full)
    with pytest.raises(StoreFull):
        shelf.write(want, upload, [b"a" * 4096])
    upload.close()
    assert left(shelf) == []


def test_uploads_that_broke_give_way_to_new_ones(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "UPLOADS_MAX", 4)
    for number in range(4):
        want = wanted(b"x" * (2 * RESUMED_MIN), f"packs/{number}")
        upload = shelf.begin(want)
        upload.write([b"x" * RESUMED_MIN])
        shelf.abandon(want, upload)
    put(shelf, b"new")
    assert len(left(shelf)) == 2, "the older half gave way"
    held = [shelf.begin(wanted(b"y", f"packs/held{number}")) for number in range(4)]
    with pytest.raises(Transient, match="too many uploads"):
        shelf.begin(wanted(b"z", "packs/one-too-many"))
    for upload in held:
        upload.close()


def test_what_broke_long_ago_is_reckoned_with_as_it_is(tmp_path: Path) -> None:
    shelf = made(tmp_path, quota=10 * RESUMED_MIN)
    want = wanted(b"x" * (9 * RESUMED_MIN))
    upload = shelf.begin(want)
    upload.write([b"x" * RESUMED_MIN])
    shelf.abandon(want, upload)
    other = wanted(b"y" * (5 * RESUMED_MIN), "packs/other")
    with pytest.raises(StoreFull):
        shelf.begin(other)
    (name,) = left(shelf)
    an_hour_ago = time.time() - 3600
    os.utime(os.path.join(shelf.folder, ".uploads", name), (an_hour_ago, an_hour_ago))
    shelf.begin(other).close()


def test_small_ones_begin_again(shelf: Shelf) -> None:
    want = wanted(b"small")
    upload = shelf.begin(want)
    upload.write([b"sma"])
    shelf.abandon(want, upload)
    assert left(shelf) == []


def test_a_beginning_that_is_gone_is_asked_for_again(shelf: Shelf) -> None:
    with pytest.raises(Transient, match="not here any more"):
        shelf.begin(wanted(b"x" * 100, begin=50))
    put(shelf, b"x" * 100)


def test_a_connection_that_nobody_knows_to_be_dead_does_not_hold_up_the_next(shelf: Shelf) -> None:
    data = os.urandom(2 * RESUMED_MIN)
    want = wanted(data)
    hung = shelf.begin(want)
    hung.write([data[:RESUMED_MIN]])
    assert shelf.received(want) == 0, "it cannot be gone on with as long as somebody holds it"
    put(shelf, data)
    shelf.abandon(want, hung)
    assert left(shelf) == [] and shelf.objects.get(NAME) == data and shelf.used() == len(data)


def test_of_two_that_end_at_once_one_wins_and_is_counted_once(shelf: Shelf) -> None:
    data = os.urandom(1000)
    want = wanted(data)
    first, second = shelf.begin(want), shelf.begin(want)
    for upload in (first, second):
        upload.write([data])
    shelf.finish(want, second)
    with pytest.raises(Exists):
        shelf.finish(want, first)
    assert shelf.used() == 1000 and left(shelf) == []


def test_a_quota_counts_what_is_on_its_way(tmp_path: Path) -> None:
    shelf = made(tmp_path, quota=1000)
    put(shelf, b"a" * 600)
    with pytest.raises(StoreFull, match="600 of 1,000 bytes"):
        shelf.begin(wanted(b"b" * 401, "packs/bb/1"))
    coming = wanted(b"b" * 300, "packs/bb/1")
    upload = shelf.begin(coming)
    with pytest.raises(StoreFull):
        shelf.begin(wanted(b"c" * 101, "packs/cc/1"))
    shelf.abandon(coming, upload)
    put(shelf, b"c" * 101, "packs/cc/1")
    shelf.delete(NAME)
    put(shelf, b"d" * 800, "packs/dd/1")
    assert shelf.used() == 901


def test_uploads_at_a_time_are_bounded(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "UPLOADS_MAX", 3)
    begun: list[Upload] = [shelf.begin(wanted(b"x" * 10, f"packs/aa/{number}")) for number in range(3)]
    with pytest.raises(Transient, match="too many"):
        shelf.begin(wanted(b"y" * 10))
    for upload in begun:
        upload.close()
    put(shelf, b"y" * 10)


def _stop_before_counting(folder: Path) -> None:
    shelf = made(folder)
    want = wanted(b"z" * 2000, "packs/zz/1")
    upload = shelf.begin(want)
    upload.write([b"z" * 2000])
    upload.sync()
    shelf.objects.adopt(want.name, upload.path)
    os.kill(os.getpid(), signal.SIGKILL)


def test_what_a_killed_server_did_not_come_to_count_is_counted_by_the_next(tmp_path: Path) -> None:
    shelf = made(tmp_path)
    put(shelf, b"one")
    child = multiprocessing.get_context("spawn").Process(target=_stop_before_counting, args=(tmp_path,))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    assert len(left(shelf)) == 1 and shelf.used() == 3
    shelf.tidy()
    assert left(shelf) == [] and shelf.used() == 2003
    shelf.tidy()
    assert shelf.used() == 2003


def test_old_uploads_are_given_up_and_those_at_work_are_not(shelf: Shelf) -> None:
    data = b"d" * (RESUMED_MIN + 1)
    cut, going = wanted(data, "packs/cc/1"), wanted(data, "packs/gg/1")
    upload = shelf.begin(cut)
    upload.write([data[:-1]])
    shelf.abandon(cut, upload)
    upload = shelf.begin(going)
    upload.write([data])
    for name in left(shelf):
        os.utime(os.path.join(shelf.folder, ".uploads", name), (0, time.time() - uploads.KEPT_SECONDS - 60))
    shelf.tidy()
    assert shelf.received(cut) == 0 and len(left(shelf)) == 1
    shelf.finish(going, upload)
    assert shelf.used() == len(data)


def test_a_lost_count_is_made_again(shelf: Shelf) -> None:
    put(shelf, b"12345")
    os.truncate(os.path.join(shelf.folder, ".usage"), 0)
    assert shelf.used() == 5


def test_pages_are_the_listing_in_pieces(shelf: Shelf) -> None:
    store, draw = LocalStore(shelf.folder), random.Random(7)
    names = {f"packs/{draw.randrange(256):02x}/{draw.randrange(1 << 20):05x}" for _ in range(150)}
    names |= {"config", "keys/a", "keys/epochs/b", "packs/aa.b", "packs/aa-c", "packs/aa/0", "index/1", "snapshots/9"}
    for name in names:
        store.put(name, [name.encode()])
    for prefix in ("", "packs/", "packs/a", "keys/e", "nothing/"):
        expected = list(store.list(prefix))
        for limit in (1, 7, 1000):
            listed, after, more = [], "", True
            while more:
                page, more = shelf.page(prefix, after, limit)
                listed += [(stored.name, stored.size) for stored in page]
                assert len(page) <= limit
                after = page[-1].name if page else ""
            assert listed == expected, (prefix, limit)


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("config", True),
        ("packs/aa/" + "0" * 32, True),
        ("keys/writers/" + "0" * 32 + "/issued", True),
        ("probe-0123456789abcdef/a/one", True),
        ("probe-x/a/one", False),
        ("other", False),
        ("config/x", False),
        ("packs", False),
        ("packs/../../../etc/passwd", False),
        ("packs/.uploads/x", False),
        (".usage", False),
        ("/packs/aa/x", False),
        ("packs//x", False),
        ("packs/aa/x\n", False),
        ("packs/" + "/".join("abcdefgh"), False),
    ],
)
def test_only_names_of_the_format_are_allowed(name: str, allowed: bool) -> None:
    assert is_allowed(name) == allowed
