"""What is remembered of a run beside its timeline: what was asked, how it ended, what it did, what limited it."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from model.errors import Damaged
from model.exits import ExitCode
from repository.documents import Document, decode_document, encode_document, take

SUMMARY_MAX = 1 << 20  # bytes
PATHS_MAX = 256 << 10  # bytes of paths in a summary; further ones are left out
KINDS = ("backup", "restore", "copy", "check", "prune", "forget", "repair", "sync")
OUTCOMES = ("running", "done", "partial", "damaged", "interrupted", "failed", "killed", "unreadable")

_BY_CODE = {
    ExitCode.OK: "done",
    ExitCode.PARTIAL: "partial",
    ExitCode.DAMAGE_FOUND: "damaged",
    ExitCode.INTERRUPTED: "interrupted",
}


def outcome_of(code: int) -> str:
    """The outcome of a run whose command ended with this exit code."""
    return _BY_CODE.get(ExitCode(code), "failed")


def new_run_id(started: int) -> str:
    """A name for a run that began at `started` (ns since 1970): names sort by time, to the millisecond."""
    second = time.strftime("%Y%m%dT%H%M%S", time.gmtime(started // 10**9))
    return f"{second}{started // 10**6 % 1000:03d}-{os.urandom(2).hex()}"


@dataclass(slots=True)
class RunSummary:
    """One run. `started` is in ns since 1970, `wall` in seconds from then to the end, sizes are in bytes.

    `outcome` is one of `OUTCOMES`; `exit_code` None while there is none; `error` says why it failed. `repository` is
    the URL without credentials. `snapshots` were copied, moved to the trash or removed from it; `snapshot` is the one
    that was made or restored. `settings` are what was asked for beside what has a field of its own. `gain`: so many
    times as fast the run were if the `limiting` stage were twice as fast.
    """

    id: str
    kind: str
    repository_id: str = ""
    repository: str = ""
    host: str = ""
    started: int = 0
    paths: tuple[bytes, ...] = ()
    profile: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)
    program: str = ""
    executor: str = ""
    lanes: int = 0
    cores: int = 0
    wall: float = 0.0
    outcome: str = "running"
    exit_code: int | None = None
    error: str = ""
    files: int = 0
    bytes_read: int = 0
    bytes_new: int = 0
    bytes_stored: int = 0
    bytes_deleted: int = 0
    snapshots: int = 0
    problems: int = 0
    snapshot: str = ""
    bottleneck: str = ""
    limiting: str = ""
    gain: float = 1.0

    def document(self) -> Document:
        """As a JSON object."""
        document: Document = {part.name: getattr(self, part.name) for part in fields(self)}
        size, named = 0, []
        for path in self.paths:
            size += len(path)
            if size <= PATHS_MAX:
                named.append(path.decode("utf-8", "surrogateescape"))
        return document | {"paths": named, "settings": dict(self.settings)}

    def encode(self) -> bytes:
        """As JSON."""
        return encode_document(self.document())

    @classmethod
    def decode(cls, data: bytes, subject: str) -> RunSummary:
        """What `encode` gave. Raises Damaged naming `subject`."""
        return cls.of_document(decode_document(data, subject, SUMMARY_MAX), subject)

    @classmethod
    def of_document(cls, document: Document, subject: str) -> RunSummary:
        """What `document` gave. Raises Damaged naming `subject`."""
        values: dict[str, object] = {}
        for part in fields(cls):
            values[part.name] = _PARSERS.get(part.name, _plain)(document, part.name, subject)
        summary = cls(**values)  # type: ignore[arg-type]
        if summary.outcome not in OUTCOMES:
            raise Damaged("object lacks a valid field", subject=subject, why="outcome")
        return summary


_BYTES = ("bytes_read", "bytes_new", "bytes_stored", "bytes_deleted")
_KINDS: dict[str, type] = {"wall": float, "gain": float} | dict.fromkeys(
    ("started", "lanes", "cores", "files", *_BYTES, "snapshots", "problems"), int
)


def _plain(document: Document, name: str, subject: str) -> object:
    kind = _KINDS.get(name, str)
    if kind is float and isinstance(document.get(name), int):
        return float(take(document, name, int, subject))
    return take(document, name, kind, subject)


def _paths(document: Document, name: str, subject: str) -> tuple[bytes, ...]:
    texts = take(document, name, list, subject)
    try:
        return tuple(text.encode("utf-8", "surrogateescape") for text in texts)
    except (AttributeError, UnicodeError) as error:
        raise Damaged("object lacks a valid field", subject=subject, why=name) from error


def _settings(document: Document, name: str, subject: str) -> dict[str, str]:
    return {str(key): str(value) for key, value in take(document, name, dict, subject).items()}


def _exit_code(document: Document, name: str, subject: str) -> int | None:
    return None if document.get(name) is None else take(document, name, int, subject)


_PARSERS = {"paths": _paths, "settings": _settings, "exit_code": _exit_code}
