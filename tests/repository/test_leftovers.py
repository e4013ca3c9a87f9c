"""What killed writers left half-written is removed, and nothing that a living one is at."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from repository.leftovers import LONGEST_WRITER
from repository.prune import prune
from repository.repair import repair
from repository.session_state import HERE
from repository.sessions import Session, open_session
from repository.store import LocalStore
from tests.repository.prunes import ALL, Home, bytes_of

HOUR = 3600


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(LocalStore(str(tmp_path)))
    home.keep(a=bytes_of(1, 4))
    return home


def leave(folder: Path, hours: float, size: int = 1000) -> Path:
    """A file as a writer leaves it that was killed so many hours ago."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f".tmp-{os.urandom(8).hex()}"
    path.write_bytes(bytes(size))
    os.utime(path, (time.time() - hours * HOUR,) * 2)
    return path


def test_prune_removes_what_is_older_than_any_writer(home: Home, tmp_path: Path) -> None:
    limit = LONGEST_WRITER / 1e9 / HOUR
    old = [leave(tmp_path / "packs" / "aa", limit + 1), leave(tmp_path, 1000, 24)]
    young = leave(tmp_path / "index", limit - 1)
    dry = prune(home.repository, ALL, dry_run=True)
    assert (dry.leftovers, dry.leftover_bytes) == (2, 1024) and all(path.exists() for path in old)
    report = prune(home.repository, ALL)
    assert (report.leftovers, report.leftover_bytes) == (2, 1024)
    assert not any(path.exists() for path in old) and young.exists()
    home.verify()
    assert prune(home.repository, ALL).leftovers == 0


def test_a_session_that_is_older_keeps_them(home: Home, tmp_path: Path) -> None:
    """It may have been suspended for a week in the middle of a pack."""
    session = Session(home.repository, "backup")
    (name,) = [name for name, _ in home.repository.store.list(f"sessions/{session.id}/")]
    os.utime(tmp_path / name, (time.time() - 400 * HOUR,) * 2)
    session._state = type(session._state)(**{
        field: getattr(session._state, field) for field in session._state.__slots__
    } | {"since": time.time_ns() - 400 * HOUR * 10**9})  # fmt: skip
    session.renew()
    before, since = leave(tmp_path / "packs", 500), leave(tmp_path / "packs", 300)
    report = prune(home.repository, ALL)
    assert report.leftovers == 1 and not before.exists() and since.exists()
    session.close()
    assert session.id not in HERE
    assert prune(home.repository, ALL).leftovers == 1 and not since.exists()


def test_repair_plans_and_does_the_same(home: Home, tmp_path: Path) -> None:
    old, young = leave(tmp_path / "packs" / "aa", 100), leave(tmp_path / "packs" / "aa", 1)
    plan = repair(home.repository)
    assert [each.path for each in plan.leftovers] == [f"packs/aa/{old.name}"] and old.exists()
    assert plan.nothing_to_do, "it is no damage"
    done = repair(home.repository, apply=True)
    assert len(done.leftovers) == 1 and not old.exists() and young.exists()
    home.verify()


def test_a_second_name_of_an_object_takes_no_room(home: Home, tmp_path: Path) -> None:
    """A writer that was killed between giving the object its name and taking the first one away."""
    (name, *_) = home.packs()
    twin = (tmp_path / name).parent / ".tmp-0123456789abcdef"
    os.link(tmp_path / name, twin)
    os.utime(twin, (time.time() - 100 * HOUR,) * 2)
    report = prune(home.repository, ALL)
    assert (report.leftovers, report.leftover_bytes) == (1, 0)
    home.verify()


def test_strangers_stay(home: Home, tmp_path: Path) -> None:
    """Names of no writer of ours, links, folders, and what lies behind them."""
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    leave(outside, 100)
    (tmp_path / "packs" / "link").symlink_to(outside)
    (tmp_path / ".tmp-folder").mkdir()
    (tmp_path / ".tmp-link").symlink_to(outside)
    (tmp_path / ".other").write_bytes(b"x")
    os.utime(tmp_path / ".other", (0, 0))
    assert prune(home.repository, ALL).leftovers == 0
    assert len(list(outside.iterdir())) == 1


def test_writers_and_prunes_side_by_side(home: Home) -> None:
    """A put that is under way is never disturbed."""
    store, failures = home.repository.store, []

    def write() -> None:
        try:
            for number in range(200):
                store.put(f"packs/zz/{threading.get_ident()}-{number}", [b"x" * 100])
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=write) for _ in range(3)]
    for thread in threads:
        thread.start()
    with open_session(home.repository, "backup"):
        while any(thread.is_alive() for thread in threads):
            assert prune(home.repository, ALL).leftovers == 0
    assert failures == []
