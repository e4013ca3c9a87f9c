"""Actors of a real backup die of SIGKILL, over and over: their work is done again, and the snapshot is whole."""

from __future__ import annotations

import os
import random
import threading
import time
from pathlib import Path

import psutil
import pytest

from model.chunking import KIB, MIB
from model.errors import LoxError
from repository.snapshot import load_all
from tests.pipelines.helpers import Place, differences

KILLS = 20
pytestmark = pytest.mark.ray


class Killer(threading.Thread):
    """Sends SIGKILL to a random actor of this process every now and then, until it has done so `KILLS` times.

    Not so often that no run could end well where actors take seconds to start.
    """

    def __init__(self, seed: int) -> None:
        super().__init__(daemon=True)
        self.killed = 0
        self.done = threading.Event()
        self._rng = random.Random(seed)

    def run(self) -> None:
        while self.killed < KILLS and not self.done.wait(self._rng.uniform(0.4, 2.0)):
            actors = [process for process in psutil.Process().children(recursive=True) if is_lane(process)]
            if actors:
                self._rng.choice(actors).kill()
                self.killed += 1


def is_lane(process: psutil.Process) -> bool:
    try:
        return "StrandHost" in " ".join(process.cmdline())
    except psutil.Error:
        return False


def tree_of(root: Path) -> Path:
    """Files of all sizes that are hard work for the compressor, one of them in many pieces."""
    root.mkdir()
    rng = random.Random(5)
    letters = bytes(range(97, 123)) * 9 + bytes(22)
    for number in range(300):
        (root / f"file{number}").write_bytes(rng.randbytes(rng.randrange(150 * KIB)).translate(letters))
    (root / "large").write_bytes(rng.randbytes(50 * MIB).translate(letters))
    return root


def test_twenty_killed_actors(tmp_path: Path) -> None:
    tree = tree_of(tmp_path / "tree")
    place = Place(tmp_path / "repository", executor="ray")
    killer = Killer(2)
    killer.start()
    runs, deadline = [], time.monotonic() + 400
    try:
        while killer.killed < KILLS and time.monotonic() < deadline:
            try:
                runs.append(place.backup(tree, mode="full", codec="zstd", level=17))
            except LoxError as error:  # one item can be hit three times in a row: then the run ends and commits nothing
                assert "times" in str(error), error
    finally:
        killer.done.set()
        killer.join()
    assert killer.killed == KILLS
    assert sum(run.trace.deaths for run in runs) > 0, "a run went on in spite of the deaths of its workers"
    assert all(run.problems == [] for run in runs)
    place.executor = "threads"  # which has nothing to start: what was stored is looked at
    last = place.backup(tree)
    snapshots = load_all(place.repository)
    assert len(snapshots) == len(runs) + 1
    for number, snapshot in enumerate((snapshots[0], last.snapshot)):
        assert snapshot is not None
        assert place.restore(snapshot, tmp_path / f"out{number}").problems == []
        assert differences(tree, tmp_path / f"out{number}" / os.fspath(tree)[1:]) == ""
