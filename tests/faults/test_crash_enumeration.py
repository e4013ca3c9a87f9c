"""After every operation that changes a store the world may end: A1 and A2 of the fault catalogue.

Each scenario is recorded once. A store is made of every prefix of its operations, and of every prefix whose last
operation is torn, and judged: see `tests.faults.oracle`. In shares: see `tests.shares`.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from repository import session_state
from tests.faults.oplog import LaterStore, Put, objects_after, torn
from tests.faults.oracle import Oracle
from tests.faults.scenarios import SCENARIOS, World, play
from tests.shares import SHARE, shared

EVERY = pytest.mark.parametrize("name", SCENARIOS)


@pytest.fixture
def world(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("LOX_CACHE_DIR", str(tmp_path / "cache"))  # put back what the oracle changes
    with monkeypatch.context() as another:  # the process that crashes is another one than the one that goes on
        another.setattr(session_state, "_begun", lambda pid: 1)
        return play(name, tmp_path)


def crash_everywhere(world: World, folder: Path, share: str = "0/1") -> int:
    """Judges every prefix; how many there are."""
    log = world.store.log
    ends = shared(range(world.began, len(log) + 1), share)
    for end in ends:
        needed = Oracle(world, end, folder).judge(LaterStore(objects_after(log[:end])))
        harmed = world.first_harm is not None and world.first_harm < end
        assert not needed or harmed, "after a crash alone nobody has to do anything"
    return len(ends)


def tear_everywhere(world: World, folder: Path, kinds: slice = slice(None), share: str = "0/1") -> Counter[str]:
    """Judges every prefix whose last operation is torn; how many there are, by place and by what they took."""
    counts: Counter[str] = Counter()
    log = world.store.log
    for end in shared(range(world.began, len(log)), share):
        last = log[end]
        if not isinstance(last, Put):
            continue
        for kind, left in list(torn(last.data))[kinds]:
            store = LaterStore(objects_after(log[:end]) | {last.name: left})
            needed = Oracle(world, end, folder).judge(store, torn=last.name)
            place = last.name.partition("/")[0]
            counts[f"{place}, {'repaired' if needed else 'nothing to do'}"] += 1
            print(f"  torn {last.name} ({kind}): {'took a repair' if needed else 'nothing to do'}")
    return counts


@pytest.mark.slow
@EVERY
def test_a_crash_after_any_operation_loses_nothing(name: str, world: World, tmp_path: Path) -> None:
    print(f"{name}: {crash_everywhere(world, tmp_path, SHARE)} prefixes of {len(world.store.log)} operations")


@pytest.mark.slow
@EVERY
def test_a_torn_last_operation_is_damage_and_loses_nothing(name: str, world: World, tmp_path: Path) -> None:
    counts = tear_everywhere(world, tmp_path, share=SHARE)
    print(f"{name}: {counts.total()} torn operations: {dict(counts)}")


@pytest.mark.parametrize("name", ["init and first backup"])
def test_a_crash_of_the_first_backup(name: str, world: World, tmp_path: Path) -> None:
    assert crash_everywhere(world, tmp_path) == len(world.store.log) + 1


@pytest.mark.parametrize("name", ["trash"])
def test_a_torn_object_in_the_trash(name: str, world: World, tmp_path: Path) -> None:
    assert tear_everywhere(world, tmp_path, slice(None, None, 3)).total() > 5


def test_shares_leave_nothing_out() -> None:
    found = [end for number in range(3) for end in shared(range(7, 30), f"{number}/3")]
    assert sorted(found) == list(range(7, 30))
