"""A run under way, as others on this host see it: a file that is replaced about once a second, and a lock.

The lock is held as long as the process lives and is let go by the system, however that ends: so a run that was killed
is known as such, whatever process has its number now.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from model.errors import Damaged
from pipelines.run_summary import RunSummary
from repository.documents import Document, decode_document, encode_document, take
from runtime.timeline import COUNTS, TIMES, Interval
from runtime.trace import StageTrace, Trace

STATUS_MAX = 4 << 20  # bytes
STALE_SECONDS = 5.0  # a status of which nobody holds the lock is one of a killed run once it is so old


@dataclass(slots=True)
class RunStatus:
    """How far a run is. `trace` is that of the plan that runs now, None before the first; `latest` is what it gained in
    the last second. `written` is in seconds since 1970. `done` and `total` are files and bytes, as far as known.
    """

    summary: RunSummary
    pid: int = field(default_factory=os.getpid)
    written: float = field(default_factory=time.time)
    phase: str = ""
    done: tuple[int, int] = (0, 0)
    total: tuple[int | None, int | None] = (None, None)
    trace: Trace | None = None
    latest: Interval | None = None
    alive: bool = True

    def encode(self) -> bytes:
        """As JSON."""
        latest = self.latest
        document: Document = {
            "summary": self.summary.document(),
            "pid": self.pid,
            "written": self.written,
            "phase": self.phase,
            "done": list(self.done),
            "total": list(self.total),
            "trace": None if self.trace is None else asdict(self.trace),
            "latest": None if latest is None else [latest.begin, latest.seconds, latest.values.tolist()],
        }
        return encode_document(document)

    @classmethod
    def decode(cls, data: bytes, subject: str) -> RunStatus:
        """What `encode` gave. Raises Damaged naming `subject`."""
        document = decode_document(data, subject, STATUS_MAX)
        summary = RunSummary.of_document(take(document, "summary", dict, subject), subject)
        try:
            trace, latest = _trace_of(document["trace"]), _interval_of(document["latest"])
            done, total = _pair(document["done"]), _pair(document["total"])
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise Damaged("object lacks a valid field", subject=subject, why=str(error)) from error
        if latest is not None and (trace is None or len(latest.values) != len(trace.stages)):
            raise Damaged("object lacks a valid field", subject=subject, why="latest")
        return cls(
            summary,
            take(document, "pid", int, subject),
            float(take(document, "written", float, subject)),
            take(document, "phase", str, subject),
            (done[0] or 0, done[1] or 0),
            total,
            trace,
            latest,
        )


def _pair(given: Any) -> tuple[int | None, int | None]:
    first, second = given
    return None if first is None else int(first), None if second is None else int(second)


def _trace_of(given: Any) -> Trace | None:
    if given is None:
        return None
    lines = tuple(
        StageTrace(
            str(line["name"]),
            str(line["strand"]),
            max(1, int(line["lanes"])),
            int(line["items_in"]),
            int(line["items_out"]),
            int(line["bytes_in"]),
            int(line["bytes_out"]),
            float(line["busy"]),
            float(line["starved"]),
            float(line["blocked"]),
            tuple(float(seconds) for seconds in line["lane_busy"]),
        )
        for line in given["stages"]
    )
    if not lines or any(len(line.lane_busy) not in (0, line.lanes) for line in lines):
        raise ValueError("stages")
    idle = None if given["idle_cores"] is None else float(given["idle_cores"])
    return Trace(
        str(given["executor"]),
        float(given["wall"]),
        lines,
        int(given["fed"]),
        int(given["acked"]),
        int(given["deaths"]),
        int(given["replayed"]),
        float(given["began"]),
        int(given["cores"]),
        idle,
    )


def _interval_of(given: Any) -> Interval | None:
    if given is None:
        return None
    begin, seconds, values = given
    rows = np.array(values, dtype=np.float64)
    if rows.ndim != 2 or rows.shape[1] != len(COUNTS) + len(TIMES):
        raise ValueError("latest")
    return Interval(float(begin), float(seconds), rows)


def write_private(path: Path, data: bytes) -> None:
    """Put `data` in the place of the file, mode 0600, so that whoever reads sees the old bytes or the new. OSError."""
    fd, temporary = tempfile.mkstemp(prefix=".new-", dir=path.parent)  # 0600
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
        os.rename(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise


def read_bounded(path: Path, most: int) -> bytes:
    """The file's bytes. Raises OSError, and Damaged if there are more than `most`."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(fd, "rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise Damaged("a record is too large", subject=path.name, why=f"at most {most} bytes are allowed")
    return data


def hold(path: Path) -> Callable[[], None]:
    """Take the lock of a run; call what is returned to let it go. Raises OSError."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)  # whoever looks holds it for a moment only
    except BaseException:
        os.close(fd)
        raise

    def let_go() -> None:
        path.unlink(missing_ok=True)
        os.close(fd)

    return let_go


def is_held(path: Path) -> bool:
    """Whether the process that took the lock lives."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False
