"""What a store really does, found out by doing it, in a folder of its own that is removed again."""

from __future__ import annotations

import contextlib
import os
import secrets
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

from model.errors import Exists, Missing, StoreError, UsageError
from repository.store.base import Store

MIB = 1 << 20
SMALL = 1000  # bytes of the objects that are about behaviour
DELETED = "deleted objects"  # the trait
_LATENCY_ROUNDS = 9


@dataclass(frozen=True, slots=True)
class Finding:
    """One trait. `good` None: neither good nor bad, or not found out. `needed`: without it the store is unusable."""

    name: str
    good: bool | None
    text: str
    needed: bool = False


@dataclass(slots=True)
class ProbeReport:
    """What was found, and the figures of a full probe: seconds, and bytes a second; None where not measured."""

    url: str
    findings: list[Finding] = field(default_factory=list)
    overwrites: bool | None = None  # a taken name is overwritten silently by who does not ask first
    clock_difference: float | None = None  # seconds by which the clock of the store is ahead of ours
    latency: float | None = None
    upload: float | None = None
    download: float | None = None
    keeps_deleted: bool | None = None  # what is deleted stays, hidden, until a rule of the store removes it
    left_behind: list[str] = field(default_factory=list)  # objects of the probe that could not be deleted

    @property
    def usable(self) -> bool:
        """Whether a repository can live there."""
        return not any(finding.needed and finding.good is False for finding in self.findings)


def probe(store: Store, full: bool = True, object_size: int = 8 * MIB, objects: int = 8, lanes: int = 4) -> ProbeReport:
    """Try what repositories rely on; if `full`, also measure, with `objects` of `object_size` bytes in `lanes`.

    Raises StoreError if even the first object can be neither stored nor read: there is nothing to report then.
    """
    report = ProbeReport(store.url)
    folder = f"probe-{secrets.token_hex(8)}"
    try:
        _behaviour(store, folder, report)
        if full:
            _figures(store, folder, report, object_size, objects, lanes)
    finally:
        _clean(store, folder, report)
    return report


def _behaviour(store: Store, folder: str, report: ProbeReport) -> None:
    name, data = f"{folder}/a/one", secrets.token_bytes(SMALL)
    before = time.time()
    store.put(name, [data])
    after = time.time()
    same = store.get(name) == data
    report.findings.append(_needed("read after write", same, "the object is there at once", "other bytes came back"))
    ranged = [(0, 10), (500, 10), (SMALL - 5, 50), (SMALL, 5)]
    cut = all(store.get(name, offset, length) == data[offset : offset + length] for offset, length in ranged)
    report.findings.append(_needed("ranges", cut, "parts of objects are read", "a wrong part came back"))
    listed = list(store.list(f"{folder}/")) == [(name, SMALL)]
    report.findings.append(_needed("list after write", listed, "listed at once, with its size", "not listed at once"))
    report.findings.append(_put_if_absent(store, f"{folder}/a/taken", report))
    report.findings.append(_clock(store, name, before, after, report))
    report.keeps_deleted = store.keeps_deleted(name)
    report.findings.append(_delete(store, folder, name))
    if report.keeps_deleted:
        text = "; ".join(["hidden, and kept as older versions", *filter(None, [store.rules_for_deleted()])])
        report.findings.append(Finding(DELETED, None, text))


def _needed(name: str, good: bool, yes: str, no: str) -> Finding:
    return Finding(name, good, yes if good else no, needed=True)


def _put_if_absent(store: Store, name: str, report: ProbeReport) -> Finding:
    """Without asking first, for it is the server that must refuse when two hosts write in the same instant."""
    store.put(name, [b"first"])
    try:
        store.put_unasked(name, [b"second"])
    except Exists:
        report.overwrites = False
        return Finding("put if absent", True, "a taken name is refused")
    except StoreError as error:
        return Finding("put if absent", None, f"not known: {error}")
    report.overwrites = store.get(name) != b"first"
    if not report.overwrites:
        return Finding("put if absent", None, "a second object was accepted, and dropped silently")
    return Finding("put if absent", False, "overwrites silently; safe all the same, as no name is used twice")


def _clock(store: Store, name: str, before: float, after: float, report: ProbeReport) -> Finding:
    nanoseconds = store.written(name)
    if nanoseconds is None:
        return Finding("clock", None, "the store tells no time")
    written = nanoseconds / 10**9
    # Stores tell whole seconds: what lies within the second of the write is no difference.
    early, late = written - after, written + 1.0 - before
    difference = 0.0 if early <= 0.0 <= late else min((early, late), key=abs)
    report.clock_difference = round(difference, 3)
    if abs(difference) < 1.0:
        return Finding("clock", True, "same time as here")
    way = "ahead of" if difference > 0 else "behind"
    good = abs(difference) < 300.0
    return Finding("clock", good, f"{abs(difference):.0f} s {way} this host")


def _delete(store: Store, folder: str, name: str) -> Finding:
    try:
        store.delete(name)
    except StoreError as error:
        return Finding("delete", None, f"refused ({error.why or error.what}): good for append-only use")
    gone = not store.exists(name) and name not in [found for found, _ in store.list(f"{folder}/")]
    return Finding("delete", gone, "gone at once" if gone else "deleted objects are still seen for a while")


def _figures(store: Store, folder: str, report: ProbeReport, object_size: int, objects: int, lanes: int) -> None:
    if object_size < 1 or objects < 1 or lanes < 1:
        raise UsageError("nothing to measure with", hint="sizes and numbers are at least 1")
    name = f"{folder}/b/small"
    store.put(name, [secrets.token_bytes(SMALL)])
    times = []
    for _ in range(_LATENCY_ROUNDS):
        began = time.perf_counter()
        store.get(name, 0, SMALL)
        times.append(time.perf_counter() - began)
    report.latency = statistics.median(times)
    data = os.urandom(object_size)
    names = [f"{folder}/c/{number}" for number in range(objects)]
    with ThreadPoolExecutor(lanes) as pool:
        with _timed() as upload:
            list(pool.map(lambda name: store.put(name, [data]), names))
        with _timed() as download:
            intact = all(pool.map(partial(_same, store, data), names))
    report.upload = object_size * objects / upload[0]
    report.download = object_size * objects / download[0]
    report.findings.append(_needed("large objects", intact, "come back whole", "came back damaged"))


def _same(store: Store, data: bytes, name: str) -> bool:
    return store.get(name, 0, len(data) + 1) == data


@contextlib.contextmanager
def _timed() -> Iterator[list[float]]:
    """The list holds the seconds of the block once it is left."""
    seconds, began = list[float](), time.perf_counter()
    yield seconds
    seconds.append(max(time.perf_counter() - began, 1e-9))


def _clean(store: Store, folder: str, report: ProbeReport) -> None:
    """Deletes all that the probe stored; what cannot be deleted is named in the report."""
    try:
        names = [name for name, _ in store.list(f"{folder}/")]
    except StoreError:
        report.left_behind.append(f"{folder}/")
        return
    for name in names:
        try:
            store.delete(name)
        except Missing:  # the probe deleted it itself
            pass
        except StoreError:
            report.left_behind.append(name)
