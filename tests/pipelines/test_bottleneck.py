"""Backups in which one stage at a time is slow: it is named, and making it twice as fast is worth what was said.

`python -m pytest -m slow -s tests/pipelines/test_bottleneck.py` prints the table of
docs/decisions/022-run-records.md.
"""

from __future__ import annotations

import copy
import os
import random
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

import pipelines.backup
from model.batches import Listing
from pipelines.backup import BackupRequest, backup
from pipelines.options import BACKUP, EngineOptions, Watch
from runtime.bottleneck import Bottleneck, bottleneck_of
from runtime.stage import Context, Stage
from runtime.trace import Trace
from sources.files.scan import Scanner
from stages.commit import Commit
from tests.pipelines.helpers import Place

STAGES = ("scan", "read", "chunk", "hash", "dedup", "compress", "encrypt", "upload", "commit")
ENDS = ("scan", "commit")  # in the caller's thread: they have no lanes
LANES = 2
SECONDS = 1.6  # that a slow stage is slowed down on each of its lanes
TOLERANCE = 0.25
ROUNDS = 6  # at most: other work on this host can only make a run longer, so the shortest counts
BATCH = 512 << 10  # bytes: enough batches for lanes to share


class Throttled(Stage[Any, Any]):
    """A stage that sleeps before each item."""

    def __init__(self, stage: Stage[Any, Any], seconds: float) -> None:
        self._stage = stage
        self._seconds = seconds

    def open(self, context: Context) -> None:
        self._stage = copy.copy(self._stage)  # every lane has its own
        self._stage.name = self.name
        self._stage.open(context)

    def push(self, item: Any) -> Iterable[Any]:
        time.sleep(self._seconds)
        yield from self._stage.push(item)

    def flush(self) -> Iterable[Any]:
        return self._stage.flush()

    def close(self) -> None:
        self._stage.close()


@dataclass
class Lab:
    """First backups of one tree, each into a repository of its own, with a stage that sleeps."""

    tree: Path
    folder: Path
    fused: bool
    runs: int = 0

    def run(self, slow: str = "", seconds: float = 0.0) -> Trace:
        """The trace of a backup; `seconds` of sleep for each item of the stage `slow`."""
        self.runs += 1
        with pytest.MonkeyPatch.context() as patch:
            self._patch(patch, slow, seconds)
            repository = Place(self.folder / f"{self.runs}").repository
            return backup(repository, BackupRequest((os.fsencode(self.tree),)), self._engine(), Watch()).trace

    def _engine(self) -> EngineOptions:
        cuts = frozenset() if self.fused else frozenset(BACKUP[1:])
        return EngineOptions(lanes=LANES, cuts=cuts, batch_bytes=BATCH)

    def _patch(self, patch: pytest.MonkeyPatch, slow: str, seconds: float) -> None:
        plan_of, scan = pipelines.backup.backup_plan, Scanner.__iter__
        push = Commit.push

        def throttled_plan(*given: Any) -> Any:
            plan = plan_of(*given)
            nodes = [
                replace(node, stage=Throttled(node.stage, seconds)) if node.name == slow else node
                for node in plan.nodes
            ]
            return replace(plan, nodes=tuple(nodes))

        def throttled_scan(self: Scanner) -> Iterator[Listing]:
            for listing in scan(self):
                time.sleep(seconds)
                yield listing

        def throttled_push(self: Commit[Any], item: Any) -> Any:
            time.sleep(seconds)
            return push(self, item)

        patch.setattr(pipelines.backup, "backup_plan", throttled_plan)
        if slow == "scan":
            patch.setattr(Scanner, "__iter__", throttled_scan)
        if slow == "commit":
            patch.setattr(Commit, "push", throttled_push)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """8 MB, half of them compressible, in files that are no pieces: little real work, so that sleep is what counts."""
    folder, rng = tmp_path_factory.mktemp("tree"), random.Random(22)
    for number in range(128):
        noise = rng.randbytes(32 << 10)
        (folder / f"{number:03d}").write_bytes(noise + os.fsencode(f"{number:08d}") * (4 << 10))
    return folder


@pytest.mark.alone
@pytest.mark.parametrize("fused", [True, False], ids=["fused", "cut"])
def test_the_slow_stage_is_named_and_its_gain_foretold(
    tree: Path, tmp_path: Path, fused: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    lab = Lab(tree, tmp_path, fused)
    plain = lab.run()
    rows: list[tuple[str, Bottleneck, float, float]] = []
    for stage in STAGES:
        line = plain.stage(stage)
        seconds = SECONDS * line.lanes / (line.items_in or line.items_out)
        slow, half = lab.run(stage, seconds), lab.run(stage, seconds / 2)
        for _ in range(ROUNDS - 1):
            if not _right(bottleneck_of(slow), slow.wall / half.wall):
                slow = min(slow, lab.run(stage, seconds), key=lambda trace: trace.wall)
                half = min(half, lab.run(stage, seconds / 2), key=lambda trace: trace.wall)
        assert slow.replayed == half.replayed == 0, "nothing is done twice"
        rows.append((stage, bottleneck_of(slow), slow.wall, half.wall))
    with capsys.disabled():
        print(_table(rows, "fused" if fused else "cut at every stage", plain.wall))
    assert [limit.stage for _, limit, _, _ in rows] == list(STAGES)
    wrong = [(stage, limit.gain, slow / half) for stage, limit, slow, half in rows if not _right(limit, slow / half)]
    assert wrong == []


def _right(limit: Bottleneck, measured: float) -> bool:
    return abs(limit.gain / measured - 1) <= TOLERANCE


def _table(rows: list[tuple[str, Bottleneck, float, float]], how: str, plain: float) -> str:
    lines = [f"\n{how}; not throttled: {plain:.2f} s", "throttled  named      wall    foretold  measured  off"]
    for stage, limit, slow, half in rows:
        off = limit.gain / (slow / half) - 1
        lines.append(
            f"{stage:<10} {limit.stage:<10} {slow:>5.2f} s {limit.gain:>8.2f} {slow / half:>9.2f} {off:>+6.0%}"
        )
    return "\n".join(lines)
