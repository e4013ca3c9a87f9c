"""The folder of a repository in the vault: what takes long in it holds up nobody."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import pytest

from control.vault import listing
from control.vault.uploads import RESUMED_MIN
from tests.control.vault.test_shelf import made, put, wanted

T = TypeVar("T")


def _at_once(work: Callable[[], T]) -> T:
    """What `work` gives, in a thread; it must not wait for what this one is in the middle of."""
    pool = ThreadPoolExecutor(1)
    try:
        return pool.submit(work).result(timeout=30)
    finally:
        pool.shutdown(wait=False)


def test_counting_holds_up_nobody_and_misses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf, others = made(tmp_path), made(tmp_path)
    put(shelf, b"one")
    Path(shelf.folder, ".usage").write_text("0" * 19 + "7")  # a server was killed before it counted
    walk, names = listing.everything, iter(["packs/bb/1", "packs/bb/2", "packs/bb/3"])

    def walked(folder: str) -> Iterator[listing.Stored]:
        yield from list(walk(folder))
        if (name := next(names, None)) is not None:
            _at_once(lambda: put(others, b"while it walks", name))

    monkeypatch.setattr(listing, "everything", walked)
    assert not shelf.tidy(recount=True) and shelf.used() == 7 + 3 * 14, "too busy: it is counted the next time"
    assert shelf.tidy(recount=True) and shelf.used() == 3 + 3 * 14


def test_who_goes_on_with_a_large_upload_holds_up_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf, others = made(tmp_path), made(tmp_path)
    data = b"d" * (RESUMED_MIN + 1)
    want = wanted(data)
    upload = shelf.begin(want)
    upload.write([data[:-1]])
    shelf.abandon(want, upload)
    read = os.pread

    def slow(fd: int, count: int, at: int) -> bytes:
        if count > 1 << 10:  # what is here of it, gigabytes of a slow disk
            monkeypatch.setattr(os, "pread", read)
            _at_once(lambda: put(others, b"another", "packs/bb/1"))
        return read(fd, count, at)

    monkeypatch.setattr(os, "pread", slow)
    upload = shelf.begin(wanted(data, begin=len(data) - 1))
    assert shelf.used() == 7, "the other was stored meanwhile"
    upload.write([data[-1:]])
    shelf.finish(want, upload)
    assert shelf.used() == 7 + len(data)
