"""A writer of the thrash: backs up, forgets, reads and checks for as long as it lives.

    python -m tests.faults.thrash_writer REPOSITORY TREE SEED

One line of JSON on stdout when it is ready, and for everything that was reported as done; a line with "corrupt" for
anything that was read and is not what was written. It may be killed at any instant.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import sys
import time
from pathlib import Path

from model.errors import LoxError, Missing, UsageError
from pipelines.backup import BackupRequest, backup
from pipelines.options import EngineOptions, Watch
from pipelines.restore import RestoreRequest, restore
from repository.check import check
from repository.repository import Repository
from repository.snapshot import load_all
from repository.store import LocalStore
from repository.trash import forget

PASSWORD = "secret"
ENGINE = EngineOptions(executor="threads", lanes=1)


def digest(root: Path) -> str:
    """Of all files below `root`, names and content."""
    sums = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        if path.is_file():
            content = path.read_bytes()
            sums.update(f"{path.relative_to(root)} {len(content)} ".encode() + content)
    return sums.hexdigest()


def say(**fields: object) -> None:
    """One line, in one write: a kill leaves all of it or none."""
    os.write(1, (json.dumps(fields) + "\n").encode())


class Writer:
    """What one process does, by its dice."""

    def __init__(self, place: str, tree: Path, seed: int) -> None:
        self.repository = Repository.open(LocalStore(place), PASSWORD)
        self.tree = tree
        self.dice = random.Random(seed)
        self.host = tree.name

    def edit(self) -> None:
        """A file comes, one changes, one goes. Half of the content is what other writers have, too."""
        shared = random.Random(self.dice.randrange(6))
        name = f"file{self.dice.randrange(12)}"
        source = shared if self.dice.random() < 0.5 else self.dice
        (self.tree / name).write_bytes(source.randbytes(source.choice([100, 30_000, 150_000])))
        (self.tree / f"file{self.dice.randrange(12)}").unlink(missing_ok=True)

    def backup(self) -> None:
        self.edit()
        expected = digest(self.tree)
        mode = self.dice.choice(["incremental", "incremental", "full"])
        request = BackupRequest((os.fsencode(self.tree),), host=self.host, mode=mode)
        snapshot = backup(self.repository, request, ENGINE, Watch()).snapshot
        assert snapshot is not None
        say(made=snapshot.id, digest=expected)

    def forget(self) -> None:
        mine = [snapshot for snapshot in load_all(self.repository) if snapshot.host == self.host]
        if len(mine) > 3:
            # Said first: a kill may come between the deed and the word.
            say(forgetting=mine[0].id)
            forget(self.repository, mine[0].id, "thrash", time.time_ns())

    def read(self) -> None:
        """Any snapshot of anybody, as it is now."""
        snapshots = load_all(self.repository)
        if not snapshots:
            return
        snapshot = self.dice.choice(snapshots)
        out = self.tree.parent / f"out-{os.getpid()}"
        try:
            report = restore(self.repository, RestoreRequest(snapshot, os.fsencode(out)), ENGINE, Watch())
            root = out / os.fsdecode(snapshot.paths[0])[1:]
            if report.problems:
                say(corrupt=snapshot.id, why=str(report.problems[:3]))
            else:
                say(read=snapshot.id, digest=digest(root))
        finally:
            shutil.rmtree(out, ignore_errors=True)

    def check(self) -> None:
        report = check(self.repository, "structure")
        for finding in report.findings:
            if finding.snapshots:
                say(corrupt=finding.subject, why=finding.what)

    def run(self) -> None:
        actions = [self.backup] * 4 + [self.forget] * 2 + [self.read] * 2 + [self.check]
        say(ready=os.getpid())
        while True:
            try:
                self.dice.choice(actions)()
            except (Missing, UsageError) as error:  # somebody else was faster
                say(missed=str(error))
            except LoxError as error:
                say(corrupt=type(error).__name__, why=str(error))


if __name__ == "__main__":
    Writer(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])).run()
