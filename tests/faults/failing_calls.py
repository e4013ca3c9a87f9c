"""Run with failing_calls.so preloaded: every system call of a backup fails once, each in a run of its own.

    python -m tests.faults.failing_calls FOLDER [EVERY]

Prints one line of JSON: how many calls of each kind were made to fail, how many of the runs failed for it,
and how many did not because the call only took away an object of the session.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import random
import shutil
import sys
from collections import Counter
from pathlib import Path

from model.errors import LoxError, StoreError, StoreFull, Transient
from repository.check import check
from repository.repository import Repository
from repository.snapshot import load_all
from repository.store import LocalStore
from tests.faults.scenarios import CHEAP, CHUNKS, back_up

CALLS = ("fsync", "close", "writev", "link", "mkdir", "unlink")
ERRORS = {errno.EIO: Transient, errno.ENOSPC: StoreFull, errno.EDQUOT: StoreFull}
PASSWORD = "secret"


class Failing:
    """The preloaded library."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(None)
        self._library.lox_failed_path.restype = ctypes.c_char_p

    def arm(self, call: str, error: int, after: int, under: Path) -> None:
        self._library.lox_fail(call.encode(), error, after, os.fsencode(under))

    def path(self) -> str:
        """What the call that failed last was about."""
        return os.fsdecode(self._library.lox_failed_path())

    def disarm(self) -> int:
        """How many calls were made since it was armed."""
        calls = int(self._library.lox_calls())
        self._library.lox_fail(b"", 0, -1, b"")
        return calls


def run(base: Path, every: int) -> dict[str, dict[str, int]]:
    """All kinds of calls and errors; with `every` above 1 only one of so many calls fails."""
    failing, made, failed, excused = Failing(), Counter[str](), Counter[str](), Counter[str]()
    tree, pristine, place = base / "tree", base / "pristine", base / "place"
    first = prepare(tree, pristine)
    for call in CALLS:
        fresh(pristine, place)
        failing.arm(call, 0, 1 << 30, place)
        back_up(open_at(place), tree)
        total = failing.disarm()
        for error, kind in ERRORS.items():
            for after in range(0, total, every):
                fresh(pristine, place)
                failing.arm(call, error, after, place)
                try:
                    back_up(open_at(place), tree)
                    # Deleting objects of our own session may fail: others find it ended all the same.
                    excused[call] += failing.path().startswith(f"{place}/sessions")
                except StoreError as trouble:
                    assert isinstance(trouble, kind), trouble
                    failed[call] += 1
                except LoxError as trouble:
                    raise AssertionError(f"{call} {after}: not a trouble of the store") from trouble
                finally:
                    failing.disarm()
                made[call] += 1
                judge(place, tree, first, f"{call} {after} {errno.errorcode[error]}")
    return {"made": dict(made), "failed": dict(failed), "excused": dict(excused)}


def prepare(tree: Path, pristine: Path) -> str:
    """A repository with a snapshot, and a tree that has changed since; the id of the snapshot."""
    tree.mkdir()
    dice = random.Random(1)
    for number in range(5):
        (tree / f"file{number}").write_bytes(dice.randbytes(20_000))
    repository, _ = Repository.init(LocalStore(str(pristine)), PASSWORD, CHUNKS, kdf=CHEAP)
    snapshot = back_up(repository, tree)
    (tree / "new").write_bytes(dice.randbytes(70_000))
    return snapshot


def fresh(pristine: Path, place: Path) -> None:
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(pristine, place)
    shutil.rmtree(os.environ["LOX_CACHE_DIR"], ignore_errors=True)


def open_at(place: Path) -> Repository:
    return Repository.open(LocalStore(str(place)), PASSWORD)


def judge(place: Path, tree: Path, first: str, what: str) -> None:
    """Whatever failed: what is there is whole, and the next backup works."""
    repository = open_at(place)
    assert first in {snapshot.id for snapshot in load_all(repository)}, what
    assert check(repository, "data").findings == [], what
    back_up(repository, tree)
    assert check(repository, "data").findings == [], what


if __name__ == "__main__":
    print(json.dumps(run(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1)))
