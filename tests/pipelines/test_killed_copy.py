"""Workers of a copy that is cut before upload die of SIGKILL: what they held is brought again, whoever held it."""

from __future__ import annotations

import os
import random
from pathlib import Path

import psutil
import pytest

from model.chunking import KIB, MIB
from pipelines.copy import CopyRequest, copy
from pipelines.options import EngineOptions, Progress, StageOptions, Watch
from repository.snapshot import load_all
from tests.pipelines.helpers import Place, differences
from tests.pipelines.test_copy import related
from tests.pipelines.test_killed_actors import is_lane

KILLS = 4
pytestmark = pytest.mark.ray


class Killing(Watch):
    """Kills a random lane of this process whenever so much more was copied."""

    def __init__(self, every: int) -> None:
        super().__init__()
        self.killed = 0
        self._every = self._next = every
        self._rng = random.Random(6)

    def progress(self, progress: Progress) -> None:
        if progress.phase != "copy" or self.killed == KILLS or progress.bytes_done < self._next:
            return
        lanes = [process for process in psutil.Process().children(recursive=True) if is_lane(process)]
        if lanes:
            self._rng.choice(lanes).kill()
            self.killed += 1
            self._next += self._every


@pytest.mark.parametrize("recompress", [False, True], ids=["passed on", "gathered"])
def test_killed_workers_of_a_cut_copy(recompress: bool, tmp_path: Path) -> None:
    tree, rng = tmp_path / "tree", random.Random(9)
    tree.mkdir()
    for number in range(40):
        (tree / f"file{number}").write_bytes(rng.randbytes(rng.randrange(200 * KIB, MIB)))
    place = Place(tmp_path / "source")
    place.backup(tree)
    target = related(place, tmp_path / "target")
    stages = {name: StageOptions(lanes=2) for name in ("download", "decrypt", "unpack", "repack", "encrypt", "upload")}
    engine = EngineOptions("ray", 2, stages=stages, cuts=frozenset({"upload"}), pack_bytes=8 * MIB)
    watch = Killing(3 * MIB)
    request = CopyRequest(tuple(load_all(place.repository)), codec="zstd" if recompress else None)
    report = copy(place.repository, target.repository, request, engine, watch)
    assert watch.killed >= 2, "there was something to survive"
    assert (report.failed, len(report.copied)) == ({}, 1)
    (snapshot,) = load_all(target.repository)
    assert target.restore(snapshot, tmp_path / "out").problems == []
    assert differences(tree, tmp_path / "out" / os.fspath(tree)[1:]) == ""
