"""What an ordinary user can restore, and what becomes of the rest."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import stat
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from model.entries import Kind
from tests.sources.restoring import directory, held, held_tree, restore, row_of

NOBODY = 65534
ELSEBODY = 4321


@pytest.fixture
def place() -> Path:
    """A directory that an ordinary user may write to and reach, unlike those of pytest."""
    place = Path(tempfile.mkdtemp(prefix="lox-user-"))
    if os.geteuid() == 0:
        os.chown(place, NOBODY, NOBODY)
    return place


def as_user(work: Callable[[Path], None], place: Path) -> None:
    """Run `work` in a child that is nobody (or who we are, if that is not root)."""
    child = multiprocessing.get_context("fork").Process(target=_child, args=(work, place))
    child.start()
    child.join(60)
    shutil.rmtree(place, ignore_errors=True)
    assert child.exitcode == 0


def _child(work: Callable[[Path], None], place: Path) -> None:
    try:
        if os.geteuid() == 0:
            os.setgroups([NOBODY])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
        work(place)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def _foreign_things(place: Path) -> None:
    label = [{"name": b"trusted.label", "value": b"1"}, {"name": b"user.note", "value": b"2"}]
    snapshot = held(
        directory(b"d", uid=ELSEBODY, gid=ELSEBODY, mode=0o555),
        (row_of(b"foreign", b"1", uid=ELSEBODY, gid=ELSEBODY, mode=0o6755), b"1"),
        (row_of(b"labelled", b"1", xattrs=label), b"1"),
        row_of(b"null", kind=Kind.CHAR_DEVICE, rdev=os.makedev(1, 3), mode=0o666),
        (row_of(b"own", b"1", mode=0o4755), b"1"),
        row_of(b"pipe", kind=Kind.FIFO, mode=0o600),
        row_of(b"to nowhere", kind=Kind.SYMLINK, target=b"x", uid=ELSEBODY, mode=0o777),
        (row_of(b"unreadable", b"1", mode=0o000), b"1"),
        (row_of(b"d/large", bytes(200_000), uid=ELSEBODY, mode=0o400), bytes(200_000)),
    )
    out = place / "out"
    for _ in range(2):  # the second finds everything there, also what it may not read or enter
        summary = restore(snapshot, out, segment=70_000)
        assert summary.problems == [(b"null", "Operation not permitted")]
        assert set(summary.notes) == {
            "owner or group not restored: not root",
            "privileged xattrs not restored: not root",
            "set-id bits left out",
        }
        assert (out / "foreign").stat().st_uid == os.geteuid()
        modes = {name: stat.S_IMODE((out / name).stat().st_mode) for name in ("foreign", "own", "d", "unreadable")}
        assert modes == {"foreign": 0o755, "own": 0o4755, "d": 0o555, "unreadable": 0}
        assert os.getxattr(out / "labelled", "user.note") == b"2"
        assert (out / "d" / "large").stat().st_size == 200_000
        assert (out / "d").stat().st_mtime_ns == 10**18


def test_foreign_owners_are_counted_and_lose_their_set_id_bits(place: Path) -> None:
    as_user(_foreign_things, place)


def _in_a_directory_that_forbids_it(place: Path) -> None:
    out = place / "out"
    snapshot = held(directory(b"d", mode=0o500), (row_of(b"d/one", b"1"), b"1"), (row_of(b"d/two", b"2"), b"2"))
    assert restore(snapshot.only(b"d", b"d/one"), out).problems == []
    assert stat.S_IMODE((out / "d").stat().st_mode) == 0o500
    assert restore(snapshot, out).problems == []
    assert held_tree(out).content[b"d/two"] == b"2"
    assert stat.S_IMODE((out / "d").stat().st_mode) == 0o500


def test_own_directories_are_opened_up_for_the_time_of_the_restore(place: Path) -> None:
    as_user(_in_a_directory_that_forbids_it, place)


def _into_what_belongs_to_another(place: Path) -> None:
    out = place / "out"
    snapshot = held(directory(b"theirs"), (row_of(b"mine", b"2"), b"2"), (row_of(b"theirs/one", b"1"), b"1"))
    summary = restore(snapshot, out)
    assert (b"theirs/one", "Permission denied") in summary.problems
    assert (out / "mine").read_bytes() == b"2"
    assert os.listdir(out / "theirs") == []


@pytest.mark.root
def test_what_belongs_to_another_user_is_reported_and_left(place: Path) -> None:
    (place / "out" / "theirs").mkdir(parents=True)
    os.chown(place / "out", NOBODY, NOBODY)
    as_user(_into_what_belongs_to_another, place)
