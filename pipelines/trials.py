"""Trials: real backups of a sample into throw-away repositories, to see how long they take.

Nothing is left of a trial: not the repository, nor a cache of it, nor the record of its run.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from model.errors import Interrupted, UsageError
from pipelines.backup import BackupRequest, backup
from pipelines.draw import Pages, Sample
from pipelines.environment import environment
from pipelines.options import EngineOptions, Watch
from repository.keys import KdfParams
from repository.repository import Repository
from repository.store import Store, is_remote, open_store
from runtime.trace import Trace

PREFIX = "lox-trial-"
CHEAP = KdfParams(memory_kib=64, iterations=1, lanes=1)  # the password is random, and nobody keeps it
_ELSEWHERE = ("LOX_CACHE_DIR", "LOX_STATE_DIR")


@dataclass(frozen=True, slots=True)
class Trial:
    """What a trial did: its trace, bytes read, new and stored, and the processor seconds this process took meanwhile.
    A trial of a sample that is cut ends when it has read as much as it was to."""

    trace: Trace
    read: int
    new: int
    stored: int
    cpu: float


class TrialGround:
    """Where trials are made. `place` is a folder or the URL of a store; each trial has its own repository there."""

    def __init__(self, place: str | None, scratch: str, stop: threading.Event | None = None) -> None:
        """`scratch` is a folder for caches, and for repositories if there is no `place`. `stop` interrupts a trial."""
        self._place = place
        self.scratch = scratch
        self._stop = stop or threading.Event()
        self._pages: tuple[Sample, Pages] | None = None

    def run(self, sample: Sample, request: BackupRequest, engine: EngineOptions, *, cold: bool = True) -> Trial:
        """One backup of `sample`, the paths of `request`, as that wants it; with `cold` the files are read from where
        they lie, not from memory. Raises what a backup raises."""
        if cold:
            self._forget(sample)
        with self._repository() as repository:
            watch = _Bounded(sample.size if sample.cut else None, self._stop)
            begin = time.process_time()
            try:
                report = backup(repository, request, engine, watch)
            except Interrupted:
                if not watch.full or watch.last is None:
                    raise
                return _cut_off(watch.last, time.process_time() - begin)
            cpu = time.process_time() - begin
        return Trial(report.trace, report.bytes_read, report.bytes_new, report.bytes_stored, cpu)

    def _forget(self, sample: Sample) -> None:
        if self._pages is None or self._pages[0] is not sample:
            self._pages = sample, Pages(sample)
        self._pages[1].forget()

    @contextmanager
    def store(self) -> Iterator[Store]:
        """An empty store of the kind in which the repositories lie, gone afterwards."""
        store = open_store(f"{(self._place or self.scratch).rstrip('/')}/{PREFIX}{os.urandom(8).hex()}")
        try:
            yield store
        finally:
            _remove(store)

    @contextmanager
    def _repository(self) -> Iterator[Repository]:
        """A new encrypted repository that is gone afterwards."""
        with (
            self.store() as store,
            tempfile.TemporaryDirectory(prefix="home-", dir=self.scratch) as home,
            environment({variable: os.path.join(home, variable) for variable in _ELSEWHERE}),
        ):
            repository, _ = Repository.init(store, os.urandom(16).hex(), kdf=CHEAP)
            yield repository


def _cut_off(trace: Trace, cpu: float) -> Trial:
    """As far as it was when it was to end. All it had read counts as new, and all it had compressed as stored."""
    read, compress = trace.stage("read").bytes_out, trace.stage("compress")
    return Trial(trace, read, read, round(compress.bytes_out * read / max(compress.bytes_in, 1)), cpu)


@contextmanager
def trial_ground(place: str | None, stop: threading.Event | None = None) -> Iterator[TrialGround]:
    """A ground and its scratch folder, beside the repositories if they lie in a folder. UsageError if there is none."""
    local = place if place is None or not is_remote(open_store(place)) else None
    if local is not None and not os.path.isdir(local):
        raise UsageError("no such folder", subject=local)
    with tempfile.TemporaryDirectory(prefix=PREFIX, dir=local) as scratch:
        yield TrialGround(scratch if local is not None else place, scratch, stop)


class _Bounded(Watch):
    """Ends a run that has read `most` bytes; passes on the wish of the user to stop. `last` is what the engine said
    last."""

    def __init__(self, most: int | None, outer: threading.Event) -> None:
        super().__init__()
        self.stop = _Either(outer)
        self._most = most
        self.full = False
        self.last: Trace | None = None

    def traced(self, trace: Trace) -> None:
        if self.full:
            return
        self.last = trace
        if self._most is not None and trace.stage("read").bytes_out >= self._most:
            self.full = True
            self.stop.set()


class _Either(threading.Event):
    """Set if it is, or if another event is."""

    def __init__(self, other: threading.Event) -> None:
        super().__init__()
        self._other = other

    def is_set(self) -> bool:
        return super().is_set() or self._other.is_set()


def _remove(store: Store) -> None:
    if is_remote(store):
        for name in [name for name, _ in store.list()]:
            store.delete(name)
    else:
        shutil.rmtree(store.url, ignore_errors=True)
