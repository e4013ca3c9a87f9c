"""What the server is told of a run: events, collected for a moment and then kept on disk until the server has them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from agent.child import Ended, Event
from agent.redact import redact
from agent.state import UNWRITABLE_SECONDS, RunRow, State, StateUnwritable
from model.errors import LoxError
from model.names import shown
from model.wire.base import rfc3339

TEXT_MAX = 4_000  # characters; less than the server takes
PROBLEMS_MAX = 10_000  # of one run; the count of all is in its summary
LINES_MAX = 5_000
COLLECT = 100  # events that are written together
HELD_MAX = 2_000  # events of a run that are kept in memory while they cannot be written

Body = dict[str, Any]


def stamp(seconds: float | None = None) -> str:
    """A time as the server wants it; now, if none is given."""
    return rfc3339(datetime.fromtimestamp(time.time() if seconds is None else seconds, UTC))


class Teller:
    """Events of one run. `wake` is called when there is something to send."""

    def __init__(self, state: State, row: RunRow, wake: Callable[[], None]) -> None:
        self._state, self.row, self._wake = state, row, wake
        self._held: list[tuple[str, Body]] = []
        self._after: RunRow | None = None
        self._not_before = 0.0  # by the monotonic clock: until then it is not tried again to write
        self._problems = self._lines = 0

    def started(self) -> None:
        """The run begins, or goes on after the agent was killed."""
        row = self.row
        told = {name: row.body[name] for name in ("trigger", "scheduled_for", "mode", "attempt") if row.body.get(name)}
        job = {"job_uuid": str(row.job)} if row.job is not None and row.kind == "backup" else {}
        self._add("started", {"kind": row.kind, **told, **job})
        self.flush()

    def log(self, text: str, level: str = "info") -> None:
        """A line for the log of the run."""
        self._lines += 1
        if self._lines <= LINES_MAX:
            self._add("log", {"level": level, "text": clipped(text)})

    def event(self, event: Event) -> None:
        """What `lox` says."""
        match event["type"]:
            case "progress":
                self._add("progress", _progress(event))
                self.flush()
            case "problem":
                self._problems += 1
                if self._problems <= PROBLEMS_MAX:
                    exact = {"path_b64": event["path_b64"]} if event.get("path_b64") else {}
                    text = clipped(str(event.get("message", "")))
                    self._add("problem", {"path": clipped(str(event.get("path", ""))), "text": text, **exact})
            case "warning" | "reread":
                self.log(str(event.get("message", "a read from the store came wrong, and right when repeated")), "warn")

    def problem(self, path: str, text: str) -> None:
        """Trouble with one entry that the agent found itself."""
        self.event({"type": "problem", "path": shown(path.encode("utf-8", "surrogateescape")), "message": text})

    def ended(
        self, status: str, code: int, summary: Body | None = None, error: LoxError | None = None,
        after: RunRow | None = None,
    ) -> None:  # fmt: skip
        """The run is over; `after` is one that is to follow it. Both are remembered, or neither."""
        body: Body = {"status": status, "exit_code": code, "summary": summary or {}}
        if error is not None:
            body["error"] = {name: clipped(getattr(error, name)) for name in ("what", "subject", "why", "hint")}
            self.row.body["why"] = clipped(str(error))  # for commands on this host
        self.row.body["exit_code"] = code
        self.row.state, self.row.status, self.row.ended = "ended", status, time.time()
        self.row.pid = self.row.pid_began = None
        self._add("finished", body)
        self.flush(after)

    def _add(self, kind: str, body: Mapping[str, Any]) -> None:
        self._held.append((kind, {"time": stamp(), **body}))
        if len(self._held) >= COLLECT:
            self.flush()

    @property
    def owing(self) -> bool:
        """Whether something was collected that is not written down."""
        return bool(self._held) or self._after is not None

    def flush(self, after: RunRow | None = None) -> None:
        """Write down what was collected. While the disk is full it is kept, but for details, and `owing` says so."""
        self._after = after or self._after
        if not self.owing or time.monotonic() < self._not_before:
            return
        try:
            self._state.tell(self.row.run, self._held, self.row, self._after)
        except StateUnwritable:
            details = [one for one in self._held[:-1] if one[0] != "progress"]
            self._held = details[:HELD_MAX] + self._held[-1:]
            self._not_before = time.monotonic() + UNWRITABLE_SECONDS
            return
        self._held, self._after = [], None
        self._wake()


def clipped(text: str) -> str:
    """`text` as it may be sent: no secrets, not too long, nothing that UTF-8 or a database does not hold."""
    safe = redact(text).encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")
    return safe if len(safe) <= TEXT_MAX else safe[: TEXT_MAX - 1] + "…"


def _progress(event: Event) -> Body:
    names = ("phase", "files_done", "files_total", "bytes_done", "bytes_total")
    stages = [
        {"name": str(row["stage"])[:64], "items": row["items"], "bytes": row["bytes_in"],
         **{name: max(0.0, row[name]) for name in ("busy", "starved", "blocked")}}
        for row in event.get("stages") or ()
    ]  # fmt: skip
    left = event.get("seconds_remaining")
    return {name: event.get(name) for name in names if event.get(name) is not None} | {
        "seconds_left": left,
        "stages": stages[:32],
    }


def summary_of_backup(ended: Ended, missing: list[str]) -> Body:
    """The end of `lox backup` as the server shows it."""
    found = ended.summary
    total, new = found.get("bytes_total", 0), found.get("bytes_new", 0)
    deduplicated = found.get("deduplicated", True)
    return {
        "snapshot": found.get("snapshot"),
        "files": found.get("files", 0),
        "bytes": total,
        "files_new": found.get("files_new", 0),
        "bytes_new": new,
        "bytes_stored": found.get("bytes_stored", 0),
        "deduplicated": deduplicated,
        "dedup_ratio": round(total / new, 3) if new and deduplicated else None,
        "problems": found.get("problems", 0) + len(missing),
        "missing_paths": [clipped(path) for path in missing[:1_000]],
        "limited_by": clipped(found["bottleneck"]) if found.get("bottleneck") else None,
        "seconds": found.get("seconds", 0.0),
    }


def summary_of_restore(ended: Ended) -> Body:
    """The end of `lox restore` as the server shows it."""
    found = ended.summary
    return {
        "snapshot": found.get("snapshot"),
        "files": found.get("files", 0),
        "bytes": found.get("bytes", 0),
        "problems": found.get("problems", 0),
        "limited_by": clipped(found["bottleneck"]) if found.get("bottleneck") else None,
        "seconds": found.get("seconds", 0.0),
    }
