"""What people say about a snapshot after it was made: tags, pins, holds, comments. Notes beside it, never changed.

    notes/<snapshot id>/<32 hex digits> = sealed JSON: when, and what it changes

The state of a snapshot is the fold of its notes in the order of (time, name), beginning with the tags it was made
with. A snapshot that is pinned or held, or of which a note cannot be read, is forgotten by nobody.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from model.errors import Damaged, Missing, NewerFormat
from repository.document_cache import Family, Listed, Packed, load_family
from repository.documents import Document, decode_document, encode_document, take
from repository.seal import ObjectKind

if TYPE_CHECKING:
    from pathlib import Path

    from repository.repository import Repository
    from repository.snapshot import Snapshot

NOTES_PREFIX = "notes/"
NOTE_MAX = 256 << 10  # bytes of an opened note

_VERSION = 1


@dataclass(frozen=True, slots=True)
class Pin:
    """Keeps a snapshot until a moment, ns since the epoch; None: for ever."""

    until: int | None = None


@dataclass(frozen=True, slots=True)
class Changes:
    """What one note changes. `pin` None leaves the pin as it is, False ends it; so `comment` None, and ``""``."""

    add: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()
    pin: Pin | bool | None = None
    hold: tuple[str, ...] = ()
    release: tuple[str, ...] = ()
    comment: str | None = None

    def encode(self) -> Document:
        """As a JSON object; what does not change is not in it."""
        lists = {key: list(getattr(self, key)) for key in _LISTS if getattr(self, key)}
        document: Document = dict(lists)
        if self.pin is not None:
            document["pin"] = {"until": self.pin.until} if isinstance(self.pin, Pin) else False
        if self.comment is not None:
            document["comment"] = self.comment
        return document

    @classmethod
    def decode(cls, document: Document, subject: str) -> Changes:
        """Raises Damaged."""
        lists = {key: _strings(document, key, subject) for key in _LISTS}
        comment = take(document, "comment", str, subject) if "comment" in document else None
        return cls(**lists, pin=_pin(document, subject), comment=comment)


_LISTS = ("add", "remove", "hold", "release")


@dataclass(frozen=True, slots=True)
class Note:
    """One note. `time` is ns since the epoch by the clock of the host that wrote it."""

    time: int
    changes: Changes
    name: str = ""

    def encode(self) -> bytes:
        """Canonical JSON."""
        return encode_document({"version": _VERSION, "time": self.time, "changes": self.changes.encode()})

    @classmethod
    def decode(cls, name: str, data: bytes) -> Note:
        """Raises Damaged, NewerFormat."""
        document = decode_document(data, name, NOTE_MAX)
        if (version := take(document, "version", int, name)) > _VERSION:
            raise NewerFormat("the note was written by a newer version", subject=name, why=f"version {version}")
        changes = Changes.decode(take(document, "changes", dict, name), name)
        return cls(take(document, "time", int, name), changes, name)


@dataclass(frozen=True, slots=True)
class Annotation:
    """What holds of one snapshot now. `unreadable` are notes of it that cannot be read, and why."""

    tags: frozenset[str] = frozenset()
    pin: Pin | None = None
    holds: frozenset[str] = frozenset()
    comment: str = ""
    unreadable: tuple[str, ...] = ()

    def protections(self, now: int) -> tuple[str, ...]:
        """Why nobody may forget the snapshot at `now`, ns since the epoch; empty if one may."""
        pinned = self.pin is not None and (self.pin.until is None or now < self.pin.until)
        unread = ("notes unreadable",) if self.unreadable else ()
        return (*(("pinned",) if pinned else ()), *(f"held: {name}" for name in sorted(self.holds)), *unread)

    def after(self, changes: Changes) -> Annotation:
        """What holds after one more note."""
        pin = self.pin if changes.pin is None else changes.pin if isinstance(changes.pin, Pin) else None
        return replace(
            self,
            tags=(self.tags - set(changes.remove)) | set(changes.add),
            pin=pin,
            holds=(self.holds - set(changes.release)) | set(changes.hold),
            comment=self.comment if changes.comment is None else changes.comment,
        )


@dataclass(slots=True)
class Annotations:
    """The notes of a repository, by snapshot."""

    notes: Mapping[str, Sequence[Note]] = field(default_factory=dict)
    unreadable: Mapping[str, Sequence[str]] = field(default_factory=dict)  # snapshot id → what is wrong

    def of(self, snapshot: Snapshot) -> Annotation:
        """What holds of `snapshot`."""
        notes, unreadable = self.notes.get(snapshot.id), self.unreadable.get(snapshot.id)
        if not notes and not unreadable:
            return _untouched(snapshot.tags)
        state = Annotation(frozenset(snapshot.tags), unreadable=tuple(unreadable or ()))
        for note in sorted(notes or (), key=lambda note: (note.time, note.name)):
            state = state.after(note.changes)
        return state


@lru_cache(maxsize=1024)  # of thousands of snapshots, most have no notes and the tags of others
def _untouched(tags: tuple[str, ...]) -> Annotation:
    return Annotation(frozenset(tags))


def load_annotations(
    repository: Repository,
    snapshot_id: str | None = None,
    cache_dir: Path | None = None,
    listed: Listed | None = None,
) -> Annotations:
    """The notes of all snapshots, or of one. One that cannot be read protects its snapshot. Raises StoreError.

    Those of all go through the cache in `cache_dir` (None: all are read); `listed` is what the store lists of them.
    """
    if snapshot_id is None:
        loaded = load_family(repository, _family(NOTES_PREFIX), cache_dir, listed)
    else:
        loaded = load_family(repository, _family(f"{NOTES_PREFIX}{snapshot_id}/"), None)
    notes: dict[str, list[Note]] = {}
    unreadable: dict[str, list[str]] = {}
    for name, note in loaded.found.items():
        notes.setdefault(_owner(name), []).append(note)
    for name, error in loaded.unreadable:
        unreadable.setdefault(_owner(name), []).append(str(error))
    return Annotations(notes, unreadable)


def _owner(name: str) -> str:
    return name.removeprefix(NOTES_PREFIX).partition("/")[0]


def _family(prefix: str) -> Family[Note]:
    return Family(prefix, _load, _pack, _unpack)


def _load(repository: Repository, name: str) -> Note:
    return Note.decode(name, repository.get_object(ObjectKind.MARK, name))


def _pack(notes: Sequence[Note]) -> Packed:
    return [(note.time, note.changes.encode()) for note in notes], b""


def _unpack(names: Sequence[str], packed: Any, body: bytes) -> Iterator[Note]:
    for name, (time, changes) in zip(names, packed, strict=True):
        yield Note(time, Changes.decode(changes, name), name)


def annotate(repository: Repository, snapshot_id: str, changes: Changes, now: int) -> Note:
    """Add a note to the snapshot, as of `now`, ns since the epoch; the note written. Raises StoreError.

    It takes effect after all notes that are there, even if the clock of this host is behind that of another.
    """
    before = load_annotations(repository, snapshot_id).notes.get(snapshot_id, ())
    time = max([now, *(note.time + 1 for note in before)])
    note = Note(time, changes, f"{NOTES_PREFIX}{snapshot_id}/{os.urandom(16).hex()}")
    repository.put_object(ObjectKind.MARK, note.name, note.encode())
    return note


def copy_notes(notes: Iterable[Note], repository: Repository, snapshot_id: str) -> int:
    """Write `notes`, from wherever, as notes of a snapshot that has none; how many. Raises StoreError.

    Two of equal time keep their order: it is that of their names.
    """
    ordered = sorted(notes, key=lambda note: (note.time, note.name))
    names = sorted(os.urandom(16).hex() for _ in ordered)
    for note, name in zip(ordered, names, strict=True):
        repository.put_object(ObjectKind.MARK, f"{NOTES_PREFIX}{snapshot_id}/{name}", note.encode())
    return len(ordered)


def remove_notes(repository: Repository, snapshot_ids: Iterable[str]) -> None:
    """Delete all notes of snapshots that are gone for good. Raises StoreError."""
    for snapshot_id in snapshot_ids:
        for name, _ in list(repository.store.list(f"{NOTES_PREFIX}{snapshot_id}/")):
            try:
                repository.store.delete(name)
            except Missing:
                continue


def _pin(document: Document, subject: str) -> Pin | bool | None:
    if "pin" not in document:
        return None
    if document["pin"] is False:
        return False
    until = take(document, "pin", dict, subject).get("until")
    if until is None:
        return Pin()
    return Pin(take({"until": until}, "until", int, subject))


def _strings(document: Document, key: str, subject: str) -> tuple[str, ...]:
    values = take(document, key, list, subject) if key in document else []
    if not all(isinstance(value, str) for value in values):
        raise Damaged("object lacks a valid field", subject=subject, why=f"{key} should be strings")
    return tuple(values)
