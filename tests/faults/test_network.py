"""What networks and object stores do between a backup and its repository: B1 to B10 of the fault catalogue.

The store is a real S3 server behind a real HTTP proxy that loses, cuts, exchanges and refuses.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from model.errors import Damaged, Exists, Refused, StoreError, Transient
from pipelines.options import EngineOptions, Watch
from pipelines.restore import RestoreRequest, restore
from repository.check import check
from repository.index import ChunkIndex
from repository.pack import PackKind, pack_name
from repository.repository import Repository
from repository.snapshot import load_all, resolve
from repository.store import Store, objects, open_store, retrying
from repository.store.remote import open_remote
from repository.store.retrying import RetryingStore
from repository.trash import forget, load_trash
from tests.faults import proxy as faults
from tests.faults.proxy import Action, Answer, Proxy, Request, faulty_proxy, refuse
from tests.faults.scenarios import CHEAP, CHUNKS, ENGINE, back_up, look
from tests.repository.servers import BUCKET, s3_server
from tests.repository.test_retrying import Clock


@pytest.fixture(scope="module")
def moto() -> Iterator[dict[str, str]]:
    with s3_server() as environment:
        yield environment


@pytest.fixture
def proxy(moto: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    upstream = int(moto["AWS_ENDPOINT_URL"].rpartition(":")[2])
    with faulty_proxy(upstream) as proxy:
        for name, value in moto.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.port}")
        monkeypatch.setattr(retrying, "BASE", 0.01)  # seconds: the waits themselves are tested elsewhere
        monkeypatch.setattr(retrying, "CAP", 0.05)
        yield proxy


@pytest.fixture
def url(proxy: Proxy, tmp_path: Path) -> str:
    return f"s3://{BUCKET}/{tmp_path.parent.name}-{tmp_path.name}"


@pytest.fixture
def store(url: str) -> Store:
    return open_store(url)


@pytest.fixture
def bare(url: str) -> Store:
    """Without anybody who repeats."""
    return open_remote(url)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root, dice = tmp_path / "tree", random.Random(2)
    root.mkdir()
    for number in range(12):
        (root / f"file{number}").write_bytes(dice.randbytes(30_000))
    return root


def new(store: Store) -> Repository:
    return Repository.init(store, "secret", CHUNKS, kdf=CHEAP)[0]


def restored(repository: Repository, folder: Path, tree: Path) -> dict[str, bytes]:
    """What the last snapshot restores to."""
    out = folder / f"out{time.monotonic_ns()}"
    report = restore(repository, RestoreRequest(resolve(repository, "latest"), os.fsencode(out)), ENGINE, Watch())
    assert report.problems == []
    return look(out / os.fspath(tree)[1:])


# ---- B1, B2: who stored it


@pytest.mark.parametrize("size", [10, 3 << 20])
def test_a_put_whose_answer_got_lost_is_recognised(proxy: Proxy, store: Store, size: int) -> None:
    data = os.urandom(size)
    rule = proxy.rule("PUT", "packs/", faults.lose_answer, times=1)
    store.put("packs/aa/one", [data])
    assert rule.hits == 1 and store.get("packs/aa/one") == data
    with pytest.raises(Exists):
        store.put("packs/aa/one", [data])


def test_a_put_that_never_arrived_is_sent_again(proxy: Proxy, store: Store) -> None:
    rule = proxy.rule("PUT", "packs/", faults.lose_request, times=2)
    store.put("packs/aa/one", [b"data"])
    assert rule.hits == 2 and store.get("packs/aa/one") == b"data"


def test_a_delete_whose_answer_got_lost_is_done(proxy: Proxy, store: Store) -> None:
    store.put("keys/one", [b"x"])
    proxy.rule("DELETE|POST", "", faults.lose_answer, times=1)
    store.delete("keys/one")
    assert not store.exists("keys/one")


@pytest.mark.parametrize("code", ["ConditionalRequestConflict", "OperationAborted"])
def test_a_conflict_is_no_verdict(proxy: Proxy, store: Store, bare: Store, code: str) -> None:
    """409 says that another request was under way, not that the name is taken."""
    proxy.rule("PUT", "packs/", refuse(409, code), times=1)
    with pytest.raises(Transient):
        bare.put("packs/aa/zero", [b"data"])
    rule = proxy.rule("PUT", "packs/", refuse(409, code), times=2)
    store.put("packs/aa/one", [b"data"])
    assert rule.hits == 2 and store.get("packs/aa/one") == b"data"


def test_a_name_that_is_taken_is_taken(proxy: Proxy, store: Store) -> None:
    store.put("packs/aa/one", [b"data"])
    with pytest.raises(Exists):
        store.put_unasked("packs/aa/one", [b"data"])


# ---- B7: other bytes than were asked for


@pytest.mark.parametrize("action", [faults.cut, faults.ignore_range, faults.lose_answer])
def test_an_answer_that_is_cut_or_too_long_is_asked_for_again(proxy: Proxy, store: Store, action: Action) -> None:
    data = random.Random(1).randbytes(200_000)
    store.put("packs/aa/one", [data])
    rule = proxy.rule("GET", "packs/aa/one", action, times=1)
    assert store.get("packs/aa/one", 1000, 50_000) == data[1000:51_000]
    assert rule.hits == 1


def test_a_server_that_knows_no_ranges_is_read_from_the_beginning(proxy: Proxy, bare: Store) -> None:
    data = random.Random(1).randbytes(5_000_000)
    bare.put("packs/aa/one", [data])
    rule = proxy.rule("GET", "packs/aa/one", faults.ignore_range)
    for offset, length in ((0, 10), (1000, 50_000), (3_000_000, None), (4_999_990, 100), (0, 1 << 62), (5_000_000, 5)):
        expected = data[offset:] if length is None else data[offset : offset + length]
        assert bare.get("packs/aa/one", offset, length) == expected
    assert rule.hits >= 6


@pytest.mark.parametrize("action", [faults.cut])
def test_who_always_answers_so_is_given_up(proxy: Proxy, url: str, action: Action) -> None:
    store = RetryingStore(open_remote(url), budget=0.2)
    store.put("packs/aa/one", [bytes(200_000)])
    proxy.rule("GET", "packs/aa/one", action)
    with pytest.raises(StoreError):
        store.get("packs/aa/one", 1000, 50_000)


@pytest.mark.parametrize("action", [faults.shift_range, faults.flip])
@pytest.mark.parametrize("path", ["packs/", "index/", "snapshots/", "config", "keys/"])
def test_wrong_bytes_are_found_out_and_never_restored(
    proxy: Proxy, store: Store, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, action: Action
) -> None:
    """They are damage, never a wrong password; once the store answers rightly again, nothing is wrong."""
    repository = new(store)
    back_up(repository, tree)
    rule = proxy.rule("GET", f"/{path}", action)
    monkeypatch.setenv("LOX_CACHE_DIR", str(tmp_path / "another host"))
    if path in ("keys/", "config"):
        with pytest.raises(Damaged):
            Repository.open(store, "secret")
    else:
        opened = Repository.open(store, "secret")
        assert not check(opened, "data").sound
        if path == "index/":  # readers ask the packs themselves
            assert restored(opened, tmp_path, tree) == look(tree)
        else:
            with pytest.raises(Damaged):
                restored(opened, tmp_path, tree)
    assert rule.hits > 0
    proxy.rules.clear()
    opened = Repository.open(store, "secret")
    assert check(opened, "data").findings == []
    assert restored(opened, tmp_path, tree) == look(tree)


@pytest.mark.ray
def test_the_process_that_started_them_counts_what_workers_read_wrong_once(
    proxy: Proxy, store: Store, tree: Path, tmp_path: Path
) -> None:
    repository = new(store)
    back_up(repository, tree)
    index = ChunkIndex.load(repository, None)
    (pack,) = (pack for pack, kind in zip(index.packs, index.pack_table["kind"], strict=True) if kind == PackKind.DATA)
    rule = proxy.rule("GET", pack_name(pack), faults.flip, times=1)  # this process reads manifests only
    request = RestoreRequest(resolve(repository, "latest"), os.fsencode(tmp_path / "out"))
    report = restore(repository, request, EngineOptions(executor="ray", lanes=2), Watch())
    assert report.problems == [] and look(tmp_path / "out" / os.fspath(tree)[1:]) == look(tree)
    assert (rule.hits, repository.rereads.count, repository.rereads.names) == (1, 1, [pack_name(pack)])


# ---- B8: nobody may delete


def test_credentials_that_cannot_delete_are_enough_for_backups(
    proxy: Proxy, store: Store, tree: Path, tmp_path: Path
) -> None:
    proxy.rule("DELETE|POST", "", refuse(403, "AccessDenied"))
    repository = new(store)
    first = back_up(repository, tree)
    (tree / "more").write_bytes(b"more" * 5000)
    back_up(repository, tree)
    assert restored(repository, tmp_path, tree) == look(tree)
    with pytest.raises(Refused) as caught:
        forget(repository, first, "by name", 1)
    assert "delete" in caught.value.hint
    assert first in {one.id for one in load_all(repository)} and first in {one.id for one in load_trash(repository)}
    with pytest.raises(Refused):
        repository.change_password("another", CHEAP)
    for secret in ("secret", "another"):
        Repository.open(store, secret)
    assert check(repository, "data").findings == []


# ---- B9, B10: slow, down, and up again


def test_a_stalled_answer_is_not_waited_for_for_ever(proxy: Proxy, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "_SILENCE", "1s")
    monkeypatch.setattr(objects, "_TIMEOUT", "3s")
    store, release = open_store(url), threading.Event()
    store.put("packs/aa/one", [b"x" * 100_000])
    began = time.monotonic()
    large = bytes(2 << 20)
    for method, act in (
        ("GET", lambda: store.get("packs/aa/one")),
        ("HEAD", lambda: store.size("packs/aa/one")),
        ("PUT", lambda: store.put("packs/aa/two", [b"y" * 100_000])),
        ("PUT", lambda: store.put("packs/aa/large", [large])),
    ):
        rule = proxy.rule(method, "packs/", faults.stall(release), times=1)
        act()
        assert rule.hits == 1
    release.set()
    assert time.monotonic() - began < 120  # six seconds, and what a busy machine adds
    assert store.get("packs/aa/two") == b"y" * 100_000 and store.get("packs/aa/large") == large


@pytest.mark.parametrize("seed", range(2))
def test_a_storm_of_errors_costs_time_and_nothing_else(
    proxy: Proxy, store: Store, tree: Path, tmp_path: Path, seed: int
) -> None:
    """A third of all requests fail in one way or another, from the first to the last."""
    dice, lock = random.Random(seed), threading.Lock()
    troubles = [
        refuse(503, "SlowDown"),
        refuse(500, "InternalError"),
        refuse(429, "TooManyRequests", Retry_After="0"),
        faults.lose_answer,
        faults.lose_request,
    ]

    def maybe(request: Request) -> Answer | None:
        with lock:
            trouble = dice.choice(troubles) if dice.random() < 0.33 else None
        return trouble(request) if trouble else request.hand_on()

    rule = proxy.rule(".*", "", maybe)
    repository = new(store)
    for generation in range(3):
        (tree / f"new{generation}").write_bytes(dice.randbytes(40_000))
        back_up(repository, tree)
    assert restored(repository, tmp_path, tree) == look(tree)
    forget(repository, load_all(repository)[0].id, "by name", 1)
    assert check(repository, "data").findings == []
    assert rule.hits > 60


def test_a_store_that_stays_down_ends_the_run_and_commits_nothing(
    proxy: Proxy, url: str, tree: Path, tmp_path: Path
) -> None:
    clock = Clock()  # that only waiting moves: however slow the machine is, there are several attempts
    repository = new(RetryingStore(open_remote(url), budget=0.3, sleep=clock.sleep, clock=lambda: clock.now))
    rule = proxy.rule("PUT", "/snapshots/", refuse(503, "SlowDown"))
    with pytest.raises(Transient) as caught:
        back_up(repository, tree)
    assert rule.hits >= 3 and "attempts" in caught.value.hint
    proxy.rules.clear()
    assert load_all(repository) == []
    before = sum(1 for _ in repository.store.list("packs/"))
    back_up(repository, tree)
    assert sum(1 for _ in repository.store.list("packs/")) <= before + 1, "what was sent is not sent again"
    assert restored(repository, tmp_path, tree) == look(tree)


def test_an_upload_may_take_longer_than_a_server_may_be_silent(
    proxy: Proxy, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "_SILENCE", "1s")
    store, bare = open_store(url), open_remote(url)  # the first repeats: on a busy machine any small answer may be late

    def slowly(request: Request) -> Answer:
        time.sleep(2)
        return request.hand_on()

    rule = proxy.rule("PUT", "packs/", slowly)
    store.put("packs/aa/large", [bytes(2 << 20)])
    assert rule.hits == 1
    with pytest.raises(Transient):
        bare.put("packs/aa/small", [b"x"])
