"""Watching runs at a server to their end, and what their end means for the exit code."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from lox.escape import safe
from lox.remote.asking import event_fields, local_time
from lox.units import format_seconds, format_size, plural
from model.exits import ExitCode

if TYPE_CHECKING:
    from lox.output import Output
    from lox.remote.client import Client, Fields

ENDED = ("success", "partial", "failed", "cancelled", "skipped", "lost")
_CODES = {"success": ExitCode.OK, "partial": ExitCode.PARTIAL, "cancelled": ExitCode.INTERRUPTED}
_FIRST, _CAP = 0.2, 2.0  # seconds between two looks


def wait(client: Client, output: Output, kind: str, uuid: str) -> int:
    """The exit code of a run (`kind` runs or restores) once it has ended; it is shown then."""
    pause = _FIRST
    while (run := client.patiently(kind, uuid))["status"] not in ENDED:
        time.sleep(pause)
        pause = min(_CAP, pause * 1.5)
    output.event("run_end", **event_fields(run))
    output.lines(end_lines(run))
    return exit_code(run)


def watch(client: Client, output: Output, uuid: str) -> int:
    """As `wait`, and shows what happens meanwhile."""
    for event in client.events("runs", uuid, "events"):
        output.event(event.kind, **event_fields(event.fields))
        line = event_line(event.kind, event.fields)
        if line:
            output.line(line)
            output.flush()
        if event.fields.get("status") in ENDED:
            break
    return wait(client, output, "runs", uuid)


def exit_code(run: Fields) -> int:
    """That of a `lox` command that would have done the same here."""
    status = run["status"]
    if status in _CODES:
        return _CODES[status]
    return int(run.get("exit_code") or ExitCode.FAILURE)


def event_line(kind: str, fields: Fields) -> str:
    """An event of a run for people; empty for what they need not know."""
    if kind == "run":
        progress = fields.get("progress")
        return f"{fields['status']}: {_progress(progress)}" if progress else ""
    if kind == "log":
        return f"{local_time(str(fields.get('time', '')))}  {safe(str(fields.get('text', '')))}"
    if kind == "problem":
        return f"problem: {safe(str(fields.get('path', '')))}: {safe(str(fields.get('text', '')))}"
    return ""


def _progress(fields: Fields) -> str:
    done, total, left = fields.get("bytes_done") or 0, fields.get("bytes_total"), fields.get("seconds_left")
    of = f" of {format_size(total)}" if total else ""
    end = f", {format_seconds(left)} left" if left else ""
    return f"{plural(fields.get('files_done') or 0, 'file')}, {format_size(done)}{of}{end}"


def end_lines(run: Fields) -> list[str]:
    """How a run ended."""
    lines = [f"{run.get('kind', 'run')} {run['uuid']}: {run['status']}"]
    summary: Any = run.get("summary")
    if summary:
        told = [plural(summary.get("files") or 0, "file"), format_size(summary.get("bytes") or 0)]
        if run.get("kind") == "backup":
            told.append(f"{format_size(summary.get('bytes_stored') or 0)} stored")
        lines.append(", ".join(told))
    error: Any = run.get("error")
    if error:
        parts = [error.get("what"), error.get("subject"), error.get("why"), error.get("hint")]
        lines.append(safe(": ".join([part for part in parts if part])))
    return lines
