"""Soft delete: a forgotten snapshot lies in the trash until it is purged, and `undelete` brings it back.

    trash/snapshots/<snapshot id>/<32 hex digits> = sealed JSON: when, by which rule, and the snapshot document itself

Forgetting writes to the trash first and deletes the snapshot then; bringing back writes the snapshot first and empties
the trash then. So whatever is interrupted, the snapshot is in at least one of the two places, and doing it again
finishes. What a snapshot in the trash needs is live: garbage collection must leave it alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from model.errors import Damaged, Exists, LoxError, Missing, NewerFormat, NotFound, UsageError
from repository.annotations import load_annotations, remove_notes
from repository.deleting import delete
from repository.document_cache import Family, Packed, load_family
from repository.documents import Document, decode_document, encode_document, take, take_hex
from repository.keyring import WRITER_ID_SIZE
from repository.purged import record_purged
from repository.reserve import drawing_on_reserve
from repository.seal import ObjectKind
from repository.snapshot import SNAPSHOT_MAX, SNAPSHOT_PREFIX, Snapshot, Snapshots, load_all

if TYPE_CHECKING:
    from pathlib import Path

    from repository.repository import Repository

TRASH_PREFIX = "trash/snapshots/"
TRASH_MAX = 2 * SNAPSHOT_MAX + (64 << 10)  # bytes of an opened object: the document is in it in hex

RESEALED = "sealed anew"  # the rule by which snapshots pass through the trash to be sealed under new keys

_VERSION = 1
_STAYS = (
    "the snapshot stays; a copy of it in the trash goes with the next lox prune. Run it with credentials that may "
    "delete, see docs/append-only.md"
)

OnUnreadable = Callable[[str, LoxError], object]
"""Told the name of an object in the trash that cannot be read, and why."""


@dataclass(frozen=True, slots=True)
class Trashed:
    """A forgotten snapshot. `time` is when it was forgotten last, ns since the epoch by the clock of who forgot it."""

    id: str
    time: int
    rule: str
    snapshot: Snapshot
    document: bytes  # of the snapshot, as it was
    names: tuple[str, ...]  # of its objects in the trash: usually one
    writer: bytes | None = None  # the write-only machine that made it: it comes back as that machine's


def forget(repository: Repository, snapshot_id: str, rule: str, now: int) -> None:
    """Move the snapshot to the trash as of `now`, ns since the epoch; `rule` says in words why.

    Raises UsageError if it is pinned or held, Missing if there is no such snapshot, Damaged, NewerFormat, StoreError.
    On a store that is full the reserve is given up for it: room is made by forgetting first. Refused by a store that
    deletes nothing, the snapshot is in both places, which counts as not forgotten.
    """
    name = SNAPSHOT_PREFIX + snapshot_id
    data, writer = repository.get_written(ObjectKind.SNAPSHOT, name)
    snapshot = Snapshot.decode(snapshot_id, data)  # what cannot be read is not ours to forget
    if kept := load_annotations(repository, snapshot_id).of(snapshot).protections(now):
        raise UsageError("the snapshot may not be forgotten", subject=snapshot.short_id, why=", ".join(kept))
    drawing_on_reserve(repository.store, lambda: _move(repository, snapshot_id, (data, writer), rule, now))


def reseal(repository: Repository, snapshot_id: str, now: int) -> None:
    """Seal a snapshot anew, under the keys of the newest epoch: through the trash, so that it is always somewhere.

    Raises Missing if there is no such snapshot, Damaged, NewerFormat, StoreError.
    """
    written = repository.get_written(ObjectKind.SNAPSHOT, SNAPSHOT_PREFIX + snapshot_id)
    Snapshot.decode(snapshot_id, written[0])
    _move(repository, snapshot_id, written, RESEALED, now)
    finish_reseals(repository)


def finish_reseals(repository: Repository) -> None:
    """Bring back what is in the trash only because it was to be sealed anew. Raises Damaged, StoreError."""
    for one in load_trash(repository, lambda name, error: None):
        if one.rule == RESEALED:
            undelete(repository, one)


def _move(repository: Repository, snapshot_id: str, written: tuple[bytes, bytes | None], rule: str, now: int) -> None:
    name, (data, writer) = SNAPSHOT_PREFIX + snapshot_id, written
    document: Document = {"version": _VERSION, "time": now, "rule": rule, "snapshot": data.hex()}
    if writer is not None:
        document["writer"] = writer.hex()
    plain = encode_document(document)
    repository.put_object(ObjectKind.MARK, _trash_name(snapshot_id), plain)
    try:
        delete(repository.store, name, "forgetting", _STAYS)
    except Missing:  # somebody else forgot it at the same time
        pass
    if not any(True for _ in repository.store.list(f"{TRASH_PREFIX}{snapshot_id}/")):
        # Brought back while we were about to delete it, the trash emptied: it must not be lost between two minds.
        repository.put_object(ObjectKind.MARK, _trash_name(snapshot_id), plain)


def undelete(repository: Repository, trashed: Trashed) -> bool:
    """Put the snapshot back under its old id, also in the place of a damaged copy; whether it was gone.

    Raises Damaged, StoreError.
    """
    name = SNAPSHOT_PREFIX + trashed.id
    gone = True
    try:
        repository.put_object(ObjectKind.SNAPSHOT, name, trashed.document, trashed.writer)
    except Exists:
        gone = not _opens_as(repository, name, trashed.document)
        if gone:  # an earlier undelete was cut off: what the trash has is whole
            _delete(repository, name)
            repository.put_object(ObjectKind.SNAPSHOT, name, trashed.document, trashed.writer)
    _empty(repository, trashed)
    if not repository.store.exists(name):  # forgotten again before the trash was emptied, by who found it full
        repository.put_object(ObjectKind.SNAPSHOT, name, trashed.document, trashed.writer)
    return gone


def load_trash(
    repository: Repository, on_unreadable: OnUnreadable | None = None, cache_dir: Path | None = None
) -> list[Trashed]:
    """The snapshots in the trash, oldest first, also those that are (still or again) in their place.

    Through the cache in `cache_dir`; None: all are read. Raises StoreError; Damaged or NewerFormat for an object that
    cannot be read, because nobody knows what it needs. With `on_unreadable` such objects are told to it and left out.
    """
    loaded = load_family(repository, Family(TRASH_PREFIX, _load, _pack, _unpack), cache_dir)
    for name, error in loaded.unreadable:
        if on_unreadable is None:
            raise error
        on_unreadable(name, error)
    found: dict[str, Trashed] = {}
    for one in loaded.found.values():
        found[one.id] = _joined(found[one.id], one) if one.id in found else one
    return sorted(found.values(), key=lambda one: (one.snapshot.time, one.id))


def load_live(repository: Repository, cache_dir: Path | None = None) -> Snapshots:
    """All snapshots whose data must stay: those in their place and those in the trash, each once.

    Looks into the one place, the other, and the first again, so that one that is moved meanwhile is not missed either
    way. Through the cache in `cache_dir`. Raises as `load_trash`; those in their place that cannot be read are in
    `unreadable`.
    """
    before = load_all(repository, cache_dir)
    trash = {one.id: one.snapshot for one in load_trash(repository, None, cache_dir)}
    after = load_all(repository, cache_dir)
    live: Mapping[str, Snapshot] = trash | {snapshot.id: snapshot for snapshot in [*before, *after]}
    unreadable = dict([*before.unreadable, *after.unreadable])
    return Snapshots(live.values(), unreadable.items())


def choose_trashed(trash: list[Trashed], wanted: str) -> Trashed:
    """The one whose id begins with `wanted`. Raises NotFound."""
    found = [one for one in trash if wanted and one.id.startswith(wanted.lower())]
    if len(found) != 1:
        what = "several snapshots in the trash begin so" if found else "no such snapshot in the trash"
        raise NotFound(what, subject=wanted, hint="lox undelete --list lists them")
    return found[0]


def purgeable(repository: Repository, older_than_ns: int, now_ns: int) -> list[Trashed]:
    """What was forgotten `older_than_ns` before `now_ns` or earlier. Raises StoreError.

    Where the store tells when an object was written, it must be as old by that clock too. Objects that cannot be read
    are not among them.
    """
    trash, limit = load_trash(repository, lambda name, error: None), now_ns - older_than_ns
    # The store is asked only about those that are old enough by what they say.
    return [
        one for one in trash if one.time <= limit and all(_written(repository, name) <= limit for name in one.names)
    ]


def purge(repository: Repository, older_than_ns: int, now_ns: int) -> list[str]:
    """Remove for good what is `purgeable`; the ids. Raises StoreError.

    The notes of a snapshot go with it; that it was purged is remembered. Of a snapshot that is in its place only what
    the trash has of it goes.
    """
    purged, going = [], purgeable(repository, older_than_ns, now_ns)
    record_purged(repository, (one.id for one in going if not repository.store.exists(SNAPSHOT_PREFIX + one.id)))
    for one in going:
        _empty(repository, one)
        if not repository.store.exists(SNAPSHOT_PREFIX + one.id):
            remove_notes(repository, [one.id])
        purged.append(one.id)
    return purged


def _trash_name(snapshot_id: str) -> str:
    return f"{TRASH_PREFIX}{snapshot_id}/{os.urandom(16).hex()}"


def _load(repository: Repository, name: str) -> Trashed:
    return _decode(name, repository.get_object(ObjectKind.MARK, name))


def _pack(trash: Sequence[Trashed]) -> Packed:
    return [(one.time, one.rule, one.document.hex(), (one.writer or b"").hex()) for one in trash], b""


def _unpack(names: Sequence[str], packed: Any, body: bytes) -> Iterator[Trashed]:
    for name, (time, rule, text, writer) in zip(names, packed, strict=True):
        yield _trashed(name, time, rule, bytes.fromhex(text), bytes.fromhex(writer) or None)


def _trashed(name: str, time: int, rule: str, document: bytes, writer: bytes | None) -> Trashed:
    snapshot_id = name.removeprefix(TRASH_PREFIX).partition("/")[0]
    snapshot = Snapshot.decode(snapshot_id, document)._replace(writer=writer.hex() if writer else "")
    return Trashed(snapshot_id, time, rule, snapshot, document, (name,), writer)


def _decode(name: str, data: bytes) -> Trashed:
    document = decode_document(data, name, TRASH_MAX)
    if (version := take(document, "version", int, name)) > _VERSION:
        raise NewerFormat("the trash was written by a newer version", subject=name, why=f"version {version}")
    try:
        inner = bytes.fromhex(take(document, "snapshot", str, name))
    except ValueError as error:
        raise Damaged("object lacks a valid field", subject=name, why="snapshot should be hex") from error
    writer = take_hex(document, "writer", WRITER_ID_SIZE, name) if "writer" in document else None
    return _trashed(name, take(document, "time", int, name), take(document, "rule", str, name), inner, writer)


def _joined(one: Trashed, other: Trashed) -> Trashed:
    last = max(one, other, key=lambda trashed: trashed.time)
    return Trashed(last.id, last.time, last.rule, last.snapshot, last.document, (*one.names, *other.names), last.writer)


def _written(repository: Repository, name: str) -> int:
    try:
        return repository.store.written(name) or 0
    except Missing:
        return 0


def _opens_as(repository: Repository, name: str, document: bytes) -> bool:
    """Whether the snapshot in its place is `document`; False: it does not open. Raises Damaged if it is another one."""
    try:
        there = repository.get_object(ObjectKind.SNAPSHOT, name)
    except (Damaged, Missing):
        return False
    if there != document:
        raise Damaged("another snapshot has the id of one in the trash", subject=name)
    return True


def _empty(repository: Repository, trashed: Trashed) -> None:
    for name in trashed.names:
        _delete(repository, name)


def _delete(repository: Repository, name: str) -> None:
    try:
        delete(repository.store, name, "emptying the trash")
    except Missing:  # somebody else did
        pass
