"""A writer of the thrash: backs up, forgets, brings back, reads, checks and prunes for as long as it lives.

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

from model.errors import LoxError, Missing, RunFailed, UsageError
from pipelines.backup import BackupRequest, backup
from pipelines.options import EngineOptions, Watch
from pipelines.restore import RestoreRequest, restore
from repository.check import check
from repository.prune import PrunePolicy, prune
from repository.repository import Repository
from repository.sessions import open_session, reading_session
from repository.snapshot import load_all
from repository.store import LocalStore
from repository.trash import forget, load_trash, undelete

PASSWORD = "secret"
ENGINE = EngineOptions(executor="threads", lanes=1)
SECOND = 10**9  # ns


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

    def undelete(self) -> None:
        with open_session(self.repository, "undelete"):
            mine = [trashed for trashed in load_trash(self.repository) if trashed.snapshot.host == self.host]
            if mine:
                trashed = self.dice.choice(mine)
                undelete(self.repository, trashed)
                say(undeleted=trashed.id)

    def prune(self) -> None:
        """What was forgotten is gone for good at once, or soon."""
        policy = PrunePolicy(
            max_unused=self.dice.choice([0.0, 0.3]),
            trash=self.dice.choice([0, SECOND]),
            unfinished=self.dice.choice([0, 3600 * SECOND]),
        )
        try:
            report = prune(self.repository, policy)
        except RunFailed as error:  # another one is at it
            say(missed=str(error))
            return
        say(pruned=report.deleted, rewritten=report.rewritten, purged=len(report.purged), waiting=report.waiting)

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
            if not report.problems:
                say(read=snapshot.id, digest=digest(root))
            else:
                self._failed(snapshot.id, str(report.problems[:3]))
        except LoxError as error:
            self._failed(snapshot.id, str(error))
        finally:
            shutil.rmtree(out, ignore_errors=True)

    def _failed(self, snapshot_id: str, why: str) -> None:
        """A snapshot that is gone by now may well have been pruned while it was read; another one may not."""
        if snapshot_id in {snapshot.id for snapshot in load_all(self.repository)}:
            say(corrupt=snapshot_id, why=why)
        else:
            say(missed=why)

    def check(self) -> None:
        with reading_session(self.repository, "check"):
            report = check(self.repository, "structure")
        here = {snapshot.id for snapshot in load_all(self.repository)}
        for finding in report.findings:
            if here.intersection(finding.snapshots):
                say(corrupt=finding.subject, why=finding.what)

    def run(self) -> None:
        twice = [self.forget, self.read, self.prune]
        actions = [self.backup] * 4 + twice * 2 + [self.check, self.undelete]
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
