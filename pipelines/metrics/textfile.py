"""Metrics in a file that node_exporter serves, and that outlives the runs which write it.

Several runs may write one file at a time: each adds what it counted since it wrote last, under a lock, and sets its own
gauges. The file is replaced as a whole, so that whoever reads it sees one state or the next.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from model.errors import ConfigError
from pipelines.metrics.catalog import BY_SAMPLE
from pipelines.metrics.values import Key, Samples, Values, exposition, is_of, label_names, merged

FILE_MAX = 8 << 20  # bytes: far more than a host with a hundred jobs has
LOCK_AGAIN = 0.02  # seconds


class TextFile:
    """The file at `path`, which should end in ``.prom``, kept up with `values`."""

    def __init__(self, path: str, values: Values) -> None:
        self.path = path
        self._folder, self._name = os.path.split(os.path.abspath(path))
        self._values = values
        self._written: Samples = {}  # counters as they were when they were last written
        self.ever_written = False

    def write(self, patience: float = 0.0) -> bool:
        """Bring the file up to now; False if others were writing it for `patience` seconds.

        Raises ConfigError if it cannot be written, or holds something else than our metrics.
        """
        return self._bring_up(patience, frozenset())

    def forget(self, jobs: frozenset[str], patience: float = 0.0) -> bool:
        """Leave out all series of jobs that are no more, here and in the values; otherwise as `write`."""
        for job in jobs:
            self._values.forget(job)
        self._written = _without(jobs, self._written)
        return self._bring_up(patience, jobs)

    def _bring_up(self, patience: float, gone: frozenset[str]) -> bool:
        samples = self._values.samples()
        counters = {key: value for key, value in samples.items() if BY_SAMPLE[key[0]].kind != "gauge"}
        added = {key: value - self._written.get(key, 0.0) for key, value in counters.items()}
        try:
            with self._locked(patience) as locked:
                if not locked:
                    return False
                self._replace(exposition(merged(_without(gone, self._read()), added, samples)))
        except OSError as error:
            raise ConfigError("cannot write the metrics file", subject=self.path, why=error.strerror or "") from error
        self._written, self.ever_written = counters, True
        return True

    def _read(self) -> Samples:
        try:
            fd = os.open(os.path.join(self._folder, self._name), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            return {}
        with os.fdopen(fd, "rb") as file:
            data = file.read(FILE_MAX + 1)
        try:
            if len(data) > FILE_MAX:
                raise ValueError("it is too long")
            return parse(data.decode())
        except (ValueError, KeyError) as error:
            hint = "name another file, or remove this one: counting then begins anew"
            raise ConfigError("not a file of our metrics", subject=self.path, why=str(error), hint=hint) from error

    def _replace(self, data: bytes) -> None:
        beside = os.path.join(self._folder, f".{self._name}.{secrets.token_hex(8)}")
        fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            with os.fdopen(fd, "wb") as file:
                os.fchmod(fd, 0o644)  # for node_exporter, whatever the umask
                file.write(data)
            os.replace(beside, os.path.join(self._folder, self._name))
        except BaseException:
            with suppress(OSError):
                os.unlink(beside)
            raise

    @contextmanager
    def _locked(self, patience: float) -> Iterator[bool]:
        lock = os.path.join(self._folder, f".{self._name}.lock")
        fd = os.open(lock, os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        try:
            yield _lock(fd, patience)
        finally:
            os.close(fd)


def _lock(fd: int, patience: float) -> bool:
    end = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= end:
                return False
            time.sleep(LOCK_AGAIN)
        else:
            return True


def _without(jobs: frozenset[str], samples: Samples) -> Samples:
    return {key: value for key, value in samples.items() if not any(is_of(job, key) for job in jobs)}


def parse(text: str) -> Samples:
    """The samples of an exposition. Metrics of ours that are gone since are left out; ValueError for anything else."""
    from prometheus_client.parser import text_string_to_metric_families

    samples: Samples = {}
    for family in text_string_to_metric_families(text):
        for name, labels, value, *_ in family.samples:
            metric = BY_SAMPLE.get(name)
            if metric is None:
                continue
            names = label_names(metric, name)
            if set(labels) == set(names):
                samples[_key(name, labels, names)] = float(value)
    if not samples and text.strip():
        raise ValueError("it holds none of them")
    return samples


def _key(name: str, labels: dict[str, str], names: tuple[str, ...]) -> Key:
    return name, tuple(labels[each] for each in names)
