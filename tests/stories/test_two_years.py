"""Two years of daily backups by five hosts, a policy and garbage collection every week: nothing grows without end, and
what is kept restores."""

from __future__ import annotations

import random
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import pytest

from repository.annotations import Annotations
from repository.check import check
from repository.prune import PrunePolicy, prune
from repository.repository import Repository
from repository.retention import Policy, candidates_of, decide
from repository.snapshot import Snapshot, load_all
from repository.trash import forget
from tests.repository.samples import back_up, content_of, new_repository

DAY = 86_400 * 10**9  # ns
START = 1_700_000_000 * 10**9
HOSTS = ("alder", "beech", "cedar", "dogwood", "elm")
FILES = 12  # of each host, about
POLICY = Policy(daily=7, weekly=5, monthly=6, yearly=2)
KEPT_MAX = 7 + 5 + 6 + 2


@dataclass
class Host:
    """A machine whose files change a little from day to day. Contents come from numbers: nothing is kept twice."""

    name: str
    random: random.Random
    files: dict[bytes, bytes] = field(default_factory=dict)
    made: count[int] = field(default_factory=count)

    def live(self) -> None:
        """A day passes: a file is new, one is changed, and one goes if there are enough."""
        self._write(b"data/%s/%05d" % (self.name.encode(), next(self.made)))
        self._write(self.random.choice(sorted(self.files)))
        if len(self.files) > FILES:
            del self.files[self.random.choice(sorted(self.files))]

    def _write(self, path: bytes) -> None:
        self.files[path] = self.random.randbytes(self.random.randrange(50, 600))

    def tree(self) -> dict[bytes, bytes | None]:
        return {b"data": None, b"data/" + self.name.encode(): None, **self.files}


@dataclass
class Years:
    """The repository, what each snapshot must hold, and how large the repository was after each collection."""

    repository: Repository
    hosts: list[Host]
    expected: dict[str, dict[bytes, bytes]] = field(default_factory=dict)
    sizes: list[Counter[str]] = field(default_factory=list)

    def day(self, now: int) -> None:
        for number, host in enumerate(self.hosts):
            host.live()
            moment = now + number * 10**9
            times = {"time": moment, "started": moment, "finished": moment + 1}
            saved = back_up(self.repository, host.tree(), host=host.name, **times)
            self.expected[saved.id] = dict(host.files)

    def week(self, now: int) -> None:
        candidates = candidates_of(self.repository, load_all(self.repository), Annotations(), now)
        for group in decide(candidates, POLICY):
            for decision in group.decisions:
                if not decision.keep:
                    forget(self.repository, decision.candidate.id, "policy", now)
                    del self.expected[decision.candidate.id]
        report = prune(self.repository, PrunePolicy(trash=7 * DAY))
        assert not report.damaged and not report.waiting
        self.sizes.append(self._size())

    def _size(self) -> Counter[str]:
        size: Counter[str] = Counter()
        for name, length in self.repository.store.list():
            size[name.partition("/")[0]] += 1
            size["bytes"] += length
            size["index bytes"] += length * name.startswith("index/")
        return size

    def restored(self, snapshot: Snapshot) -> dict[bytes, bytes]:
        return {path: content_of(self.repository, snapshot, path) for path in self.expected[snapshot.id]}


@pytest.mark.slow
def test_two_years(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    now = START
    monkeypatch.setattr(time, "time_ns", lambda: now)
    monkeypatch.setenv("LOX_CACHE_DIR", str(tmp_path))
    years = Years(new_repository(), [Host(name, random.Random(name)) for name in HOSTS])
    for day in range(730):
        now = START + day * DAY
        years.day(now)
        if day % 7 == 6:
            years.week(now)
    half, last = years.sizes[20:52], years.sizes[52:]
    for kind in ("packs", "index", "snapshots", "trash", "bytes", "index bytes", "sessions", "gc"):
        most, before = max(size[kind] for size in last), max(size[kind] for size in half)
        assert most <= 1.25 * before + 10, f"{kind}: {before} in the first year, {most} in the second"
    snapshots = load_all(years.repository)
    assert {one.id for one in snapshots} == years.expected.keys()
    assert len(snapshots) <= len(HOSTS) * (KEPT_MAX + 7)
    for snapshot in snapshots:
        assert years.restored(snapshot) == years.expected[snapshot.id]
    assert check(years.repository, "data").findings == []
