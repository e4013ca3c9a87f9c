"""Why a file is in a snapshot as it is: what the backup did with it, whence its content, and what a restore fetches.

A snapshot does not record why a file was read. What both manifests say decides it, by the rules of the scan
(sources/files/parent.py); what they cannot say is said to be unknown.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from lox.analysis.history import source_of
from lox.analysis.origins import Origin, Wanted, search
from lox.escape import shown_path
from model.entries import Kind
from model.errors import NotFound
from pipelines.keeping import left_out
from repository.diff import content_differs, matched
from repository.entry_table import column
from repository.manifest_reader import ManifestReader
from repository.snapshot import Snapshot
from repository.tables.view import View
from sources.files.parent import COMPARED, RACY
from stages.locate import neighbours

METADATA = ("mode", "uid", "gid", "user", "group", "nlink", "flags", "rdev", "target", "xattrs")
LINKS_NAMED = 5


@dataclass(slots=True)
class Verdict:
    """What the backup did with one entry.

    `state` is new, changed, unchanged, or unknown; `read` whether its content was read (None: cannot be known, or there
    is none). `changed` names what the scan compares and found different, `metadata` what else differs, `content`
    whether the content does. `reasons` are sentences.
    """

    state: str
    read: bool | None
    changed: list[str] = field(default_factory=list)
    metadata: list[str] = field(default_factory=list)
    content: bool | None = None
    reasons: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Cost:
    """What a restore of it alone fetches. Bytes are stored ones; `content` are bytes of different chunks, plain."""

    content: int = 0
    fetched: int = 0
    segments: int = 0
    packs: list[str] = field(default_factory=list)
    ranges: int = 0
    missing: int = 0  # chunks that are in no index


@dataclass(slots=True)
class Explanation:
    """All `lox why` tells. Of folders `states` counts entries below; `logical` are bytes of content."""

    snapshot: Snapshot
    path: bytes
    kind: Kind
    parent: str | None
    verdict: Verdict
    states: dict[str, int]
    logical: int
    repeated: int  # bytes of chunks that occur in it more than once, but for the first
    origins: list[Origin]
    cost: Cost
    links: list[bytes]
    problem: bytes | None


def explain(view: View, snapshot: Snapshot, path: bytes) -> Explanation:
    """Why `path` (relative to ``/``) is in `snapshot` as it is. Raises NotFound, Damaged.

    Reads the manifests of all older snapshots until everything is explained; memory grows with the chunks below `path`.
    """
    reader = view.manifest(snapshot)
    entry = reader.find(path) if path else None
    parent, why_not = parent_of(view, snapshot)
    if path and entry is None:
        raise _absent(view, snapshot, parent, path)
    subject = _Subject(reader, path)
    before = view.manifest(parent) if parent is not None else None
    verdict = _first_verdict(entry, before, path, parent, snapshot, why_not)
    wanted = Wanted(subject.ids, subject.length)
    search(view, snapshot, reader, path, wanted, parent, view.snapshots)
    kind = Kind(int(column(entry, "kind")[0])) if entry is not None else Kind.DIRECTORY
    return Explanation(
        snapshot,
        path,
        kind,
        None if parent is None else parent.id,
        verdict,
        _states(subject, before, path, parent) if kind is Kind.DIRECTORY else {},
        int(subject.length.sum()),
        int(subject.length.sum() - wanted.length.sum()),
        wanted.origins(),
        _cost(view, wanted),
        [] if entry is None else _links(reader, entry),
        None if entry is None else entry["problem"][0].as_py(),
    )


def parent_of(view: View, snapshot: Snapshot) -> tuple[Snapshot | None, str]:
    """The snapshot to compare with, and why it is not the one the backup compared with (empty if it is)."""
    known = {one.id: one for one in view.snapshots}
    if snapshot.parent in known:
        return known[snapshot.parent], ""
    older = [one for one in view.snapshots if source_of(one) == source_of(snapshot) and one.time < snapshot.time]
    last = max(older, key=lambda one: (one.time, one.id), default=None)
    if snapshot.parent is not None:
        gone = f"the parent, snapshot {snapshot.parent[:8]}, is not in the repository any more"
        return last, gone + (": compared with the snapshot before instead" if last is not None else "")
    if snapshot.mode == "full":
        return last, "everything was read: the mode was full"
    return last, "everything was read: there was no parent to compare with"


def _absent(view: View, snapshot: Snapshot, parent: Snapshot | None, path: bytes) -> NotFound:
    """Why there is nothing to explain: what the rules of the backup say, and whether it was there before."""
    old = None if parent is None else view.manifest(parent).find(path)
    is_directory = old is not None and column(old, "kind")[0] == Kind.DIRECTORY
    size = 0 if old is None else int(column(old, "size")[0])
    why = left_out(snapshot, path, is_directory, size) or ""
    hint = "lox find searches all snapshots"
    if old is not None and parent is not None:
        why = why or "it is gone since"
        hint = f"snapshot {parent.id[:8]} has it"
    return NotFound("no such path in the snapshot", subject=shown_path(path), why=why, hint=hint)


class _Subject:
    """The rows at a path and below it, and all their chunks."""

    def __init__(self, reader: ManifestReader, path: bytes) -> None:
        self.tables = list(reader.subtree(path))
        lists = [reader.content(table) for table in self.tables]
        none = np.zeros((0, 32), np.uint8)
        self.ids = np.concatenate([none, *(one.ids for one in lists)])
        self.length = np.concatenate([np.zeros(0, np.int64), *(one.length.astype(np.int64) for one in lists)])


def _first_verdict(
    entry: pa.Table | None,
    before: ManifestReader | None,
    path: bytes,
    parent: Snapshot | None,
    snapshot: Snapshot,
    why_not: str,
) -> Verdict:
    reasons = [why_not] if why_not else []
    forced = snapshot.parent is None
    if entry is None:
        return Verdict("unknown" if before is None else "unchanged", None, reasons=reasons)
    is_file = bool(column(entry, "kind")[0] == Kind.FILE)
    if before is None or parent is None:
        state = "new" if forced and snapshot.mode != "full" else "unknown"
        if state == "unknown":
            reasons.append("no older snapshot of the same host and paths is left: whether it is new cannot be known")
        return Verdict(state, is_file or None, reasons=reasons)
    old = before.find(path)
    if old is None:
        reasons.append(_why_absent(before, parent, path, entry))
        return Verdict("new", is_file or None, reasons=reasons)
    return _compared(old, entry, parent, forced, is_file, reasons)


def _compared(
    old: pa.Table, new: pa.Table, parent: Snapshot, forced: bool, is_file: bool, reasons: list[str]
) -> Verdict:
    """What differs between two rows of one path, and whether the scan therefore read it."""
    changed = ["type"] if column(old, "kind")[0] != column(new, "kind")[0] else []
    changed += ["inode" if name == "ino" else name for name in COMPARED if column(old, name)[0] != column(new, name)[0]]
    metadata = [name for name in METADATA if old[name][0].as_py() != new[name][0].as_py()]
    content = bool(content_differs(old, new)[0]) or old["target"][0] != new["target"][0]
    verdict = Verdict("changed" if changed else "unchanged", None, changed, metadata, content, reasons)
    if not is_file:
        return verdict
    verdict.read = bool(changed) or forced
    if changed:
        if not content:
            reasons.append("it was read again, and its content is the same as before")
        return verdict
    if old["problem"][0].as_py() is not None:
        verdict.read = True
        reasons.append("it was read again: the time before it could not be read whole")
    elif int(column(old, "ctime")[0]) >= parent.started - RACY:
        verdict.read = True
        reasons.append(
            "it was read again: it had changed within 50 ms of the parent's backup, so its times prove nothing"
        )
    elif forced:
        reasons.append("none of what a scan compares had changed")
    else:
        reasons.append("it was carried over unread, unless a chunk of it was lost then, which is not recorded")
    return verdict


def _why_absent(before: ManifestReader, parent: Snapshot, path: bytes, entry: pa.Table) -> str:
    """Why the parent has no entry of this path, as far as it says."""
    is_directory = int(column(entry, "kind")[0]) == Kind.DIRECTORY
    if (reason := left_out(parent, path, is_directory, int(column(entry, "size")[0]))) is not None:
        return f"the parent did not hold it: {reason}"
    inode, device = int(column(entry, "ino")[0]), int(column(entry, "device")[0])
    if int(column(entry, "kind")[0]) == Kind.FILE and inode:
        for table in before:
            at = np.flatnonzero((column(table, "ino") == inode) & (column(table, "kind") == Kind.FILE))
            for row in at.tolist():
                if int(column(table, "device")[row]) == device and table["mtime"][row] == entry["mtime"][0]:
                    known = shown_path(table["path"][row].as_py())
                    return f"the parent knows the same inode as {known}: renamed or linked"
    return "the parent has no entry of this path: it was not there then, or out of reach"


def _states(subject: _Subject, before: ManifestReader | None, path: bytes, parent: Snapshot | None) -> dict[str, int]:
    """How many files at and below are new, changed and unchanged, and how many are gone."""
    counts = {"new": 0, "changed": 0, "unchanged": 0, "gone": 0}
    if before is None:
        return {}
    mine = _files(pa.concat_tables(subject.tables)) if subject.tables else None
    theirs = list(before.subtree(path))
    if mine is None or not theirs:
        return counts | {"new": 0 if mine is None else mine.num_rows}
    old = _files(pa.concat_tables(theirs))
    match = matched(mine, old)
    both = np.flatnonzero(match >= 0)
    differs = np.zeros(len(both), dtype=bool)
    for name in COMPARED:
        differs |= column(mine, name)[both] != column(old, name)[match[both]]
    counts["new"], counts["changed"] = mine.num_rows - len(both), int(differs.sum())
    counts["unchanged"], counts["gone"] = len(both) - counts["changed"], old.num_rows - len(both)
    return counts


def _files(table: pa.Table) -> pa.Table:
    return table.filter(pa.array(column(table, "kind") == Kind.FILE)).combine_chunks()


def _links(reader: ManifestReader, entry: pa.Table) -> list[bytes]:
    """Other names of the same file in the snapshot, some of them."""
    if int(column(entry, "nlink")[0]) < 2 or column(entry, "kind")[0] != Kind.FILE:
        return []
    inode, device, own = int(column(entry, "ino")[0]), int(column(entry, "device")[0]), entry["path"][0].as_py()
    found: list[bytes] = []
    for table in reader:
        at = np.flatnonzero((column(table, "ino") == inode) & (column(table, "device") == device))
        found += [path for path in table["path"].take(pa.array(at)).to_pylist() if path != own]
        if len(found) >= LINKS_NAMED:
            break
    return found[:LINKS_NAMED]


def _cost(view: View, wanted: Wanted) -> Cost:
    where = view.index.lookup(wanted.ids)
    found = np.flatnonzero(where.found)
    rows = np.unique(where.segment[found])
    table = where.segments.take(rows)
    packs = [where.packs[number].hex() for number in np.unique(table.pack).tolist()]
    return Cost(
        content=int(wanted.length.sum()),
        fetched=int(table.stored.sum(dtype=np.int64)),
        segments=len(rows),
        packs=packs,
        ranges=sum(1 for _ in neighbours(table)) if len(rows) else 0,
        missing=len(wanted.ids) - len(found),
    )
