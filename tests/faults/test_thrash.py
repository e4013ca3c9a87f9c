"""Four writers into one repository, each killed with SIGKILL again and again: H3 of the fault catalogue.

They also forget, bring back and prune. Whatever they are in the middle of, nobody reads anything but what was written,
every snapshot that was reported as made and is not forgotten restores, and nobody unlocks anything. ``THRASH_SECONDS``
says how long; 30 seconds without.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pipelines.options import Watch
from pipelines.restore import RestoreRequest, restore
from repository.check import check
from repository.prune import prune
from repository.repository import Repository
from repository.snapshot import load_all
from repository.store import LocalStore
from repository.trash import load_trash, undelete
from tests.faults.scenarios import CHEAP, CHUNKS, EVERYTHING
from tests.faults.thrash_writer import ENGINE, PASSWORD, digest

ROOT = Path(__file__).parents[2]
WRITERS = 4
LIFE = 3.0  # seconds a writer is at work at most


@dataclass(slots=True)
class Life:
    """One process, from its start to its kill."""

    process: subprocess.Popen[bytes]
    said: Path
    work: float  # seconds it is given from when it has opened the repository
    due: float | None = None

    def over(self) -> bool:
        if self.due is None and self.said.stat().st_size:
            self.due = time.monotonic() + self.work
        return self.process.poll() is not None or (self.due is not None and time.monotonic() >= self.due)


@dataclass
class Thrash:
    """What the writers said, over all their lives."""

    base: Path
    dice: random.Random
    made: dict[str, str] = field(default_factory=dict)  # snapshot → digest of what it is of
    mortal: set[str] = field(default_factory=set)  # forgotten and not brought back: they may be pruned
    reads: list[tuple[str, str]] = field(default_factory=list)
    corrupt: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    lives: int = 0

    @property
    def place(self) -> str:
        return str(self.base / "repository")

    def start(self, number: int) -> Life:
        """A new life for writer `number`, with an end that is drawn."""
        tree = self.base / f"tree{number}"
        tree.mkdir(exist_ok=True)
        self.lives += 1
        command = [sys.executable, "-m", "tests.faults.thrash_writer", self.place, str(tree), str(self.lives)]
        environment = {**os.environ, "LOX_CACHE_DIR": str(self.base / f"cache{number}")}
        said = self.base / f"said{self.lives}"
        with said.open("wb") as log:
            process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, env=environment)
        return Life(process, said, self.dice.uniform(0.0, LIFE))

    def run(self, seconds: float) -> None:
        """Lives and deaths for so long."""
        end = time.monotonic() + seconds
        living = [self.start(number) for number in range(WRITERS)]
        while time.monotonic() < end:
            time.sleep(0.01)
            for number, life in enumerate(living):
                if life.over():
                    self._end(life.process)
                    living[number] = self.start(number)
        for life in living:
            self._end(life.process)

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        if process.poll() is not None:
            self.corrupt.append(f"a writer ended by itself with {process.returncode}")
        process.send_signal(signal.SIGKILL)
        process.wait()

    def listen(self) -> None:
        """What was said, in all lives."""
        for life in range(1, self.lives + 1):
            for line in (self.base / f"said{life}").read_text(errors="replace").splitlines():
                try:
                    said = json.loads(line)
                except ValueError:
                    self.corrupt.append(line)
                    continue
                kind = next(iter(said))
                self.counts[kind] += 1
                if kind == "made":
                    self.made[said["made"]] = said["digest"]
                elif kind == "forgetting":
                    self.mortal.add(said["forgetting"])
                elif kind == "undeleted":
                    self.mortal.discard(said["undeleted"])
                elif kind == "pruned":
                    self.counts.update({f"packs {what}": said[what] for what in ("pruned", "rewritten", "waiting")})
                    self.counts["snapshots purged"] += said["purged"]
                elif kind == "read":
                    self.reads.append((said["read"], said["digest"]))
                elif kind == "corrupt":
                    self.corrupt.append(str(said))


@pytest.mark.slow
def test_killed_writers_lose_nothing(tmp_path: Path) -> None:
    seconds = float(os.environ.get("THRASH_SECONDS", "30"))
    thrash = Thrash(tmp_path, random.Random(7))
    Repository.init(LocalStore(thrash.place), PASSWORD, CHUNKS, kdf=CHEAP)
    thrash.run(seconds)
    thrash.listen()
    assert thrash.corrupt == []
    assert thrash.made and thrash.reads, f"nothing happened in {seconds} seconds: {thrash.counts}"
    repository = Repository.open(LocalStore(thrash.place), PASSWORD)
    for trashed in load_trash(repository):  # what is not purged can be brought back
        undelete(repository, trashed)
    prune(repository, EVERYTHING)
    last = prune(repository, EVERYTHING)
    assert (last.unused, last.waiting, last.unfinished) == (0, 0, 0), "nobody who was killed is waited for"
    snapshots = {snapshot.id: snapshot for snapshot in load_all(repository)}
    assert set(thrash.made) - thrash.mortal <= set(snapshots), "what was reported as made is there"
    truth = dict(thrash.made)
    for snapshot in snapshots.values():
        truth.setdefault(snapshot.id, restored(repository, snapshot.id, tmp_path))  # made, but killed before it said so
        assert restored(repository, snapshot.id, tmp_path) == truth[snapshot.id]
    assert all(truth[snapshot] == found for snapshot, found in thrash.reads if snapshot in truth)
    assert check(repository, "data").findings == []
    print(f"{seconds:.0f} s, {thrash.lives} lives of {WRITERS} writers: {dict(thrash.counts)}; 0 corrupt reads")
    print(f"{len(snapshots)} snapshots restored, {len(set(snapshots) - set(thrash.made))} of them made and not said")


def restored(repository: Repository, snapshot_id: str, folder: Path) -> str:
    """Digest of what the snapshot restores to."""
    snapshot = next(one for one in load_all(repository) if one.id == snapshot_id)
    out = folder / f"check{time.monotonic_ns()}"
    assert restore(repository, RestoreRequest(snapshot, os.fsencode(out)), ENGINE, Watch()).problems == []
    return digest(out / os.fsdecode(snapshot.paths[0])[1:])
